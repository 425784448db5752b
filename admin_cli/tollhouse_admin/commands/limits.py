"""`tollhouse limits`: quotas and budgets on tenants, departments, projects and keys."""

from datetime import UTC, datetime
from typing import Annotated

import typer
from tollhouse.admin.v1 import limit_alerts_pb2
from tollhouse.admin.v1 import limits_pb2 as pb
from tollhouse.admin.v1.limit_alerts_pb2_grpc import LimitAlertServiceStub
from tollhouse.admin.v1.limits_pb2_grpc import LimitServiceStub

from tollhouse_admin.amounts import parse_moment
from tollhouse_admin.catalog import complete_models, complete_tiers
from tollhouse_admin.command import CHANGE, DESTROY, LIST, READ, Session, command, noun
from tollhouse_admin.commands import limit_increases
from tollhouse_admin.failures import wrong_usage
from tollhouse_admin.limit_options import AMOUNT_HELP, LimitId, Metric, Mode, OnlyLimit, Window, amount_of, read_limit
from tollhouse_admin.names import is_full, last_id, named, tenant_of
from tollhouse_admin.output import Layout, show_list
from tollhouse_admin.rendering import enum_number
from tollhouse_admin.resource import Etag, Kind, mask
from tollhouse_admin.scopes import Department, Project, Scope, Tenant, in_tenant, scope_of, tenant_name

app = noun("Limits: quotas and budgets on tenants, departments, projects and keys.")
app.add_typer(limit_increases.app, name="increases")

Overshoot = Annotated[
    str | None,
    typer.Option(metavar="AMOUNT", help="How far an elastic limit may be passed; absent: a tenth of the amount."),
]


def _stub(session: Session) -> LimitServiceStub:
    return session.connection.stub(LimitServiceStub)


COLUMNS = [
    *("name", "scope", "metric", "window", "selector", "mode", "amount", "overshoot", "thresholds"),
    *("current.effective_amount", "current.held", "current.settled", "current.reset_time"),
]
LIMIT = Kind(Layout(COLUMNS), read_limit)


@command(app, "create", CHANGE)
def create(
    session: Session,
    metric: Annotated[Metric, typer.Option(help="What is counted.")],
    amount: Annotated[str, typer.Option(metavar="AMOUNT", help=AMOUNT_HELP)],
    *,
    window: Annotated[Window | None, typer.Option(help="How long usage counts; only concurrency has none.")] = None,
    mode: Annotated[
        Mode, typer.Option(help="strict is never passed, elastic by its overshoot at most, soft only alerts.")
    ] = Mode.STRICT,
    overshoot: Overshoot = None,
    threshold: Annotated[
        list[int] | None, typer.Option(metavar="PERCENT", help="Alert at this per cent of the amount; up to 10 times.")
    ] = None,
    limit: Annotated[str | None, typer.Argument(metavar="ID", help="Its id; absent: the server chooses.")] = None,
    scope: Scope = None,
    tenant: Tenant = None,
    department: Department = None,
    project: Project = None,
    tier: Annotated[
        str | None,
        typer.Option(
            metavar="TIER", callback=named, autocompletion=complete_tiers, help="Only calls of this tier count."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", callback=named, autocompletion=complete_models, help="Only calls of this model count."
        ),
    ] = None,
) -> None:
    """Create a quota or budget; without a scope it is on the whole tenant."""
    if window is None and metric is not Metric.CONCURRENCY:
        raise wrong_usage(f"The window in which {metric.value} count is not named", "Add --window.")
    where = scope_of(session, scope=scope, tenant=tenant, department=department, project=project)
    parent = tenant_of(where) if is_full(where) else tenant_name(session, tenant)
    number = pb.LimitMetric.ValueType(enum_number(pb.LimitMetric.DESCRIPTOR, metric.value))
    resource = pb.Limit(
        scope=where,
        metric=number,
        window=_window(window),
        selector=_selector(tier, model),
        mode=_mode(mode),
        amount=amount_of(amount, number),
        overshoot=amount_of(overshoot, number) if overshoot else None,
        thresholds=_ascending(threshold),
    )
    name = in_tenant(session, limit, "limits", parent) if limit else f"a limit on {where}"
    limit_id = last_id(name) if limit else ""
    request = pb.CreateLimitRequest(parent=parent, limit_id=limit_id, limit=resource)
    LIMIT.create(session, name, _stub(session).CreateLimit, request)


def _window(window: Window | None) -> "pb.LimitWindow.ValueType":
    if window is None:
        return pb.LIMIT_WINDOW_UNSPECIFIED
    return pb.LimitWindow.ValueType(enum_number(pb.LimitWindow.DESCRIPTOR, window.value))


def _mode(mode: Mode) -> "pb.LimitMode.ValueType":
    return pb.LimitMode.ValueType(enum_number(pb.LimitMode.DESCRIPTOR, mode.value))


def _ascending(thresholds: list[int] | None) -> list[int]:
    # In whichever order they are typed, they mean the same.
    return sorted(set(thresholds or []))


def _selector(tier: str | None, model: str | None) -> str:
    if tier and model:
        raise wrong_usage("A limit counts one tier or one model", "Give --tier or --model, not both.")
    if tier:
        return f"tiers/{tier.removeprefix('tiers/')}"
    return f"models/{model.removeprefix('models/')}" if model else ""


@command(app, "list", LIST)
def list_limits(
    session: Session,
    *,
    tenant: Tenant = None,
    scope: Scope = None,
    department: Department = None,
    project: Project = None,
) -> None:
    """List a tenant's limits; with a scope only those on exactly that scope."""
    parent = tenant_name(session, tenant)
    narrowed = scope or department or project
    where = scope_of(session, scope=scope, tenant=parent, department=department, project=project) if narrowed else ""
    request = pb.ListLimitsRequest(parent=parent, scope=where)
    LIMIT.show_pages(session, _stub(session).ListLimits, request, "limits", within=where)


@command(app, "show", READ)
def show(session: Session, limit: LimitId, *, tenant: Tenant = None) -> None:
    """Show one limit with its current window."""
    LIMIT.show(session, in_tenant(session, limit, "limits", tenant))


@command(app, "update", CHANGE)
def update(
    session: Session,
    limit: LimitId,
    *,
    amount: Annotated[str | None, typer.Option(metavar="AMOUNT", help=AMOUNT_HELP)] = None,
    mode: Annotated[Mode | None, typer.Option(help="Another mode ends the overshoot of an elastic limit.")] = None,
    overshoot: Overshoot = None,
    threshold: Annotated[
        list[int] | None, typer.Option(metavar="PERCENT", help="These instead of all that it had; up to 10 times.")
    ] = None,
    no_thresholds: Annotated[bool, typer.Option("--no-thresholds", help="None any more.")] = False,
    tenant: Tenant = None,
    etag: Etag = None,
) -> None:
    """Change a limit; an amount below what is used already refuses further calls and cancels nothing."""
    if threshold and no_thresholds:
        raise wrong_usage("--threshold and --no-thresholds do not go together", "Give one of them.")
    given = {"amount": amount, "mode": mode, "overshoot": overshoot, "thresholds": threshold or no_thresholds or None}
    fields = [field for field, value in given.items() if value is not None]
    if not fields:
        options = "--amount, --mode, --overshoot, --threshold or --no-thresholds"
        raise wrong_usage("Nothing to change was given", f"Give at least one of {options}.")
    name = in_tenant(session, limit, "limits", tenant)
    # Only the limit itself knows whether its amounts are money or counts.
    metric = read_limit(session, name).metric if amount or overshoot else pb.LIMIT_METRIC_UNSPECIFIED
    resource = pb.Limit(
        name=name,
        etag=etag or "",
        amount=amount_of(amount, metric) if amount else None,
        mode=_mode(mode) if mode else pb.LIMIT_MODE_UNSPECIFIED,
        overshoot=amount_of(overshoot, metric) if overshoot else None,
        thresholds=_ascending(threshold),
    )
    request = pb.UpdateLimitRequest(limit=resource, update_mask=mask(fields))
    LIMIT.change(session, "update", name, _stub(session).UpdateLimit, request)


@command(app, "delete", DESTROY)
def delete(session: Session, limit: LimitId, *, tenant: Tenant = None, etag: Etag = None) -> None:
    """End a limit; usage records stay."""
    name = in_tenant(session, limit, "limits", tenant)
    warning = f"{name} will no longer bound anything."
    LIMIT.change(
        session,
        "delete",
        name,
        _stub(session).DeleteLimit,
        pb.DeleteLimitRequest(name=name, etag=etag or ""),
        warning=warning,
    )


ALERT = Layout(
    [
        *("raise_time", "kind", "threshold", "limit", "scope", "metric", "window", "settled", "amount"),
        *("window_start_time", "attempt_id"),
    ]
)


@command(app, "alerts", LIST)
def alerts(
    session: Session,
    *,
    of_limit: OnlyLimit = None,
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help="From when: 7d (ago), 2026-11-01; absent: all.")
    ] = None,
    tenant: Tenant = None,
    scope: Scope = None,
    department: Department = None,
    project: Project = None,
) -> None:
    """List what limits have raised, newest first: thresholds reached, amounts passed, calls above their hold."""
    name = in_tenant(session, of_limit, "limits", tenant) if of_limit else ""
    parent = tenant_of(name) if name else tenant_name(session, tenant)
    narrowed = scope or department or project
    request = limit_alerts_pb2.ListLimitAlertsRequest(
        parent=parent,
        limit=name,
        scope=scope_of(session, scope=scope, tenant=parent, department=department, project=project) if narrowed else "",
        start_time=parse_moment(since, now=datetime.now(UTC), past=True) if since else None,
    )
    stub = session.connection.stub(LimitAlertServiceStub)
    pages = session.connection.pages(stub.ListLimitAlerts, request, "limit_alerts", limit=session.options.limit)
    show_list(session.options.output, ALERT, pages)
