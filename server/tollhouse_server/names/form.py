"""What every resource name is: a template whose parts are parsed strictly and formatted exactly."""

import re
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Self

from tollhouse_server.errors import FieldViolation, InvalidRequest

PLATFORM = "platform"
"""Scope of what belongs to no tenant, and the id of the tenant in which the platform's own principals live."""

SLUG = r"[a-z][a-z0-9-]{1,62}"
"""An id: 2 to 63 lower-case letters, digits, hyphens, a letter first."""
_FORMS = {
    "api_key": "[a-z2-7]{12}",
    "attempt": "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "bill_import": "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "tier": "[a-z0-9][a-z0-9.-]{0,62}",
    "month": "20[0-9]{2}-(?:0[1-9]|1[0-2])",
    "model": "[a-z0-9][a-z0-9.-]{0,127}",
    "alias": "[a-z0-9][a-z0-9.-]{0,127}",
    "version": "current|[1-9][0-9]{0,17}",
}


@cache
def pattern(template: str) -> re.Pattern[str]:
    """Return what a name of this template looks like, its parts as groups."""
    return re.compile(re.sub(r"\{(\w+)\}", lambda part: f"(?P<{part[1]}>{_FORMS.get(part[1], SLUG)})", template))


@dataclass(frozen=True, slots=True)
class Name:
    """A name with the ids of its template as fields."""

    template: ClassVar[str]

    @classmethod
    def parse(cls, text: str, field: str = "name") -> Self:
        """Return the parts of `text`.

        Raises:
            InvalidRequest: `text`, which came in the request's `field`, is not a name of this kind.
        """
        match = pattern(cls.template).fullmatch(text)
        if match is None:
            raise invalid(field, f"must be of the form {cls.template}")
        return cls(**match.groupdict())

    def __str__(self) -> str:
        return self.template.format(**{part: getattr(self, part) for part in _parts(self.template)})


@cache
def _parts(template: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\{(\w+)\}", template))


def invalid(field: str, description: str) -> InvalidRequest:
    """Return the error for one wrong field."""
    return InvalidRequest(violations=(FieldViolation(path=field, description=description),))
