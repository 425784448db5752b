"""`tollhouse report`: what finance needs, from the ledger's records alone."""

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer
from tollhouse.admin.v1 import usage_reports_pb2 as pb
from tollhouse.admin.v1.usage_reports_pb2_grpc import UsageReportServiceStub

from tollhouse_admin.amounts import dollars_of, dollars_text, parse_moment, parse_month
from tollhouse_admin.command import LIST, READ, Session, command, noun
from tollhouse_admin.commands import periods, statements
from tollhouse_admin.on_device_use import show_on_device
from tollhouse_admin.output import Format, Layout, note, show_list, write_csv, write_json, write_table
from tollhouse_admin.rendering import Cell, as_json, cells, enum_number
from tollhouse_admin.scopes import Department, Project, Scope, Tenant, department_name, scope_of, tenant_name

app = noun("Reports: what was used and what it cost, statements of months, and their close.")
app.registered_commands += [*statements.app.registered_commands, *periods.app.registered_commands]


class Dimension(StrEnum):
    """What a report can be split by."""

    DEPARTMENT = "department"
    PROJECT = "project"
    MODEL = "model"
    TIER = "tier"
    DAY = "day"
    SKU = "sku"


class RecordKind(StrEnum):
    """How an attempt ended."""

    SETTLED = "settled"
    REFUSED = "refused"
    SUSPENSE = "suspense"
    ADJUSTMENT = "adjustment"


DEFAULT_SPLIT = [Dimension.DEPARTMENT, Dimension.MODEL, Dimension.SKU]
_REPORT_TIMEOUT_SECONDS = 120.0


def _stub(session: Session) -> UsageReportServiceStub:
    return session.connection.stub(UsageReportServiceStub)


@command(app, "month", READ, timeout_seconds=_REPORT_TIMEOUT_SECONDS)
def month(
    session: Session,
    *,
    month: Annotated[str, typer.Option(metavar="YYYY-MM", help="The month, `this` or `last`; absent: this.")] = "",
    tenant: Tenant = None,
    department: Department = None,
    group_by: Annotated[
        list[Dimension] | None,
        typer.Option(
            "--group-by", "-g", help="Split by this, the most important first; absent: department, model, sku."
        ),
    ] = None,
) -> None:
    """Add up one calendar month of a tenant, or of a department with everything below it."""
    parent = department_name(session, department, tenant) if department else tenant_name(session, tenant)
    split = group_by or DEFAULT_SPLIT
    kind = pb.UsageDimension
    request = pb.GetMonthReportRequest(
        parent=parent,
        month=parse_month(month, today=datetime.now(UTC).date()) if month else "",
        group_by=[kind.ValueType(enum_number(kind.DESCRIPTOR, each.value)) for each in split],
    )
    report = session.connection.call(_stub(session).GetMonthReport, request)
    _show_month(session.options.output, report, split)


def _show_month(form: Format, report: pb.MonthReport, split: Sequence[Dimension]) -> None:
    if form is Format.JSON:
        write_json(as_json(report))
        return
    titles = [*(each.value for each in split), *(["quantity"] if Dimension.SKU in split else []), "records", "cost"]
    rows = [_line(line, split) for line in report.lines]
    if form is Format.CSV:
        write_csv(titles, rows)
    else:
        write_table(titles, rows, caption=f"{report.parent}, {report.month}")
    show_on_device(form, report.on_device)
    note(_totals(report))


def _line(line: pb.UsageLine, split: Sequence[Dimension]) -> list[Cell]:
    values = cells(line)
    values["day"] = values.get("date", "")
    quantity: list[Cell] = [line.quantity] if Dimension.SKU in split else []
    return [*(values[each.value] for each in split), *quantity, line.record_count, dollars_of(line.cost)]


def _totals(report: pb.MonthReport) -> str:
    totals = report.totals
    text = (
        f"total ${dollars_text(dollars_of(totals.cost))} in {totals.record_count} records: "
        f"{totals.input_tokens} input tokens, {totals.output_tokens} output tokens, {totals.images} images"
    )
    if totals.suspense_count:
        suspense = dollars_text(dollars_of(totals.suspense_cost))
        text += f"; ${suspense} of it provisional for {totals.suspense_count} attempts in suspense"
    return text


RECORDS = Layout(
    [
        *("book_time", "kind", "attempt_id", "request_id", "project", "api_key", "tier", "model", "account"),
        *("method", "outcome", "input_tokens", "output_tokens", "images", "cost", "price_version", "labels"),
    ]
)


@command(app, "records", LIST, timeout_seconds=_REPORT_TIMEOUT_SECONDS)
def records(
    session: Session,
    *,
    since: Annotated[str | None, typer.Option(metavar="WHEN", help="From when: 7d (ago), 2026-11-01.")] = None,
    until: Annotated[str | None, typer.Option(metavar="WHEN", help="Until when, exclusive; absent: now.")] = None,
    kind: Annotated[RecordKind | None, typer.Option(help="Only those that ended so.")] = None,
    scope: Scope = None,
    tenant: Tenant = None,
    department: Department = None,
    project: Project = None,
) -> None:
    """List booked attempts of a tenant, department or project, the oldest first; of this month by default."""
    now = datetime.now(UTC)
    kinds = pb.UsageRecord.Kind
    request = pb.ListUsageRecordsRequest(
        parent=scope_of(session, scope=scope, tenant=tenant, department=department, project=project),
        start_time=parse_moment(since, now=now, past=True) if since else None,
        end_time=parse_moment(until, now=now, past=True) if until else None,
        kind=kinds.ValueType(enum_number(kinds.DESCRIPTOR, kind.value) if kind else 0),
    )
    stub = _stub(session)
    pages = session.connection.pages(stub.ListUsageRecords, request, "usage_records", limit=session.options.limit)
    show_list(session.options.output, RECORDS, pages)
