r"""Patterns that a tenant brings: only what a linear engine (RE2) takes, bounded in length, so that none can cost much.

They see a stream as well as a whole text, so they may ask for edges of words (ASCII's: `\b` between a Chinese
character and a digit is one), but not for where a text begins or ends.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

import re2

MOST_PATTERN_CHARACTERS: Final = 512
MOST_MATCH_CHARACTERS: Final = 256
FEWEST_MATCH_CHARACTERS: Final = 3
_MOST_INSTRUCTIONS: Final = 4_000
_MOST_MEMORY_BYTES: Final = 1 << 20
_ALLOWED_PLACES: Final = frozenset({"AT_BOUNDARY", "AT_NON_BOUNDARY"})


class PatternRefused(ValueError):
    """A pattern is not in the dialect; the text says why."""


@dataclass(frozen=True, slots=True)
class CustomPattern:
    """A compiled pattern and the most characters that it matches."""

    compiled: Any
    longest: int

    def spans(self, text: str, start: int) -> Iterator[tuple[int, int]]:
        """Yield where it matches from a place on, from left to right; in time linear in the text."""
        for match in self.compiled.finditer(text, start):
            yield match.span()

    def covers(self, value: str) -> bool:
        """Tell whether it matches all of a value."""
        return self.compiled.fullmatch(value) is not None


def compile_pattern(pattern: str) -> CustomPattern:
    """Return a pattern ready for use.

    Raises:
        PatternRefused: it is too long, unbounded, empty, or beyond what RE2 and Python both understand.
    """
    if len(pattern) > MOST_PATTERN_CHARACTERS:
        raise PatternRefused(f"has more than {MOST_PATTERN_CHARACTERS} characters")
    compiled = _compiled(pattern)
    shortest, longest = _width(pattern)
    if longest > MOST_MATCH_CHARACTERS:
        raise PatternRefused(
            f"can match more than {MOST_MATCH_CHARACTERS} characters; bound it, such as {{1,32}} instead of + or *"
        )
    if shortest < FEWEST_MATCH_CHARACTERS:
        raise PatternRefused(f"can match fewer than {FEWEST_MATCH_CHARACTERS} characters")
    return CustomPattern(compiled, longest)


def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.max_mem = _MOST_MEMORY_BYTES
    options.log_errors = False
    options.never_capture = True
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else ""
        raise PatternRefused(f"is not understood by RE2: {_text(reason)}") from None
    if compiled.programsize > _MOST_INSTRUCTIONS:
        raise PatternRefused("is too complex; use smaller repetitions")
    return compiled


def _width(pattern: str) -> tuple[int, int]:
    # What a pattern can match at most, it alone tells.
    parser = import_module("re._parser")
    try:
        tree = parser.parse(pattern)
    except (re.error, OverflowError, RecursionError):
        raise PatternRefused("is not understood: use the common part of RE2's and Python's syntax") from None
    if _forbidden(tree.data):
        raise PatternRefused(r"asks for the beginning or end of a text; only \b and \B may be asked for")
    shortest, longest = tree.getwidth()
    return int(shortest), int(longest)


def _forbidden(node: Any) -> bool:
    """Tell whether a tree has an anchor other than the edge of a word."""
    if hasattr(node, "getwidth"):
        return _forbidden(node.data)
    if isinstance(node, tuple) and len(node) == 2 and str(node[0]) == "AT":
        return str(node[1]) not in _ALLOWED_PLACES
    return isinstance(node, tuple | list) and any(_forbidden(one) for one in node)


def _text(reason: object) -> str:
    return reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
