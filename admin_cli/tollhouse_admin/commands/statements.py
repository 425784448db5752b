"""`tollhouse report show|export|keys|verify`: statements, made by the server and checked without it."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from tollhouse.admin.v1 import chargeback_pb2 as pb
from tollhouse.admin.v1.chargeback_pb2_grpc import ChargebackServiceStub

from tollhouse_admin.amounts import dollars_of, dollars_text, parse_month
from tollhouse_admin.command import READ, Options, Session, command, local_command, noun
from tollhouse_admin.failures import ExitCode, Failure, wrong_usage
from tollhouse_admin.output import Format, Layout, note, show_list, write_csv, write_json, write_table
from tollhouse_admin.receipt_proofs import Verifier, read_keys
from tollhouse_admin.rendering import Cell, as_json
from tollhouse_admin.scopes import Department, Tenant, department_name, tenant_name
from tollhouse_admin.statement_proofs import Check, StatementVerifier, read_statement, read_statement_keys

app = noun("Statements of months.")

TIMEOUT_SECONDS = 300.0

_TELL_EVERY_BYTES = 256 * 1024 * 1024

Month = Annotated[str, typer.Option(metavar="YYYY-MM", help="The month, `this` or `last`; absent: this.")]
Gregorian = Annotated[
    bool, typer.Option("--calendar-month", help="The calendar month, where the tenant's begins on another day.")
]


class Dimension(StrEnum):
    """What a statement is broken down by."""

    DEPARTMENT = "department"
    PROJECT = "project"
    TIER = "tier"
    MODEL = "model"
    DAY = "day"


def stub(session: Session) -> ChargebackServiceStub:
    """Return the service's stub."""
    return session.connection.stub(ChargebackServiceStub)


def month_text(month: str) -> str:
    """Return a month as the server takes it; empty stays empty."""
    return parse_month(month, today=datetime.now(UTC).date()) if month else ""


def _parent(session: Session, tenant: str | None, department: str | None) -> str:
    return department_name(session, department, tenant) if department else tenant_name(session, tenant)


def _calendar(gregorian: bool) -> "pb.StatementCalendar.ValueType":  # noqa: FBT001 - one option
    return pb.STATEMENT_CALENDAR_GREGORIAN if gregorian else pb.STATEMENT_CALENDAR_UNSPECIFIED


@command(app, "show", READ, timeout_seconds=TIMEOUT_SECONDS)
def show(
    session: Session,
    *,
    month: Month = "",
    tenant: Tenant = None,
    department: Department = None,
    by: Annotated[Dimension, typer.Option(help="What to show it by.")] = Dimension.DEPARTMENT,
    calendar_month: Gregorian = False,
) -> None:
    """Show the statement of a month: cost at list price, what is added to it, and what is charged."""
    request = pb.GetStatementRequest(
        parent=_parent(session, tenant, department), month=month_text(month), calendar=_calendar(calendar_month)
    )
    statement = session.connection.call(stub(session).GetStatement, request)
    if session.options.output is Format.JSON:
        write_json(as_json(statement))
        return
    _show_parts(session.options.output, statement, next(one for one in statement.breakdowns if one.dimension == by))


def _show_parts(form: Format, statement: pb.Statement, breakdown: pb.StatementBreakdown) -> None:
    titles = [breakdown.dimension, "calls", "input_tokens", "output_tokens", "cost", "charge"]
    rows = [_part_row(part) for part in breakdown.parts]
    state = pb.Period.State.Name(statement.state).removeprefix("STATE_").lower()
    if form is Format.CSV:
        write_csv(titles, rows)
    else:
        write_table(titles, rows, caption=f"{statement.parent}, {statement.month} ({state})")
        if statement.entries:
            entries: list[list[Cell]] = [
                [dollars_of(one.amount), one.department.rpartition("/")[2], one.reason, one.for_month, one.rule]
                for one in statement.entries
            ]
            write_table(["amount", "department", "reason", "for_month", "rule"], entries, caption="\nentries:")
    note(_totals(statement))


def _part_row(part: pb.StatementPart) -> list[Cell]:
    amounts = part.amounts
    return [
        *(part.key or "(none)", amounts.calls, amounts.input_tokens, amounts.output_tokens),
        *(dollars_of(amounts.cost), dollars_of(amounts.charge)),
    ]


def _totals(statement: pb.Statement) -> str:
    totals, saved = statement.totals, statement.savings
    savings = sum(dollars_of(one) for one in (saved.cache, saved.batch, saved.on_device))
    text = (
        f"cost ${dollars_text(dollars_of(totals.cost))}, charge ${dollars_text(dollars_of(totals.charge))}, "
        f"{totals.calls} calls"
    )
    return text + (f"; ${dollars_text(savings)} saved" if savings else "")


@command(app, "export", READ, timeout_seconds=TIMEOUT_SECONDS)
def export(
    session: Session,
    *,
    file: Annotated[
        Path | None,
        typer.Option(dir_okay=False, metavar="FILE", help="Where to write; absent: as the server names it."),
    ] = None,
    form: Annotated[
        str, typer.Option("--format", "-f", metavar="FORMAT", help="json, csv, xlsx, html, pdf or focus.")
    ] = "json",
    language: Annotated[
        str, typer.Option(metavar="TAG", help="Language of the document, such as zh-Hans; absent: English.")
    ] = "",
    records: Annotated[bool, typer.Option("--records", help="The records instead, as CSV.")] = False,
    month: Month = "",
    tenant: Tenant = None,
    department: Department = None,
    calendar_month: Gregorian = False,
) -> None:
    """Write a statement, or the records that it was made from, to a file; `--file -` writes to standard output."""
    parent, calendar = _parent(session, tenant, department), _calendar(calendar_month)
    if records:
        asked = pb.ExportStatementRecordsRequest(parent=parent, month=month_text(month), calendar=calendar)
        pieces = session.connection.stream(stub(session).ExportStatementRecords, asked)
    else:
        request = pb.ExportStatementRequest(
            parent=parent, month=month_text(month), calendar=calendar, format=form, language=language
        )
        pieces = session.connection.stream(stub(session).ExportStatement, request)
    _write(pieces, file)


def _write(pieces: Iterator[pb.DocumentPiece], file: Path | None) -> None:
    first = next(pieces)
    # Of the server's name for it the last part alone: where files are is not the server's to say.
    target = file or Path(Path(first.file_name).name)
    contents = (piece.content for piece in chain((first,), pieces))
    if str(target) == "-":
        _copy(contents, sys.stdout.buffer)
        return
    with _new_file(target) as output:
        size = _copy(contents, output)
    note(f"{target}: {size} bytes")


def _copy(contents: Iterable[bytes], output: BinaryIO) -> int:
    """Write everything, say now and then how much it is by now, and return how many bytes it was."""
    size = told = 0
    for content in contents:
        size += output.write(content)
        if size - told >= _TELL_EVERY_BYTES:
            told = size
            note(f"{size} bytes")
    return size


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that has its name once it is whole.

    Raises:
        Failure: there is one of that name, or it cannot be written.
    """
    if path.exists():
        raise wrong_usage(f"{path} is there already", "Choose another --file.")
    partial = path.with_name(f"{path.name}.part")
    try:
        with partial.open("wb") as file:
            yield file
        partial.replace(path)
    except OSError as error:
        raise wrong_usage(f"{path}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


KEYS = Layout(["key", "version", "algorithm", "public_key"])


@command(app, "keys", READ)
def keys(session: Session) -> None:
    """Show the public keys that statements are signed with; `-o json > keys.json` writes what `verify` takes."""
    answer = session.connection.call(stub(session).GetStatementKeys, pb.GetStatementKeysRequest())
    if session.options.output is Format.JSON:
        write_json(as_json(answer))
        return
    show_list(session.options.output, KEYS, answer.keys)


File = Annotated[Path, typer.Argument(metavar="STATEMENT", exists=True, dir_okay=False, help="Exported as json.")]


@local_command(app, "verify")
def verify(
    options: Options,
    file: File,
    *,
    keys: Annotated[
        Path | None,
        typer.Option(metavar="FILE", exists=True, dir_okay=False, help="As `report keys -o json` wrote it."),
    ] = None,
    records: Annotated[
        Path | None,
        typer.Option(metavar="FILE", exists=True, dir_okay=False, help="As `report export --records` wrote it."),
    ] = None,
    receipts: Annotated[
        Path | None, typer.Option(metavar="FILE", exists=True, dir_okay=False, help="As `receipts export` wrote it.")
    ] = None,
    receipt_keys: Annotated[
        Path | None,
        typer.Option(metavar="FILE", exists=True, dir_okay=False, help="As `receipts keys -o json` wrote it."),
    ] = None,
) -> None:
    """Check a statement without any server: digest, signature and sums, and recompute it from records or receipts."""
    if receipt_keys and not receipts:
        raise wrong_usage("--receipt-keys goes with --receipts")
    verifier = StatementVerifier(read_statement(file), read_statement_keys(keys) if keys else None)
    checks = list(verifier.checks())
    if records:
        checks += verifier.against_records(records)
    if receipts:
        checks += verifier.against_receipts(receipts, Verifier(read_keys(receipt_keys)) if receipt_keys else None)
    _show_checks(options.output, checks)
    made = [check for check in checks if check.is_made]
    wrong = [check for check in made if not check.is_right]
    if wrong:
        raise Failure(
            reason="STATEMENT_NOT_VALID",
            message=f"{len(wrong)} of {len(made)} checks have failed: {', '.join(check.what for check in wrong)}",
            advice="Each is named with what is wrong",
            exit_code=ExitCode.GENERAL,
        )
    left_out = len(checks) - len(made)
    verdict = f"{len(made)} checks are right, {left_out} not made" if left_out else f"all {len(made)} checks are right"
    note(f"{file}: {verdict}")


def _show_checks(form: Format, checks: Sequence[Check]) -> None:
    titles = ["check", "verdict", "detail"]
    rows: list[list[Cell]] = [[one.what, one.verdict, one.detail] for one in checks]
    if form is Format.JSON:
        write_json([dict(zip(titles, row, strict=True)) for row in rows])
    elif form is Format.CSV:
        write_csv(titles, rows)
    else:
        write_table(titles, rows)
    for one in checks:
        if not one.is_made:
            note(one.detail)
