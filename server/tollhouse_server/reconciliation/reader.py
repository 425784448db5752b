"""Reads pieces of a billing export: JSON lines, or CSV whose columns are named as the fields (`sku.id` or `sku_id`)."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from tollhouse_server.errors import FieldViolation, InvalidRequest
from tollhouse_server.reconciliation.export_schema import BadField, read_line
from tollhouse_server.reconciliation.lines import BillLine

MOST_NAMED: Final = 20
"""More bad lines than this are not named one by one."""

_RECORDS: Final = ("service", "sku", "project", "usage", "invoice", "price", "location", "adjustment_info", "resource")


class BillFormat(StrEnum):
    """The notation of an export."""

    JSONL = "JSONL"
    CSV = "CSV"


def read_piece(content: str, bill_format: BillFormat, *, first_line: int) -> list[BillLine]:
    """Return the lines of a piece; pure, and as slow as the piece is long. A piece of CSV begins with the header.

    Args:
        content: whole lines.
        bill_format: their notation.
        first_line: the number, in the file, of the first line with a use, for what is said of bad ones.

    Raises:
        InvalidRequest: lines are bad; each is named with its number and field, and nothing of the piece is used.
    """
    rows = _csv_rows(content, first_line) if bill_format is BillFormat.CSV else _json_rows(content, first_line)
    lines: list[BillLine] = []
    bad: list[FieldViolation] = []
    for number, row in rows:
        try:
            if isinstance(row, BadField):
                raise row
            lines.append(read_line(row))
        except BadField as error:
            bad.append(FieldViolation(path=f"line {number}: {error.field}", description=error.description))
            if len(bad) == MOST_NAMED:
                break
    if bad:
        raise InvalidRequest(violations=tuple(bad))
    return lines


def _json_rows(content: str, first_line: int) -> Iterator[tuple[int, Mapping[str, Any] | BadField]]:
    # Not splitlines(): a text within a line may hold what that takes for the end of one.
    for number, text in enumerate(content.split("\n"), first_line):
        if text.strip():
            yield number, _json_row(text)


def _json_row(text: str) -> Mapping[str, Any] | BadField:
    try:
        row = json.loads(text, parse_float=Decimal, parse_int=Decimal, parse_constant=str)
    except (ValueError, RecursionError):
        return BadField("(line)", "is not JSON")
    return row if type(row) is dict else BadField("(line)", "must be an object")


def _csv_rows(content: str, first_line: int) -> Iterator[tuple[int, Mapping[str, Any] | BadField]]:
    reader = csv.reader(io.StringIO(content), strict=True)
    header: list[str] | None = None
    try:
        for cells in reader:
            number = first_line + reader.line_num - 2
            if header is None:
                header = cells
                twice = _named_twice(header)
                if twice:
                    yield number, BadField("(header)", f"names {twice!r} twice, or as a field and as a record")
                    return
            elif len(cells) != len(header):
                yield number, BadField("(line)", f"has {len(cells)} columns, the header {len(header)}")
            else:
                yield number, _nested(header, cells)
    except csv.Error as error:
        yield first_line + reader.line_num - 2, BadField("(line)", f"is not CSV: {error}")


def _named_twice(header: list[str]) -> str:
    """Return a column that stands for a field which another one stands for, too, or for its record; empty if none."""
    fields: set[tuple[str, str]] = set()
    for name in header:
        record, field = _place(name)
        if (
            (record, field) in fields
            or (record, "") in fields
            or (not field and any(record == one for one, _ in fields))
        ):
            return name
        fields.add((record, field))
    return ""


def _nested(header: list[str], cells: list[str]) -> Mapping[str, Any]:
    row: dict[str, Any] = {}
    for name, cell in zip(header, cells, strict=True):
        record, field = _place(name)
        if field:
            row.setdefault(record, {})[field] = cell
        else:
            row[name] = cell
    return row


def _place(name: str) -> tuple[str, str]:
    record, _, field = name.partition(".")
    return (record, field) if field else _flattened(name)


def _flattened(name: str) -> tuple[str, str]:
    """Return the record and field of a column such as `sku_id`; the field is empty where it is of none."""
    for record in _RECORDS:
        if name.startswith(f"{record}_") and name not in ("usage_start_time", "usage_end_time"):
            return record, name.removeprefix(f"{record}_")
    return name, ""
