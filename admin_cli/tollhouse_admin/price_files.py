"""Price files: read, drafted, and what they change."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from tollhouse.admin.v1 import prices_pb2 as pb
from tollhouse.admin.v1.prices_pb2_grpc import PriceServiceStub

from tollhouse_admin.command import Session
from tollhouse_admin.failures import wrong_usage
from tollhouse_admin.output import Format, note, write_csv, write_table
from tollhouse_admin.rendering import Cell, cells, enum_text


class Notation(StrEnum):
    """How a price file is written."""

    JSON = "json"
    TOML = "toml"
    YAML = "yaml"


class Source(StrEnum):
    """Where a price file can be drafted from."""

    GENAI_PRICES = "genai-prices"


_NOTATIONS = {".json": Notation.JSON, ".toml": Notation.TOML, ".yaml": Notation.YAML, ".yml": Notation.YAML}
_FORMATS = {
    Notation.JSON: pb.PRICE_FILE_FORMAT_JSON,
    Notation.TOML: pb.PRICE_FILE_FORMAT_TOML,
    Notation.YAML: pb.PRICE_FILE_FORMAT_YAML,
}
_SOURCES = {Source.GENAI_PRICES: pb.PRICE_SOURCE_GENAI_PRICES}
_TITLES = ["model", "sku", "field", "before", "after"]

File = Annotated[
    Path | None, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="A price file; or --from.")
]
From = Annotated[Source | None, typer.Option("--from", help="Draft the file from this source instead.")]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="MODEL", help="With --from: only this model; absent: all of the book."),
]
Form = Annotated[Notation | None, typer.Option("--format", help="Absent: by the file's ending.")]
Base = Annotated[
    int, typer.Option("--base-version", min=0, metavar="N", help="Only if this version is in force; 0: whichever is.")
]
MaxJump = Annotated[
    int, typer.Option("--max-jump", min=0, max=1000, metavar="N", help="Refuse a price N times another; 0: ten times.")
]
AllowJumps = Annotated[bool, typer.Option("--allow-jumps", help="Refuse no jump; takes --reason.")]
Why = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for the other person and the trail.")]


@dataclass(frozen=True, slots=True)
class PriceFile:
    """A price file's text, and the version of the book that it was made from; 0 where nobody knows."""

    format: "pb.PriceFileFormat.ValueType"
    content: str
    base_version: int = 0


def file_from(
    session: Session, file: Path | None, source: Source | None, *, notation: Notation | None, models: Sequence[str]
) -> PriceFile:
    """Return a file from the disk, or a draft from a source, whose notes are said.

    Raises:
        Failure: neither or both are given, or the source says nothing that the book does not say.
    """
    if (file is None) == (source is None):
        raise wrong_usage("Either a FILE or --from is needed", "tollhouse prices import --from genai-prices --dry-run")
    if file is not None:
        return read_file(file, notation)
    assert source is not None  # noqa: S101 - one of the two is given
    draft = draft_of(session, source, models)
    if not draft.content:
        raise wrong_usage(f"{draft.source_version} says nothing that version {draft.base_version} does not say already")
    return PriceFile(pb.PRICE_FILE_FORMAT_TOML, draft.content, draft.base_version)


def draft_of(session: Session, source: Source, models: Sequence[str]) -> pb.PriceDraft:
    """Return a draft, having said what it does not take from its source as it stands there."""
    request = pb.GetPriceDraftRequest(
        source=_SOURCES[source], models=[model.removeprefix("models/") for model in models]
    )
    stub = session.connection.stub(PriceServiceStub)
    draft: pb.PriceDraft = session.connection.call(stub.GetPriceDraft, request)
    for one in draft.notes:
        kind = enum_text(pb.PriceDraftNote.Kind.DESCRIPTOR, one.kind).replace("-", " ")
        note(f"{kind}: {' '.join(filter(None, (one.model, one.subject)))}: {one.explanation}")
    return draft


def read_file(file: Path, notation: Notation | None = None) -> PriceFile:
    """Return a file from the disk.

    Raises:
        Failure: it is no text, or its notation is not plain.
    """
    known = notation or _NOTATIONS.get(file.suffix.lower())
    if known is None:
        raise wrong_usage(f"The notation of {file} is not plain from its name", "Say it with --format.")
    try:
        return PriceFile(_FORMATS[known], file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise wrong_usage(f"{file} cannot be read as UTF-8 text") from error


def allowances(*, max_jump: int, allow_jumps: bool, reason: str) -> pb.PriceAllowances:
    """Return what an import may do."""
    if allow_jumps and not reason.strip():
        raise wrong_usage("--allow-jumps takes a --reason", 'For example --reason "the contract of 2027".')
    return pb.PriceAllowances(max_jump_factor=max_jump, allow_jumps=allow_jumps, reason=reason)


def show_changes(form: Format, changes: Sequence[pb.PriceChange]) -> None:
    """Write differences field by field, as CSV or a table."""
    rows = _change_rows(changes)
    if form is Format.CSV:
        write_csv(_TITLES, rows)
    elif rows:
        write_table(_TITLES, rows)


def _change_rows(changes: Sequence[pb.PriceChange]) -> list[list[Cell]]:
    """Return a row for each field that differs, of each price that differs."""
    rows: list[list[Cell]] = []
    for change in changes:
        before = cells(change.before) if change.HasField("before") else {}
        after = cells(change.after) if change.HasField("after") else {}
        known = after or before
        rows += [
            [known.get("model", ""), known.get("sku", ""), path, before.get(path, ""), after.get(path, "")]
            for path in {**before, **after}
            if path not in ("model", "sku") and before.get(path, "") != after.get(path, "")
        ]
    return rows
