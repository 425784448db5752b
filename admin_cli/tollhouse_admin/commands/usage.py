"""`tollhouse usage`: what a caller used, what it still may use, and its receipts."""

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer
from tollhouse.v1 import errors_pb2, usage_pb2
from tollhouse.v1.usage_pb2_grpc import UsageServiceStub

from tollhouse_admin.amounts import dollars_of, dollars_of_nanos, parse_moment
from tollhouse_admin.command import LIST, READ, Group, Session, command, noun
from tollhouse_admin.on_device_use import show_on_device
from tollhouse_admin.output import Format, Layout, show_list, show_one, write_csv, write_json, write_table
from tollhouse_admin.rendering import Cell, as_json, enum_number
from tollhouse_admin.scopes import Department, Project, Scope, Tenant, scope_of


class SummaryFirst(Group):
    """A group whose first word may be left out: `tollhouse usage` is `tollhouse usage summary`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Name the summary where nothing or only its options are given."""
        named = args and (not args[0].startswith("-") or args[0] == "--help")
        return super().parse_args(ctx, args if named or ctx.resilient_parsing else ["summary", *args])


app = noun("Usage: what the caller used, what it still may use, and its receipts.", group=SummaryFirst)

Since = Annotated[str | None, typer.Option(metavar="WHEN", help="From when: 7d (ago), 2026-11-01; absent: this month.")]
Until = Annotated[str | None, typer.Option(metavar="WHEN", help="Until when, exclusive; absent: now.")]

BAR_CELLS = 20


class Dimension(StrEnum):
    """What a summary can be split by."""

    DEPARTMENT = "department"
    PROJECT = "project"
    CREDENTIAL = "credential"
    TIER = "tier"
    MODEL = "model"
    DAY = "day"


def _stub(session: Session) -> UsageServiceStub:
    return session.connection.stub(UsageServiceStub)


def _parent(
    session: Session, scope: str | None, tenant: str | None, department: str | None, project: str | None
) -> str | None:
    """Return the scope that was asked for; None leaves it to the server to take the credential's own project."""
    if not (scope or tenant or department or project):
        return None
    return scope_of(session, scope=scope, tenant=tenant, department=department, project=project)


@command(app, "summary", READ, as_caller=True)
def summary(
    session: Session,
    *,
    group_by: Annotated[
        list[Dimension] | None, typer.Option("--group-by", "-g", help="Split by this; up to three times.")
    ] = None,
    since: Since = None,
    until: Until = None,
    scope: Scope = None,
    tenant: Tenant = None,
    department: Department = None,
    project: Project = None,
) -> None:
    """Sum up usage and cost; without a scope, of the credential's own project."""
    now = datetime.now(UTC)
    kind = usage_pb2.UsageDimension
    request = usage_pb2.GetUsageSummaryRequest(
        parent=_parent(session, scope, tenant, department, project),
        start_time=parse_moment(since, now=now, past=True) if since else None,
        end_time=parse_moment(until, now=now, past=True) if until else None,
        group_by=[kind.ValueType(enum_number(kind.DESCRIPTOR, each.value)) for each in group_by or []],
    )
    answer = session.connection.call(_stub(session).GetUsageSummary, request)
    _show_summary(session.options.output, answer, [each.value for each in group_by or []])


def _show_summary(form: Format, answer: usage_pb2.UsageSummary, dimensions: Sequence[str]) -> None:
    titles = [*dimensions, "calls", "prompt_tokens", "output_tokens", "images", "cost", "suspense_cost"]
    rows = [_group_row(group, dimensions) for group in answer.groups]
    total = _group_row(answer.total, dimensions)
    if form is Format.JSON:
        write_json(as_json(answer))
    elif form is Format.CSV:
        write_csv(titles, rows or [total])
    else:
        period = f"{answer.start_time.ToJsonString()} to {answer.end_time.ToJsonString()}"
        if dimensions:
            total[0] = "total"
        write_table(titles, [*rows, total], caption=f"{answer.parent}, {period}")
    show_on_device(form, answer.on_device)


def _group_row(group: usage_pb2.UsageGroup, dimensions: Sequence[str]) -> list[Cell]:
    used = group.usage
    return [
        *(group.dimensions.get(dimension, "") for dimension in dimensions),
        group.calls,
        used.prompt_tokens,
        used.candidates_tokens + used.thoughts_tokens,
        used.images,
        dollars_of(group.cost),
        dollars_of(group.suspense_cost),
    ]


def _quantity(state: errors_pb2.LimitState, amount: int) -> Cell:
    return dollars_of_nanos(amount) if state.unit == "nanos" else amount


def usage_bar(state: errors_pb2.LimitState) -> str:
    """Return a bar of what is settled (`#`) and held (`+`) of a limit, and the percentage used."""
    if state.amount <= 0:
        return f"[{'#' * BAR_CELLS}] 100%"
    settled = min(BAR_CELLS, state.settled * BAR_CELLS // state.amount)
    held = min(BAR_CELLS - settled, -(-state.held * BAR_CELLS // state.amount))
    percent = (state.settled + state.held) * 100 // state.amount
    return f"[{'#' * settled}{'+' * held}{'.' * (BAR_CELLS - settled - held)}] {percent}%"


LIMIT_COLUMNS: list[Any] = [
    "limit",
    "scope",
    "metric",
    "window",
    "mode",
    "tier",
    ("amount", lambda state: _quantity(state, state.amount)),
    ("held", lambda state: _quantity(state, state.held)),
    ("settled", lambda state: _quantity(state, state.settled)),
    ("left", lambda state: _quantity(state, max(0, state.amount - state.held - state.settled))),
    "resets_at",
]


@command(app, "limits", LIST, as_caller=True)
def limits(
    session: Session,
    *,
    scope: Scope = None,
    tenant: Tenant = None,
    department: Department = None,
    project: Project = None,
) -> None:
    """Show the limits on a scope and above it: held (+), settled (#), left, and when they reset."""
    request = usage_pb2.ListLimitsRequest(parent=_parent(session, scope, tenant, department, project))
    pages = session.connection.pages(_stub(session).ListLimits, request, "limits", limit=session.options.limit)
    table = session.options.output is Format.TABLE
    show_list(session.options.output, Layout([*LIMIT_COLUMNS, ("used", usage_bar)] if table else LIMIT_COLUMNS), pages)


RECORDS = Layout(
    [
        *("settled_at", "request_id", "project", "credential", "route.tier", "route.model", "state"),
        *("usage.prompt_tokens", "usage.candidates_tokens", "usage.thoughts_tokens", "usage.images", "cost", "labels"),
    ]
)


@command(app, "records", LIST, as_caller=True)
def records(
    session: Session,
    *,
    since: Since = None,
    until: Until = None,
    scope: Scope = None,
    tenant: Tenant = None,
    department: Department = None,
    project: Project = None,
) -> None:
    """List settled calls, newest first."""
    now = datetime.now(UTC)
    request = usage_pb2.ListUsageRecordsRequest(
        parent=_parent(session, scope, tenant, department, project),
        start_time=parse_moment(since, now=now, past=True) if since else None,
        end_time=parse_moment(until, now=now, past=True) if until else None,
    )
    stub = _stub(session)
    pages = session.connection.pages(stub.ListUsageRecords, request, "usage_records", limit=session.options.limit)
    show_list(session.options.output, RECORDS, pages)


RECEIPT = Layout(["attempt_id", "request_id", "project", "cost", "price_version", "settled_at"])


@command(app, "receipt", READ, as_caller=True)
def receipt(
    session: Session,
    request_id: Annotated[str, typer.Argument(metavar="REQUEST_ID", help="The call's request id.")],
    *,
    tenant: Tenant = None,
    department: Department = None,
    project: Project = None,
) -> None:
    """Show the receipt of one call, with the lines that make up its cost."""
    parent = _parent(session, None, tenant, department, project)
    request = usage_pb2.GetReceiptRequest(parent=parent, request_id=request_id)
    answer = session.connection.call(_stub(session).GetReceipt, request)
    show_one(session.options.output, RECEIPT, answer)
