"""`tollhouse catalogue`: the catalogue as administrators see it, and as a file."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer
from tollhouse.admin.v1 import models_pb2 as pb

from tollhouse_admin.command import CHANGE, LIST, READ, Session, command, noun
from tollhouse_admin.failures import wrong_usage
from tollhouse_admin.model_options import MODEL, ModelId, Origin, model_name, origin_number, stub
from tollhouse_admin.output import Format, note, write_csv, write_json, write_table
from tollhouse_admin.rendering import Cell, as_json

app = noun("The catalogue as administrators see it: where each model comes from; whole catalogues as files.")


@command(app, "list", LIST)
def list_models(
    session: Session,
    *,
    origin: Annotated[Origin | None, typer.Option(help="Only those; edited are an administrator's.")] = None,
) -> None:
    """List the models with where they come from, their versions and their sources."""
    request = pb.ListModelsRequest(origin=origin_number(origin))
    MODEL.show_pages(session, stub(session).ListModels, request, "models")


@command(app, "show", READ)
def show(session: Session, model: ModelId) -> None:
    """Show all that the catalogue has of one model."""
    MODEL.show(session, model_name(model))


@command(app, "export", READ)
def export(session: Session) -> None:
    """Write the catalogue in force as a file in TOML to stdout; stderr says its version. Its import changes nothing."""
    found = session.connection.call(stub(session).GetCatalogueFile, pb.GetCatalogueFileRequest())
    if session.options.output is Format.JSON:
        write_json(as_json(found))
    else:
        note(f"version {found.etag}; import it with --etag to overwrite nobody's changes")
        sys.stdout.write(found.content)


@command(app, "import", CHANGE)
def import_catalogue(
    session: Session,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Models with aliases, tiers, API versions in TOML; - is stdin.")
    ],
    *,
    etag: Annotated[
        str | None, typer.Option(metavar="ETAG", help="Only if the catalogue is still at this version.")
    ] = None,
) -> None:
    """Put what a file names in force, all of it or nothing, or with --dry-run show what it would change.

    What the file does not name stays as it is.
    """
    request = pb.ImportCatalogueRequest(content=_content(file), etag=etag or "")
    request.request_id = session.options.request_id or str(uuid4())
    request.validate_only = session.options.dry_run
    _show_import(session, session.connection.call(stub(session).ImportCatalogue, request))


def _content(file: Path) -> str:
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise wrong_usage(f"{file} cannot be read as text") from error


def _show_import(session: Session, response: pb.ImportCatalogueResponse) -> None:
    added = sum(change.added for change in response.changes)
    would = "dry run, nothing was changed: " if session.options.dry_run else ""
    note(
        f"{would}{added} added, {len(response.changes) - added} changed, {response.unchanged_count} unchanged, "
        f"none removed; version {response.etag}"
    )
    titles, rows = ["name", "field", "before", "after"], _rows(response.changes)
    if session.options.output is Format.JSON:
        write_json(as_json(response))
    elif session.options.output is Format.CSV:
        write_csv(titles, rows)
    elif rows:
        write_table(titles, rows)


def _rows(changes: Sequence[pb.CatalogueChange]) -> list[list[Cell]]:
    """Return a row for each field that differs, of each entry that differs."""
    return [[change.name, one.field, one.before, one.after] for change in changes for one in change.fields]
