"""Writes results to stdout as a table, as proto JSON or as CSV; what is said about them goes to stderr."""

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any

from google.protobuf.message import Message
from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from tollhouse_admin.amounts import dollars_text
from tollhouse_admin.plain_text import one_line
from tollhouse_admin.rendering import Cell, as_json, cells, parts

UNWRAPPED_WIDTH = 16_384
_FRACTION = re.compile(r"(\dT\d\d:\d\d:\d\d)\.\d+Z")


class Format(StrEnum):
    """How results are written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


Computed = Callable[[Any], Cell]


@dataclass(frozen=True, slots=True)
class Layout:
    """Columns of a list of one kind of message: paths as `rendering.cells` names them, or computed ones by title."""

    columns: Sequence[str | tuple[str, Computed]]

    @property
    def titles(self) -> list[str]:
        """Return the columns' names, which are the CSV header."""
        return [column if isinstance(column, str) else column[0] for column in self.columns]

    def row(self, message: Message) -> list[Cell]:
        """Return the message's values in the order of the columns; what it does not have is empty."""
        values = cells(message)
        return [values.get(column, "") if isinstance(column, str) else column[1](message) for column in self.columns]


def show_list(form: Format, layout: Layout, messages: Iterable[Message]) -> None:
    """Write many messages: a table, a JSON array, or CSV with a header."""
    if form is Format.JSON:
        write_json([as_json(message) for message in messages])
        return
    rows = [layout.row(message) for message in messages]
    if form is Format.CSV:
        write_csv(layout.titles, rows)
    else:
        write_table(layout.titles, rows)


def show_one(form: Format, layout: Layout, message: Message) -> None:
    """Write one message: all its fields below each other, a JSON object, or CSV with one row."""
    if form is Format.JSON:
        write_json(as_json(message))
    elif form is Format.CSV:
        write_csv(layout.titles, [layout.row(message)])
    else:
        lists = {name: rows for name, rows in parts(message).items() if rows}
        write_fields({path: cell for path, cell in cells(message).items() if path not in lists})
        for name, rows in lists.items():
            _write_part(name, rows)


def _write_part(name: str, rows: Sequence[Mapping[str, Cell]]) -> None:
    titles = list(dict.fromkeys(title for row in rows for title in row))
    write_table(titles, [[row.get(title, "") for title in titles] for row in rows], caption=f"\n{name}:")


def write_json(document: Any) -> None:
    """Write one JSON document."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def write_csv(titles: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Write CSV with a header; money is a plain decimal number of US dollars."""
    csv.writer(sys.stdout, lineterminator="\n").writerow(titles)
    write_csv_rows(rows)


def write_csv_rows(rows: Iterable[Sequence[Cell]]) -> None:
    """Write more rows below what `write_csv` has begun."""
    csv.writer(sys.stdout, lineterminator="\n").writerows([[_csv_text(cell) for cell in row] for row in rows])


def _csv_text(cell: Cell) -> str:
    if isinstance(cell, Decimal):
        return dollars_text(cell)
    return str(cell).lower() if isinstance(cell, bool) else str(cell)


def table_text(cell: Cell) -> str:
    """Return what a person reads in a table: money with its sign, text without control characters."""
    if isinstance(cell, Decimal):
        return f"-${dollars_text(-cell)}" if cell < 0 else f"${dollars_text(cell)}"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return _FRACTION.sub(r"\1Z", one_line(str(cell)))


def write_table(titles: Sequence[str], rows: Sequence[Sequence[Cell]], *, caption: str = "") -> None:
    """Write a table with numbers to the right; without rows it says so on stderr."""
    if caption:
        sys.stdout.write(f"{caption}\n")
    if not rows:
        note("nothing found")
        return
    table = Table(box=box.SIMPLE_HEAD if sys.stdout.isatty() else None, pad_edge=False, show_edge=False)
    for index, title in enumerate(titles):
        numeric = all(_is_number(row[index]) for row in rows)
        heading = title.replace("_", " ").replace(".", " ").upper()
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(table_text(cell)) for cell in row))
    write_drawn(table)


def _is_number(cell: Cell) -> bool:
    return isinstance(cell, int | Decimal) and not isinstance(cell, bool)


def write_fields(fields: Mapping[str, Cell]) -> None:
    """Write names and values below each other; what is empty is left out."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, cell in fields.items():
        if cell == "":
            continue
        table.add_row(Text(name, style="bold"), Text(table_text(cell), overflow="fold"))
    write_drawn(table)


def write_drawn(drawn: RenderableType, *, width: int = UNWRAPPED_WIDTH) -> None:
    """Write within a terminal's width; a file or a pipe gets lines of up to `width`, without padding and styles."""
    if sys.stdout.isatty():
        Console(highlight=False).print(drawn)
        return
    text = io.StringIO()
    Console(file=text, width=width, highlight=False).print(drawn)
    sys.stdout.writelines(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())


def note(text: str) -> None:
    """Say something about the result to the person, on stderr."""
    sys.stderr.write(f"{one_line(text)}\n")
