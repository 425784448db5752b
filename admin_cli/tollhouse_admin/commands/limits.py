"""`tollhouse limits`: quotas and budgets on tenants, departments, projects and keys."""

from enum import StrEnum
from typing import Annotated

import typer
from tollhouse.admin.v1 import limits_pb2 as pb
from tollhouse.admin.v1.limits_pb2_grpc import LimitServiceStub

from tollhouse_admin.amounts import money_of, parse_count, parse_dollars
from tollhouse_admin.command import CHANGE, DESTROY, LIST, READ, Session, command, noun
from tollhouse_admin.failures import wrong_usage
from tollhouse_admin.names import is_full, last_id, tenant_of
from tollhouse_admin.output import Layout
from tollhouse_admin.rendering import enum_number
from tollhouse_admin.resource import Etag, Kind, mask
from tollhouse_admin.scopes import Department, Project, Scope, Tenant, in_tenant, scope_of, tenant_name

app = noun("Limits: quotas and budgets on tenants, departments, projects and keys.")

LimitId = Annotated[str, typer.Argument(metavar="LIMIT", help="Id or name.")]
Amount = Annotated[
    str, typer.Option(metavar="AMOUNT", help="US dollars for cost ($100, 0.10), else a count (5000, 5k, 1.5M).")
]


class Metric(StrEnum):
    """What a limit counts."""

    REQUESTS = "requests"
    INPUT_TOKENS = "input-tokens"
    OUTPUT_TOKENS = "output-tokens"
    IMAGES = "images"
    COST = "cost"


class Window(StrEnum):
    """How long usage counts."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"
    TOTAL = "total"


def _stub(session: Session) -> LimitServiceStub:
    return session.connection.stub(LimitServiceStub)


def _read(session: Session, name: str) -> pb.Limit:
    return session.connection.call(_stub(session).GetLimit, pb.GetLimitRequest(name=name))


def _amount(text: str, metric: int) -> pb.LimitAmount:
    if metric == pb.LIMIT_METRIC_COST:
        return pb.LimitAmount(money=money_of(parse_dollars(text)))
    return pb.LimitAmount(units=parse_count(text))


COLUMNS = [
    *("name", "scope", "metric", "window", "selector", "amount"),
    *("current.held", "current.settled", "current.reset_time"),
]
LIMIT = Kind(Layout(COLUMNS), _read)


@command(app, "create", CHANGE)
def create(
    session: Session,
    metric: Annotated[Metric, typer.Option(help="What is counted.")],
    window: Annotated[Window, typer.Option(help="How long usage counts.")],
    amount: Amount,
    *,
    limit: Annotated[str | None, typer.Argument(metavar="ID", help="Its id; absent: the server chooses.")] = None,
    scope: Scope = None,
    tenant: Tenant = None,
    department: Department = None,
    project: Project = None,
    tier: Annotated[str | None, typer.Option(metavar="TIER", help="Only calls of this tier count.")] = None,
    model: Annotated[str | None, typer.Option(metavar="MODEL", help="Only calls of this model count.")] = None,
) -> None:
    """Create a quota or budget; without a scope it is on the whole tenant."""
    where = scope_of(session, scope=scope, tenant=tenant, department=department, project=project)
    parent = tenant_of(where) if is_full(where) else tenant_name(session, tenant)
    number = pb.LimitMetric.ValueType(enum_number(pb.LimitMetric.DESCRIPTOR, metric.value))
    resource = pb.Limit(
        scope=where,
        metric=number,
        window=pb.LimitWindow.ValueType(enum_number(pb.LimitWindow.DESCRIPTOR, window.value)),
        selector=_selector(tier, model),
        amount=_amount(amount, number),
    )
    name = in_tenant(session, limit, "limits", parent) if limit else f"a limit on {where}"
    limit_id = last_id(name) if limit else ""
    request = pb.CreateLimitRequest(parent=parent, limit_id=limit_id, limit=resource)
    LIMIT.create(session, name, _stub(session).CreateLimit, request)


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
    LIMIT.show_pages(session, _stub(session).ListLimits, request, "limits")


@command(app, "show", READ)
def show(session: Session, limit: LimitId, *, tenant: Tenant = None) -> None:
    """Show one limit with its current window."""
    LIMIT.show(session, in_tenant(session, limit, "limits", tenant))


@command(app, "update", CHANGE)
def update(session: Session, limit: LimitId, amount: Amount, *, tenant: Tenant = None, etag: Etag = None) -> None:
    """Change a limit's amount; below what is used already it refuses further calls and cancels nothing."""
    name = in_tenant(session, limit, "limits", tenant)
    # Only the limit itself knows whether its amount is money or a count.
    metric = _read(session, name).metric
    resource = pb.Limit(name=name, amount=_amount(amount, metric), etag=etag or "")
    request = pb.UpdateLimitRequest(limit=resource, update_mask=mask(["amount"]))
    LIMIT.change(session, "update", name, _stub(session).UpdateLimit, request)


@command(app, "delete", DESTROY)
def delete(session: Session, limit: LimitId, *, tenant: Tenant = None) -> None:
    """End a limit; usage records stay."""
    name = in_tenant(session, limit, "limits", tenant)
    warning = f"{name} will no longer bound anything."
    LIMIT.change(session, "delete", name, _stub(session).DeleteLimit, pb.DeleteLimitRequest(name=name), warning=warning)
