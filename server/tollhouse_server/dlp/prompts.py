"""A prompt as it may be sent: every text in it judged, values replaced by tokens."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tollhouse_server.dlp.leaves import Leaf, Path, dotted, leaves, rebuilt
from tollhouse_server.dlp.policy import Screen
from tollhouse_server.dlp.redaction import SLICE_CHARACTERS, Blocked, Findings, Redactor
from tollhouse_server.dlp.tokens import Tokens

_LEAVES_A_STEP: Final = 64


@dataclass(eq=False)
class PromptBlocked(Exception):
    """A prompt has a value that may not be sent."""

    detector: str
    field: str


@dataclass(frozen=True, slots=True)
class Sent:
    """What may be sent, and what stands for what in it."""

    body: Mapping[str, Any]
    tokens: Tokens


def redacted_prompt(body: Mapping[str, Any], screen: Screen, findings: Findings) -> Generator[None, None, Sent]:
    """Judge a prompt a step at a time; it is the same object where nothing was hidden.

    Raises:
        PromptBlocked: it may not be sent.
    """
    found: list[Leaf] = []
    for number, leaf in enumerate(leaves(body)):
        found.append(leaf)
        if number % _LEAVES_A_STEP == 0:
            yield
    tokens = _LazyTokens(found)
    changes: dict[tuple[Path, bool], str] = {}
    for number, leaf in enumerate(found):
        try:
            if len(leaf.text) <= SLICE_CHARACTERS:
                text = Redactor(screen, findings, tokens.token).take(leaf.text, is_last=True)
            else:
                text = yield from Redactor(screen, findings, tokens.token).steps(leaf.text, is_last=True)
        except Blocked as blocked:
            raise PromptBlocked(blocked.detector, dotted(leaf.path)) from None
        if text != leaf.text:
            changes[leaf.path, leaf.is_key] = text
        if number % _LEAVES_A_STEP == 0:
            yield
    if not changes:
        return Sent(body, tokens.tokens)
    inline = frozenset(leaf.path for leaf in found if leaf.is_inline)
    return Sent(rebuilt(body, changes, inline), tokens.tokens)


class _LazyTokens:
    """Tokens that know what stands in the prompt already, from the first on that is needed."""

    def __init__(self, found: list[Leaf]) -> None:
        self._leaves = found
        self._knows_leaves = False
        self.tokens = Tokens()

    def token(self, label: str, value: str) -> str:
        """Return the token of a value."""
        if not self._knows_leaves:
            self.tokens.avoid(leaf.text for leaf in self._leaves)
            self._knows_leaves = True
        return self.tokens.token(label, value)
