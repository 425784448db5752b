"""What stands in the place of values, and how values come back: known to one call, kept nowhere else."""

import re
from bisect import bisect_left
from collections.abc import Generator, Iterable
from typing import Final

# Also as models write them: in other letters, and with what Markdown puts before brackets and underscores.
_NAME: Final = r"[A-Za-z][A-Za-z0-9]*(?:\\?_[A-Za-z0-9]*)*\\?_[0-9]+"
_TOKEN: Final = re.compile(rf"\\\[{_NAME}\\\]|\[{_NAME}\]")
_BEGUN: Final = re.compile(r"(?:\\?\[[A-Za-z0-9_\\]*|\\)\Z")


class Tokens:
    """Gives each value a token of its own; those that stand in the text already are never given."""

    def __init__(self) -> None:
        self._tokens: dict[tuple[str, str], str] = {}
        self._last: dict[str, int] = {}
        self._taken: set[str] = set()

    def avoid(self, texts: Iterable[str]) -> None:
        """Take note of what looks like a token and is none."""
        for text in texts:
            if "[" in text:
                self._taken.update(map(_plain, _TOKEN.findall(text)))

    def token(self, label: str, value: str) -> str:
        """Return the token of a value: the same as before, or a new one."""
        found = self._tokens.get((label, value))
        if found is None:
            found = self._tokens[label, value] = self._new(label)
        return found

    def _new(self, label: str) -> str:
        number = self._last.get(label, 0) + 1
        while (token := f"[{label}_{number}]") in self._taken:
            number += 1
        self._last[label] = number
        self._taken.add(token)
        return token

    def values(self) -> dict[str, str]:
        """Return the values by their tokens."""
        return {token: value for (_, value), token in self._tokens.items()}


class Values:
    """The values of a prompt by their tokens."""

    def __init__(self, values: dict[str, str]) -> None:
        self._values = values
        self._sorted = sorted(values)

    def __repr__(self) -> str:
        return f"Values({len(self._values)})"

    def restored(self, text: str) -> str:
        """Return a text with every token replaced by its value."""
        if "[" not in text:
            return text
        return _TOKEN.sub(lambda match: self._values.get(_plain(match[0]), match[0]), text)

    def begun(self, text: str) -> int:
        """Return how many characters at the end of a text may be the beginning of a token."""
        match = _BEGUN.search(text, max(0, text.rfind("[") - 1))
        if match is None:
            return 0
        begun = _plain(match[0])
        at = bisect_left(self._sorted, begun)
        is_begun = at < len(self._sorted) and self._sorted[at].startswith(begun)
        return len(match[0]) if is_begun else 0


def _plain(written: str) -> str:
    """Return a token as it was given, however it is written."""
    return written.replace("\\", "").upper()


class Restorer:
    """Puts values back into a text as it comes; keeps back at most the beginning of a token."""

    def __init__(self, values: Values) -> None:
        self._values = values
        self._held = ""

    def steps(self, text: str, *, is_last: bool) -> Generator[None, None, str]:
        """Take a piece of the text and return what can be passed on; it is quick enough for one step."""
        yield from ()
        whole = self._held + text
        keep = len(whole) - (0 if is_last else self._values.begun(whole))
        self._held = whole[keep:]
        return self._values.restored(whole[:keep])
