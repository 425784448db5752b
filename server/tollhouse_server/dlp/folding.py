"""One spelling for what looks the same: full-width characters, other digits, hyphens and spaces; nothing invisible.

Every character stands for one, except those that nobody sees, which are left out: only where a text has such are the
places in the folded text not those in the text itself.
"""

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

# Soft hyphen, zero-width spaces and joiners, marks of direction, word joiners, variation selectors.
_INVISIBLE_RANGES: Final = "\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufe00-\ufe0f\ufeff"
_INVISIBLE: Final = re.compile(f"[{_INVISIBLE_RANGES}]+")
_SEEN: Final = re.compile(f"[^{_INVISIBLE_RANGES}]+")
_FOREIGN: Final = re.compile(
    "[\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\uff20\uff0b\uff0d\uff0e\u00a0\u2007\u2009\u202f\u2010-\u2015\u2212"
    "\u0660-\u0669\u06f0-\u06f9\u0966-\u096f\u09e6-\u09ef\u0e50-\u0e59\u3000\U0001d7ce-\U0001d7ff]"
)
_DIGIT_ZEROS: Final = (0x0660, 0x06F0, 0x0966, 0x09E6, 0x0E50)


@dataclass(frozen=True, slots=True)
class Folded:
    """A text as detectors see it. `places` has the place of each of its characters, None where they are the same."""

    text: str
    places: Sequence[int] | None = None

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return where in the text itself the characters from `start` up to `end` stand."""
        if self.places is None:
            return start, end
        return self.places[start], self.places[end - 1] + 1

    def before(self, place: int, length: int) -> int:
        """Return where in the text itself, which has `length` characters, all before a place ends."""
        if self.places is None:
            return place
        return self.places[place] if place < len(self.places) else length

    def at(self, place: int) -> int:
        """Return which folded character is the first at or after a place in the text itself."""
        return place if self.places is None else bisect_left(self.places, place)


def fold(text: str) -> Folded:
    """Return a text as detectors see it; ASCII costs nothing."""
    if text.isascii():
        return Folded(text)
    if _FOREIGN.search(text):
        text = text.translate(_table())
    if not _INVISIBLE.search(text):
        return Folded(text)
    places = [at for run in _SEEN.finditer(text) for at in range(*run.span())]
    return Folded(_INVISIBLE.sub("", text), places)


@cache
def _table() -> dict[int, str]:
    table = {0xFF01 + offset: chr(0x21 + offset) for offset in range(94)}
    table |= dict.fromkeys((0xA0, 0x2007, 0x2009, 0x202F, 0x3000), " ")
    table |= dict.fromkeys((*range(0x2010, 0x2016), 0x2212), "-")
    table |= {zero + digit: str(digit) for zero in _DIGIT_ZEROS for digit in range(10)}
    return table | {one: unicodedata.normalize("NFKC", chr(one)) for one in range(0x1D7CE, 0x1D800)}
