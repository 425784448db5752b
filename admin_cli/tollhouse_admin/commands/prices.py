"""`tollhouse prices`: the price book, what a unit of each model costs, with effective dates."""

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer
from tollhouse.admin.v1 import prices_pb2 as pb
from tollhouse.admin.v1.prices_pb2_grpc import PriceServiceStub

from tollhouse_admin.amounts import parse_moment
from tollhouse_admin.command import CHANGE, LIST, READ, Session, command, noun
from tollhouse_admin.failures import wrong_usage
from tollhouse_admin.output import Format, Layout, note, show_list, show_one, write_csv, write_json, write_table
from tollhouse_admin.rendering import Cell, as_json, cells, enum_number

app = noun("Prices: what a unit of each model costs, with effective dates.")

PRICES = Layout(
    [
        *("endpoint", "model", "sku", "percent", "amount", "per_units", "unit", "above_prompt_tokens"),
        *("service_tier", "effective_time", "end_time", "source"),
    ]
)
BOOK = Layout(["name", "version", "import_time", "importer", "source", "price_count", "content_sha256"])


class Notation(StrEnum):
    """How a price file is written."""

    JSON = "json"
    TOML = "toml"
    YAML = "yaml"


_NOTATIONS = {".json": Notation.JSON, ".toml": Notation.TOML, ".yaml": Notation.YAML, ".yml": Notation.YAML}


def _stub(session: Session) -> PriceServiceStub:
    return session.connection.stub(PriceServiceStub)


@command(app, "list", LIST)
def list_prices(
    session: Session,
    *,
    model: Annotated[str | None, typer.Option(metavar="MODEL", help="Only those of this model.")] = None,
    at: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Only those that hold then; `now` for today's.")
    ] = None,
) -> None:
    """List the prices of the book in force, past and future ones too."""
    now = datetime.now(UTC)
    moment = parse_moment("0s" if at == "now" else at, now=now, past=False) if at else None
    request = pb.ListPricesRequest(model=(model or "").removeprefix("models/"), effective_at=moment)
    pages = session.connection.pages(_stub(session).ListPrices, request, "prices", limit=session.options.limit)
    show_list(session.options.output, PRICES, pages)


@command(app, "show", READ)
def show(
    session: Session,
    *,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="Number of a version, or current.")] = "current",
) -> None:
    """Show what is known about one version of the price book."""
    request = pb.GetPriceBookRequest(name=f"priceBooks/{version.removeprefix('priceBooks/')}")
    show_one(session.options.output, BOOK, session.connection.call(_stub(session).GetPriceBook, request))


@command(app, "import", CHANGE)
def import_prices(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="The whole price book.")],
    *,
    notation: Annotated[Notation | None, typer.Option("--format", help="Absent: by the file's ending.")] = None,
    base_version: Annotated[
        int, typer.Option(min=0, metavar="N", help="Only if this version is still in force; 0: whichever is.")
    ] = 0,
) -> None:
    """Put a price file in force as the next version, or with --dry-run show what it would change."""
    form = pb.PriceFileFormat
    number = form.ValueType(enum_number(form.DESCRIPTOR, (notation or _notation(file)).value))
    request = pb.ImportPricesRequest(
        format=number,
        content=_content(file),
        base_version=base_version,
        request_id=session.options.request_id or str(uuid4()),
        validate_only=session.options.dry_run,
    )
    response = session.connection.call(_stub(session).ImportPrices, request)
    _show_import(session, response)


def _notation(file: Path) -> Notation:
    if file.suffix.lower() not in _NOTATIONS:
        raise wrong_usage(f"The notation of {file} is not plain from its name", "Say it with --format.")
    return _NOTATIONS[file.suffix.lower()]


def _content(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise wrong_usage(f"{file} cannot be read as text") from error


def _show_import(session: Session, response: pb.ImportPricesResponse) -> None:
    done = "would become" if session.options.dry_run else "is"
    note(
        f"version {response.price_book.version} {done} the price book: "
        f"{len(response.changes)} changed, {response.unchanged_count} unchanged"
    )
    titles, rows = ["model", "sku", "field", "before", "after"], _change_rows(response.changes)
    if session.options.output is Format.JSON:
        write_json(as_json(response))
    elif session.options.output is Format.CSV:
        write_csv(titles, rows)
    elif rows:
        write_table(titles, rows)


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
