"""What a detector is: a bounded pattern, what makes it worth trying, and what a match must stand up to."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

Accept: TypeAlias = Callable[[str, int, int], int]
"""Given the text and a match from start to end: where what was found ends, or 0 if it is not what it looks like."""


def atomic(pattern: str, name: str) -> str:
    """Return a pattern that gives back nothing of what it took; `name` is a group's, of its own in an expression.

    Python before 3.11.5 takes too much for `(?>...)` and for possessive repetitions of groups (gh-106052).
    """
    return f"(?=(?P<{name}>{pattern}))(?P={name})"


def edge(characters: str) -> str:
    """Return what asks that none of these characters stands before, unless JSON or a URL has written another so."""
    return rf"(?:(?<![{characters}])|(?<=\\[bfnrt])|(?<=\\u[0-9A-Fa-f]{{4}})|(?<=%[0-9A-Fa-f]{{2}}))"


BEFORE: Final = edge("0-9A-Za-z") + r"(?<![0-9]\.)"
AFTER: Final = r"(?![0-9A-Za-z])(?!\.[0-9])"
r"""Edges of a number. A comma is one: lists are written so. Never \b: it takes a Chinese character for a letter, so
that a number beside one has no edge."""

CONTEXT_CHARACTERS: Final = 16
"""So far back may patterns and checks look."""


class Group(StrEnum):
    """Kinds of what is looked for; a rule may name one instead of its detectors."""

    CONTACT = "CONTACT"
    PAYMENT = "PAYMENT"
    NATIONAL_ID = "NATIONAL_ID"
    CREDENTIAL = "CREDENTIAL"
    NETWORK = "NETWORK"


class Trigger(StrEnum):
    """What has to be in a text for a detector to be tried at all."""

    NUMBER = "NUMBER"
    """A row of six digits or more; it is tried around each of them."""
    LITERAL = "LITERAL"
    """One of its literals."""
    ALWAYS = "ALWAYS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """One kind of value. A match is at most `longest` characters.

    One with fewer than `fewest_digits` digits is none; `reach` says how far it goes before and behind a row of digits.
    Where a match begins before its literal, `begin` says where, or -1 if it can be none. `example` is a made-up value
    for people who choose rules.
    """

    name: str
    group: Group
    description: str
    example: str
    pattern: re.Pattern[str]
    longest: int
    accept: Accept
    trigger: Trigger = Trigger.NUMBER
    literals: tuple[str, ...] = ()
    reach: tuple[int, int] = (4, 3)
    fewest_digits: int = 6
    begin: Callable[[str, int], int] | None = None


def whole(_text: str, _start: int, end: int) -> int:
    """Accept every match."""
    return end


def checked(check: Callable[[str], bool], *, drop: str = " -.") -> Accept:
    """Return what accepts matches that pass a check without their separators."""
    table = str.maketrans("", "", drop)

    def accept(text: str, start: int, end: int) -> int:
        return end if check(text[start:end].translate(table)) else 0

    return accept
