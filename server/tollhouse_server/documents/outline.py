"""What a document for reading is made of, before any page: sections of tiles, bars, columns, tables and facts.

HTML and PDF are both made from it, so that they say the same in the same order. All texts are ready to be shown;
places and lengths in charts are parts of the whole, from 0 to 1.
"""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

MOST_ROWS: Final = 40
"""Rows of a breakdown; what is beyond is one row together. Workbooks and CSV have all."""

Tone: TypeAlias = Literal["plain", "strong", "good", "bad"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A figure to be seen first."""

    label: str
    value: str
    note: str = ""
    tone: Tone = "plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A bar from `start` to `end` with what it says; `mark` is a line across it, such as a budget."""

    label: str
    text: str
    note: str = ""
    start: float = 0.0
    end: float = 0.0
    mark: float | None = None
    tone: Tone = "plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Upright:
    """A column of a chart over time; `tick` is its place on the axis where it is said."""

    label: str
    text: str
    height: float
    tick: str = ""
    is_quiet: bool = False


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table; minor ones are left out where there is no room."""

    label: str
    is_number: bool = True
    is_minor: bool = False
    is_wide: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of a table; `length` is that of the bar under its first cell, None where there is none."""

    cells: tuple[str, ...]
    length: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table with its last row, the total, where it has one."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    total: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of a document; what is empty is left out."""

    key: str
    title: str
    lead: str = ""
    tiles: tuple[Tile, ...] = ()
    bars: tuple[Bar, ...] = ()
    uprights: tuple[Upright, ...] = ()
    table: Table | None = None
    facts: tuple[tuple[str, str], ...] = ()
    note: str = ""
    is_half: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """A document; `state_tone` is good for a closed month."""

    tag: str
    product: str
    kind: str
    organisation: str
    title: str
    state: str
    state_note: str
    state_tone: Tone
    prepared: str
    facts: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]
    note: str


def parts_of(values: list[int]) -> list[float]:
    """Return each value as a part of the largest; what is negative has no length."""
    largest = max(values, default=0)
    return [max(0, value) / largest if largest > 0 else 0.0 for value in values]
