"""A text looked through as it comes. However it is cut into pieces, the same is found.

What is found at a place depends on a bounded number of characters behind it. Most texts have a character every few
letters that no built-in detector matches across: up to the last of these all is known. So little is held back of most
streams; the bound is for those that have none.
"""

import re
from dataclasses import dataclass
from typing import Final

from tollhouse_server.dlp.detector import CONTEXT_CHARACTERS
from tollhouse_server.dlp.folding import Folded, fold
from tollhouse_server.dlp.lookout import Found, Lookout, Window, open_key

_MARGIN: Final = 4
"""Characters behind a match that decide whether it is one."""

# A blank may stand within a number, between digits or capitals.
_CUT: Final = re.compile(r"[^0-9A-Za-z._%+\-'/():@\u00c0-\u024f ]|(?<![0-9A-Z)]) | (?=[^0-9A-Z(+])")


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found, by places in the whole text, and up to where (`until`) nothing more will start."""

    found: list[Found]
    until: int


class Scanner:
    """Looks through one text."""

    def __init__(self, lookout: Lookout) -> None:
        self._lookout = lookout
        self._tail = ""
        self._base = 0
        self._decided = 0
        self._resume = [0] * lookout.count

    def take(self, text: str, *, is_last: bool) -> Seen:
        """Return what is known once this piece has come too."""
        raw = self._tail + text
        folded = fold(raw)
        first = folded.at(self._decided - self._base)
        until = len(folded.text) if is_last else max(first, self._until(folded.text, first))
        found = self._look(folded, Window(folded.text, first, until)) if until > first else []
        decided = folded.before(until, len(raw))
        keep = folded.before(max(0, until - CONTEXT_CHARACTERS), len(raw))
        self._decided = self._base + decided
        self._tail, self._base = raw[keep:], self._base + keep
        return Seen(found, self._decided)

    def _look(self, folded: Folded, window: Window) -> list[Found]:
        base = self._base
        resume = [max(0, folded.at(place - base)) for place in self._resume]
        found = self._lookout.look(window, resume)
        if not found:
            return found
        spans = [folded.span(one.start, one.end) for one in found]
        ends = [folded.span(0, place)[1] if place else 0 for place in resume]
        self._resume = [max(old, base + end) for old, end in zip(self._resume, ends, strict=True)]
        return [Found(base + start, base + end, one.name) for (start, end), one in zip(spans, found, strict=True)]

    def _until(self, text: str, first: int) -> int:
        """Return before which place all that starts is known without what comes."""
        until, lookout = len(text), self._lookout
        until = _last_cut(text, first) if lookout.has_built_in else until
        if until == first:
            # An unbroken run. It is looked at when it has doubled, not at every piece of it.
            bound = lookout.longest(text, first) + _MARGIN
            until = len(text) - bound if len(text) - first >= 2 * bound else first
        if lookout.sees_keys:
            until = min(until, open_key(text, first))
        if lookout.longest_custom:
            until = min(until, len(text) - lookout.longest_custom - _MARGIN)
        return until


def _last_cut(text: str, first: int) -> int:
    """Return the last place that nothing built in is matched across, `first` where there is none."""
    size = 64
    while True:
        start = max(first, len(text) - size)
        cuts = [found.end() for found in _CUT.finditer(text, start)]
        if cuts:
            return cuts[-1]
        if start == first:
            return first
        size *= 8
