"""Policies and texts for tests of this room."""

from collections.abc import Sequence

from tollhouse_server.dlp.policy import (
    Action,
    DataPolicy,
    DataRule,
    DigestKey,
    Direction,
    NamedPattern,
    Screen,
    screens_of,
)
from tollhouse_server.dlp.redaction import Findings, Redactor
from tollhouse_server.dlp.tokens import Tokens

KEY = DigestKey(b"a key for tests")
EVERYTHING = ("CONTACT", "PAYMENT", "NATIONAL_ID", "CREDENTIAL", "NETWORK")
STAFF = NamedPattern(name="staff-number", pattern="工号 ?[0-9]{6}")


def policy(
    *detectors: str,
    action: Action = Action.MASK,
    directions: Sequence[Direction] = tuple(Direction),
    patterns: Sequence[NamedPattern] = (),
) -> DataPolicy:
    """Return a policy of one rule."""
    rule = DataRule(detectors=detectors, directions=tuple(directions), action=action)
    return DataPolicy(rules=(rule,), patterns=tuple(patterns))


def screen(*policies: DataPolicy, direction: Direction = Direction.PROMPT) -> Screen:
    """Return what is in force where these policies are, from the top down."""
    found = screens_of("acme", policies, KEY)
    made = found.prompt if direction is Direction.PROMPT else found.answer
    assert made is not None
    return made


def masked(text: str, by: Screen, pieces: Sequence[str] | None = None) -> tuple[str, Tokens, Findings]:
    """Return a text as it would travel, taken at once or in pieces."""
    tokens, findings = Tokens(), Findings()
    tokens.avoid([text])
    redactor = Redactor(by, findings, tokens.token)
    if pieces is None:
        return redactor.take(text, is_last=True), tokens, findings
    taken = [redactor.take(piece, is_last=False) for piece in pieces]
    return "".join(taken) + redactor.take("", is_last=True), tokens, findings
