"""`tollhouse exports`: months of usage records, taken out of the ledger once they are safe elsewhere."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from tollhouse.admin.v1 import usage_exports_pb2 as pb
from tollhouse.admin.v1.usage_exports_pb2_grpc import UsageExportServiceStub

from tollhouse_admin.amounts import dollars_of_nanos, dollars_text, money_of, parse_month
from tollhouse_admin.command import CHANGE, DESTROY, LIST, READ, Session, command, noun
from tollhouse_admin.export_files import Manifest, MonthFile, Progress, check_file, read_manifest
from tollhouse_admin.failures import ExitCode, Failure
from tollhouse_admin.output import Layout, note
from tollhouse_admin.resource import Kind

app = noun("Exports: months of usage records, taken out of the ledger once they are safe elsewhere.")

_PAGES_A_MEMBER = 10
_PAGE_LINES = 1000
_LONG_SECONDS = 1800.0

Month = Annotated[str, typer.Argument(metavar="YYYY-MM", help="The month, of UTC; `last` is the one before this.")]
Directory = Annotated[Path, typer.Option("--directory", "-d", file_okay=False, help="Where the files are.")]


def _stub(session: Session) -> UsageExportServiceStub:
    return session.connection.stub(UsageExportServiceStub)


def _read(session: Session, name: str) -> pb.UsageExport:
    return session.connection.call(_stub(session).GetUsageExport, pb.GetUsageExportRequest(name=name))


EXPORT = Kind(
    Layout(
        [
            *("name", "state", "record_count", "cost", "create_time", "creator", "confirm_time", "confirmer"),
            *("drop_time", "location", "content_sha256", "checksum"),
        ]
    ),
    _read,
)


def _name(month: str) -> str:
    today = datetime.now(UTC).date()
    return f"usageExports/{parse_month(month.removeprefix('usageExports/'), today=today)}"


@command(app, "create", CHANGE, timeout_seconds=_LONG_SECONDS)
def create(session: Session, month: Month) -> None:
    """Take stock of a month that is over: its records, their cost, their checksum."""
    name = _name(month)
    request = pb.CreateUsageExportRequest(month=name.partition("/")[2])
    EXPORT.create(session, name, _stub(session).CreateUsageExport, request)


@command(app, "list", LIST)
def list_exports(session: Session) -> None:
    """List exports, the oldest month first."""
    EXPORT.show_pages(session, _stub(session).ListUsageExports, pb.ListUsageExportsRequest(), "usage_exports")


@command(app, "show", READ)
def show(session: Session, month: Month) -> None:
    """Show the export of one month."""
    EXPORT.show(session, _name(month))


@command(app, "download", READ, timeout_seconds=60.0)
def download(session: Session, month: Month, *, directory: Directory = Path()) -> None:
    """Download an exported month as gzipped JSON lines with a manifest; a second start goes on where one stopped."""
    name = _name(month)
    export = _read(session, name)
    file = MonthFile(directory, export.month)
    progress = file.resume()
    if progress.tally.records:
        note(f"going on behind {progress.tally.records} of {export.record_count} records")
    while not progress.finished:
        progress = _read_further(session, name, file, progress)
        note(f"{progress.tally.records} of {export.record_count} records")
    manifest = file.finish(progress, name)
    _check_against(export, manifest)
    cost = dollars_text(dollars_of_nanos(manifest.cost_nanos))
    note(f"{file.path}: {manifest.records} records, ${cost}; confirm it with {file.manifest_path}")


def _read_further(session: Session, name: str, file: MonthFile, progress: Progress) -> Progress:
    """Read some pages and write them as one piece."""
    lines: list[str] = []
    token = progress.page_token
    for _ in range(_PAGES_A_MEMBER):
        request = pb.ListUsageExportLinesRequest(name=name, page_size=_PAGE_LINES, page_token=token)
        page = session.connection.call(_stub(session).ListUsageExportLines, request)
        lines += page.lines
        token = page.next_page_token
        if not token:
            break
    return file.append(progress, lines, token)


def _check_against(export: pb.UsageExport, manifest: Manifest) -> None:
    if (manifest.records, manifest.checksum) != (export.record_count, export.checksum):
        raise Failure(
            reason="EXPORT_MISMATCH",
            message=f"{manifest.file} has {manifest.records} records, {export.name} {export.record_count}",
            advice="Create the export again, delete the file and download it once more.",
            exit_code=ExitCode.INVALID,
        )


@command(app, "confirm", CHANGE, timeout_seconds=_LONG_SECONDS)
def confirm(
    session: Session,
    manifest: Annotated[
        Path, typer.Argument(metavar="MANIFEST", exists=True, dir_okay=False, help="The manifest of the download.")
    ],
    *,
    location: Annotated[str, typer.Option(metavar="TEXT", help="Where the file is kept, for people.")] = "",
) -> None:
    """Read a downloaded file once more and confirm it, so that the month's records may be dropped."""
    kept = read_manifest(manifest)
    check_file(kept, manifest.parent / kept.file)
    request = pb.ConfirmUsageExportRequest(
        name=kept.export,
        record_count=kept.records,
        cost=money_of(dollars_of_nanos(kept.cost_nanos)),
        checksum=kept.checksum,
        content_sha256=kept.sha256,
        location=location,
    )
    EXPORT.change(session, "confirm", kept.export, _stub(session).ConfirmUsageExport, request)


@command(app, "drop-month", DESTROY, timeout_seconds=_LONG_SECONDS)
def drop_month(session: Session, month: Month) -> None:
    """Drop the records of a confirmed month from the ledger; reports over whole days go on from its roll-ups."""
    name = _name(month)
    request = pb.DropUsageExportRecordsRequest(name=name)
    warning = f"The records of {name} will be gone from the ledger for good."
    EXPORT.change(session, "drop the records of", name, _stub(session).DropUsageExportRecords, request, warning=warning)
