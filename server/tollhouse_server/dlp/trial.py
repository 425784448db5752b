"""What a policy would do with a text, without doing it to anybody's call."""

from collections.abc import Generator
from dataclasses import dataclass

from tollhouse_server.dlp.policy import Action, Screen, shown
from tollhouse_server.dlp.redaction import SLICE_CHARACTERS, Findings, Redactor
from tollhouse_server.dlp.scanner import Scanner
from tollhouse_server.dlp.tokens import Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A value that was found, by its place in characters."""

    detector: str
    action: Action
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What would be done: `masked_text` is empty where the text would be blocked."""

    matches: tuple[Match, ...]
    masked_text: str
    is_blocked: bool


def trial(text: str, screen: Screen | None) -> Generator[None, None, Trial]:
    """Try a text, a step at a time."""
    if screen is None:
        return Trial(matches=(), masked_text=text, is_blocked=False)
    matches: list[Match] = []
    scanner = Scanner(screen.lookout)
    for at in range(0, max(1, len(text)), SLICE_CHARACTERS):
        is_last = at + SLICE_CHARACTERS >= len(text)
        for one in scanner.take(text[at : at + SLICE_CHARACTERS], is_last=is_last).found:
            action = screen.judge(one.name, text[one.start : one.end])
            if action is not None:
                matches.append(Match(detector=shown(one.name), action=action, start=one.start, end=one.end))
        yield
    if any(one.action is Action.BLOCK for one in matches):
        return Trial(matches=tuple(matches), masked_text="", is_blocked=True)
    tokens = Tokens()
    tokens.avoid([text])
    masked = yield from Redactor(screen, Findings(), tokens.token).steps(text, is_last=True)
    return Trial(matches=tuple(matches), masked_text=masked, is_blocked=False)
