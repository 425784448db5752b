"""One text, judged and rewritten as it comes."""

import time
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from tollhouse_server.dlp.lookout import Found
from tollhouse_server.dlp.policy import Action, Screen, label_of, shown
from tollhouse_server.dlp.scanner import Scanner

SLICE_CHARACTERS: Final = 4_096
"""So much is looked through at a time at first: others' calls have their turn in between."""

_WIDEST_CHARACTERS: Final = 1_024
_FEWEST_CHARACTERS, _MOST_CHARACTERS = 512, 16_384
_QUICK_SECONDS, _SLOW_SECONDS = 0.0005, 0.002

Steps: TypeAlias = Generator[None, None, "str"]


@dataclass(eq=False)
class Blocked(Exception):
    """A value was found that may not pass; only what found it is told."""

    detector: str


@dataclass(slots=True)
class Findings:
    """How often each detector found something in one direction of one call, by what was done."""

    counts: Counter[tuple[str, Action]] = field(default_factory=Counter)

    def add(self, name: str, action: Action) -> None:
        """Count one value."""
        self.counts[shown(name), action] += 1


Tokenise: TypeAlias = Callable[[str, str], str]
"""From a label and a value to what stands in its place."""


class Redactor:
    """Rewrites one text. Values that overlap are hidden as one."""

    def __init__(self, screen: Screen, findings: Findings, tokenise: Tokenise) -> None:
        self._screen = screen
        self._findings = findings
        self._tokenise = tokenise
        self._scanner = Scanner(screen.lookout)
        self._text = ""
        self._passed = 0
        self._hidden: list[Found] = []

    def steps(self, text: str, *, is_last: bool) -> Steps:
        """Take a piece of the text, a slice at each step, and return what can be passed on.

        Raises:
            Blocked: it has a value that may not pass.
        """
        done, at, size = [], 0, SLICE_CHARACTERS
        while len(text) - at > size:
            started_at = time.perf_counter()
            done.append(self.take(text[at : at + size], is_last=False))
            at += size
            seconds = time.perf_counter() - started_at
            if seconds > _SLOW_SECONDS:
                size = max(_FEWEST_CHARACTERS, size // 4)
            elif seconds < _QUICK_SECONDS:
                size = min(_MOST_CHARACTERS, size * 2)
            yield
        done.append(self.take(text[at:], is_last=is_last))
        return "".join(done)

    def take(self, piece: str, *, is_last: bool) -> str:
        """Take a piece at once.

        Raises:
            Blocked: as `steps`.
        """
        self._text += piece
        seen = self._scanner.take(piece, is_last=is_last)
        for one in seen.found:
            self._judge(one)
        if not self._hidden:
            return self._pass(seen.until)
        return self._rewritten(seen.until)

    def _judge(self, one: Found) -> None:
        value = self._text[one.start - self._passed : one.end - self._passed]
        action = self._screen.judge(one.name, value)
        if action is None:
            return
        self._findings.add(one.name, action)
        if action is Action.BLOCK:
            raise Blocked(shown(one.name))
        if action is Action.MASK:
            self._hidden.append(one)

    def _rewritten(self, until: int) -> str:
        """Return all that is decided, with tokens for what is hidden; what may yet be part of a longer value waits."""
        passed, at = [], 0
        while at < len(self._hidden):
            start, end, widest, following = self._together(at)
            if end > until:
                until = min(until, start)
                break
            at = following
            if end > self._passed:
                passed.append(self._pass(max(start, self._passed)))
                passed.append(self._tokenise(label_of(widest.name), self._pass(end)))
        del self._hidden[:at]
        passed.append(self._pass(max(until, self._passed)))
        return "".join(passed)

    def _together(self, at: int) -> tuple[int, int, Found, int]:
        """Return what is hidden as one: where it begins and ends, what names it, and which finding follows.

        However many overlap, it does not grow without end: others' turns and the memory depend on it.
        """
        first = widest = self._hidden[at]
        start, end = first.start, first.end
        for following in range(at + 1, len(self._hidden)):
            one = self._hidden[following]
            if one.start >= end or end - start >= _WIDEST_CHARACTERS:
                return start, end, widest, following
            end, widest = max(end, one.end), max(widest, one, key=_weight)
        return start, end, widest, len(self._hidden)

    def _pass(self, until: int) -> str:
        count = until - self._passed
        text, self._text, self._passed = self._text[:count], self._text[count:], until
        return text


def _weight(one: Found) -> tuple[int, bool, str]:
    """Order overlapping findings: the longest names the token, of two as long rather not a phone number."""
    return one.end - one.start, one.name != "PHONE", one.name
