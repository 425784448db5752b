"""Reading Gemini's request JSON member by member, so that nothing is left out in silence.

Every member is translated, known to make no difference, or refused by its name.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from tollhouse_server.upstream.protocol import Refused

_BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"


def inexpressible(place: str, why: str = "cannot be expressed to an OpenAI-compatible server") -> Refused:
    """Return the refusal of a request that is not sent, in Gemini's shape: INVALID_ARGUMENT naming the field."""
    message = f"{place}: {why}."
    violation = {"field": place, "description": message}
    details = [{"@type": _BAD_REQUEST, "fieldViolations": [violation]}]
    return Refused(400, {"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT", "details": details}})


class Members:
    """The members of one object, taken one by one; `end` refuses the object if any are left."""

    def __init__(self, value: object, place: str) -> None:
        if not isinstance(value, Mapping):
            raise inexpressible(place, "is not an object")
        self.place = place
        self._left: dict[str, Any] = {name: inner for name, inner in value.items() if inner is not None}

    def take(self, name: str) -> Any:
        """Take a member of any type, None if it is absent."""
        return self._left.pop(name, None)

    def text(self, name: str) -> str | None:
        """Take a string."""
        value = self.take(name)
        if value is not None and not isinstance(value, str):
            raise inexpressible(self.at(name), "is not a string")
        return value

    def inner(self, name: str) -> "Members | None":
        """Take an object."""
        value = self.take(name)
        return None if value is None else Members(value, self.at(name))

    def each(self, name: str) -> Iterator["Members"]:
        """Take a list of objects; a single one stands for a list of one, as in protobuf's JSON."""
        value = self.take(name)
        if value is None:
            return
        items = value if isinstance(value, list) else [value]
        for index, item in enumerate(items):
            yield Members(item, f"{self.at(name)}[{index}]")

    def word(self, name: str, *allowed: str) -> str | None:
        """Take one of these words, in upper case; `*_UNSPECIFIED` counts as absent and any other word is refused."""
        value = self.text(name)
        if not value or value.upper().endswith("_UNSPECIFIED"):
            return None
        if value.upper() not in allowed:
            raise inexpressible(self.at(name), f"{value[:80]!r} cannot be expressed to an OpenAI-compatible server")
        return value.upper()

    def leave(self, *names: str) -> None:
        """Leave out members that make no difference to the answer of such a server."""
        for name in names:
            self._left.pop(name, None)

    def end(self) -> None:
        """Refuse what nobody took. A false asks for nothing, wherever Gemini has a boolean."""
        for name, value in self._left.items():
            if value is not False:
                raise inexpressible(self.at(name))

    def at(self, name: str) -> str:
        """Return the place of a member."""
        return f"{self.place}.{name}" if self.place else name
