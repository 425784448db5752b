"""What is looked for at once: some detectors and patterns, and the one quick question whether a text may have any."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import re2

from tollhouse_server.dlp.credentials import PEM_MOST_CHARACTERS, PEM_OPENING
from tollhouse_server.dlp.custom import CustomPattern
from tollhouse_server.dlp.detector import Detector, Trigger

# Six digits, with at most two separators, or the letter of Corsica, between one and the next.
_NUMBER_TEXT: Final = r"[0-9](?:[ .\-/()]{0,2}[0-9]|[AB] ?[0-9]){5,}"
_NUMBER: Final = re.compile(_NUMBER_TEXT)
_DATE: Final = re.compile(
    r"(?:19|20)[0-9]{2}([-./])[0-9]{1,2}\1[0-9]{1,2}(?: [0-9]{1,2})?|[0-9]{1,2}([-./])[0-9]{1,2}\2(?:19|20)[0-9]{2}"
)
_LONG: Final = 400
"""Longer values have a literal at their beginning."""
_MOST_REACH: Final = 70
"""So far before a row of digits or a literal a match begins at the most."""
_NO_DIGITS: Final = str.maketrans("", "", " .-/()AB")
_ADDRESS_HINT: Final = r"[0-9]\.[0-9]{1,3}\.[0-9]|[0-9A-Fa-f]:[0-9A-Fa-f]{0,4}:"
_ADDRESS: Final = re.compile(_ADDRESS_HINT)


@dataclass(frozen=True, slots=True, order=True)
class Found:
    """Something in a text, by the folded places where it starts and ends."""

    start: int
    end: int
    name: str


@dataclass(frozen=True, slots=True)
class Window:
    """A text to look through: matches start at `first` or after it, and before `until`."""

    text: str
    first: int
    until: int


class Lookout:
    """Looks for all that it knows; `longest_custom` bounds what patterns of tenants match."""

    def __init__(self, detectors: Iterable[Detector], patterns: Sequence[tuple[str, CustomPattern]] = ()) -> None:
        found = list(detectors)
        self._long = [
            one for one in found if one.begin is None and one.longest > _LONG and PEM_OPENING not in one.literals
        ]
        self._usual = max((one.longest for one in found if one.longest <= _LONG), default=_LONG if found else 0)
        self.longest_custom = max((one.longest for _, one in patterns), default=0)
        self.sees_keys = any(PEM_OPENING in one.literals for one in found)
        self.count = len(found) + len(patterns)
        self.has_built_in = bool(found)
        self._names = [*(one.name for one in found), *(name for name, _ in patterns)]
        self._patterns = [pattern for _, pattern in patterns]
        self._numbers = [(at, one) for at, one in enumerate(found) if one.trigger is Trigger.NUMBER]
        self._literals = [(at, one) for at, one in enumerate(found) if one.trigger is Trigger.LITERAL]
        self._always = [(at, one) for at, one in enumerate(found) if one.trigger is Trigger.ALWAYS]
        self._hint = _hint(found)

    def longest(self, text: str, first: int) -> int:
        """Return what a built-in detector can match at most that begins in a text at a place or behind it."""
        begun = (one.longest for one in self._long if any(text.find(literal, first) >= 0 for literal in one.literals))
        return max(begun, default=self._usual)

    def look(self, window: Window, resume: list[int]) -> list[Found]:
        """Return what starts in the window. `resume`, where each detector's last match ended, is brought up to date.

        Matches may overlap; of one detector's none is within another.
        """
        found: list[Found] = []
        if self._hint is not None and self._hint.search(window.text) is not None:
            for at, start, end in self._built_in(window, resume):
                found.append(Found(start, end, self._names[at]))
        offset = len(self._names) - len(self._patterns)
        for at, pattern in enumerate(self._patterns, offset):
            for start, end in pattern.spans(window.text, max(window.first, resume[at])):
                if start >= window.until:
                    break
                found.append(Found(start, end, self._names[at]))
                resume[at] = end
        return sorted(found)

    def _built_in(self, window: Window, resume: list[int]) -> Iterator[tuple[int, int, int]]:
        text, last = window.text, len(window.text)
        for at, one in self._literals:
            for place in _places(window, one):
                yield from _accepted(window, resume, at, one, place)
        if self._numbers:
            for run in _NUMBER.finditer(text):
                if run.start() >= window.until + _MOST_REACH:
                    break
                digits = _digits(run[0])
                for at, one in self._numbers:
                    if digits >= one.fewest_digits:
                        before, after = one.reach
                        place = (max(0, run.start() - before), min(last, run.end() + after))
                        yield from _accepted(window, resume, at, one, place)
        for at, one in self._always:
            if _ADDRESS.search(text):
                yield from _accepted(window, resume, at, one, (0, last))


def open_key(text: str, first: int) -> int:
    """Return where a private key begins that may still go on behind the text, its length where there is none."""
    place = text.find(PEM_OPENING, first)
    while place >= 0:
        footer = text.find("-----END ", place, place + PEM_MOST_CHARACTERS)
        is_over = footer >= 0 and text.find("-----", footer + 9, footer + 90) >= 0
        if not is_over and len(text) - place < PEM_MOST_CHARACTERS:
            return place
        place = text.find(PEM_OPENING, place + 1)
    return len(text)


def _accepted(
    window: Window, resume: list[int], at: int, one: Detector, place: tuple[int, int]
) -> Iterator[tuple[int, int, int]]:
    """Yield a detector's matches in a place, -1 as whose end means: one that begins there.

    Each character is tried, also within a match: what looks like a number may hide the beginning of one. Matches that
    are wholly within another are left out.
    """
    text, size = window.text, len(window.text)
    is_fixed = place[1] < 0
    first, last = max(place[0], window.first), size if is_fixed else place[1]
    find = one.pattern.match if is_fixed else one.pattern.search
    while (match := find(text, first, last)) is not None:
        start, end = match.span()
        if start >= window.until:
            return
        # What ends with the place may be cut short by it.
        end = one.accept(text, start, end) if end < last or last == size else 0
        if end > resume[at]:
            yield at, start, end
            resume[at] = end
        if is_fixed:
            return
        first = start + 1


def _digits(run: str) -> int:
    """Return how many digits a row has; a date counts for nothing, whatever it is the beginning of."""
    return 0 if _DATE.fullmatch(run) else len(run.translate(_NO_DIGITS))


def _places(window: Window, one: Detector) -> Iterator[tuple[int, int]]:
    """Yield where to try a detector, from left to right: where one of its literals begins, or around it."""
    text, places = window.text, []
    for literal in one.literals:
        last = window.until + _MOST_REACH + len(literal)
        at = text.find(literal, window.first, last)
        while at >= 0:
            places.append(at)
            at = text.find(literal, at + 1, last)
    for at in sorted(places):
        start = at if one.begin is None else one.begin(text, at)
        if start >= window.first:
            yield start, -1


def _hint(detectors: Sequence[Detector]) -> Any:
    """Return the pattern that tells in one pass whether any built-in detector is worth trying."""
    if not detectors:
        return None
    hints = {re2.escape(literal) for one in detectors for literal in one.literals}
    if any(one.trigger is Trigger.NUMBER for one in detectors):
        hints.add(_NUMBER_TEXT)
    if any(one.trigger is Trigger.ALWAYS for one in detectors):
        hints.add(_ADDRESS_HINT)
    options = re2.Options()
    options.never_capture = True
    return re2.compile("|".join(sorted(hints)), options)
