"""Google's bill as files: the Cloud Billing export, read piece by piece whatever its size."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from tollhouse_admin.failures import Failure, wrong_usage

PIECE_BYTES: Final = 1_048_576
_PARQUET_ROWS: Final = 5_000
_LINE_MOST: Final = 4_194_304


class Notation(StrEnum):
    """How an export is written; Parquet is sent as JSON lines."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


_ENDINGS = {
    ".jsonl": Notation.JSONL,
    ".json": Notation.JSONL,
    ".ndjson": Notation.JSONL,
    ".csv": Notation.CSV,
    ".parquet": Notation.PARQUET,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Whole lines of a file. `first_line` is the number of the first line of use as an editor counts, from 1."""

    content: str
    lines: int
    first_line: int


def notation_of(path: Path) -> Notation:
    """Return how a file is written, by its ending, with or without `.gz`.

    Raises:
        Failure: the ending says nothing.
    """
    found = _ENDINGS.get(Path(path.name.removesuffix(".gz")).suffix.lower())
    if found is None:
        raise wrong_usage(f"{path.name} has no known ending", "Add --format jsonl, csv or parquet.")
    return found


def read_pieces(path: Path, notation: Notation) -> Iterator[Piece]:
    """Yield a file in pieces of about a megabyte, one at a time in memory.

    Raises:
        Failure: it cannot be read, or has no line.
    """
    readers = {Notation.JSONL: _json_pieces, Notation.CSV: _csv_pieces, Notation.PARQUET: _parquet_pieces}
    try:
        yield from readers[notation](path)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise _unreadable(path, f"{error}") from error


def _unreadable(path: Path, why: str) -> Failure:
    return wrong_usage(f"{path.name} cannot be read: {why}")


@contextmanager
def _opened(path: Path) -> Iterator[io.TextIOWrapper]:
    is_packed = path.suffix == ".gz"
    # A line ends at "\n" alone: a text within one may have other ends of lines.
    with (
        gzip.open(path, "rb") if is_packed else path.open("rb") as binary,
        io.TextIOWrapper(binary, encoding="utf-8-sig", newline="\n") as text,
    ):
        yield text


def _lines(file: io.TextIOWrapper) -> Iterator[str]:
    """Yield lines, none of them longer than one can be: a few packed bytes may be gigabytes without an end of line."""
    number = 0
    while line := file.readline(_LINE_MOST + 1):
        number += 1
        _require_length(number, line)
        yield line


def _require_length(number: int, line: str) -> None:
    if len(line) > _LINE_MOST:
        raise wrong_usage(f"line {number} is longer than {_LINE_MOST} characters", "Is it a billing export?")


def _json_pieces(path: Path) -> Iterator[Piece]:
    with _opened(path) as file:
        yield from _gathered(((number, line) for number, line in enumerate(_lines(file), 1) if line.strip()), header="")


def _csv_pieces(path: Path) -> Iterator[Piece]:
    with _opened(path) as file:
        reader = csv.reader(_lines(file), strict=True)
        header = next(reader, None)
        if header is None:
            raise _unreadable(path, "it has no header")
        begun = reader.line_num
        records = _csv_records(reader, begun)
        yield from _gathered(records, header=_csv_text(header))


def _csv_records(reader: Any, begun: int) -> Iterator[tuple[int, str]]:
    for cells in reader:
        number, begun = begun + 1, reader.line_num
        if cells:
            yield number, _csv_text(cells)


def _csv_text(cells: list[str]) -> str:
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerow(cells)
    return written.getvalue()


def _gathered(records: Iterable[tuple[int, str]], *, header: str) -> Iterator[Piece]:
    """Put records together until a piece is large enough."""
    gathered: list[str] = []
    size = first = 0
    for number, text in records:
        _require_length(number, text)
        first = first if gathered else number
        gathered.append(text if text.endswith("\n") else f"{text}\n")
        size += len(text)
        if size >= PIECE_BYTES:
            yield Piece(content=header + "".join(gathered), lines=len(gathered), first_line=first)
            gathered, size = [], 0
    if gathered:
        yield Piece(content=header + "".join(gathered), lines=len(gathered), first_line=first)


# --- Parquet ----------------------------------------------------------------------------------------------------------


def _parquet_pieces(path: Path) -> Iterator[Piece]:
    try:
        import pyarrow.lib  # noqa: PLC0415 - a large library that only this needs
        import pyarrow.parquet  # noqa: PLC0415
    except ImportError as error:
        raise wrong_usage(
            "Parquet takes pyarrow, which is not installed", "pip install 'tollhouse[billing]', or export JSON lines."
        ) from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield from _gathered(_parquet_records(file), header="")
    except pyarrow.lib.ArrowException as error:
        raise _unreadable(path, f"{error}") from error


def _parquet_records(file: Any) -> Iterator[tuple[int, str]]:
    number = 0
    for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
        for row in batch.to_pylist():
            number += 1
            yield number, json.dumps(_plain(row), default=_text, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """Return a value without the wrapping that some writers put around lists: {"list": [{"element": ...}]}."""
    if isinstance(value, dict):
        if value.keys() == {"list"} and isinstance(value["list"], list):
            return [_plain(one.get("element", one) if isinstance(one, dict) else one) for one in value["list"]]
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value


def _text(value: Any) -> str:
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return f"{value:f}"
    return str(value)
