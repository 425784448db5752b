"""`tollhouse limits increases`: more for a time, asked for by one person and approved by another."""

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from typing import Annotated

import typer
from google.protobuf.timestamp_pb2 import Timestamp
from tollhouse.admin.v1 import limit_increases_pb2 as pb
from tollhouse.admin.v1.limit_increases_pb2_grpc import LimitIncreaseServiceStub

from tollhouse_admin.amounts import parse_moment
from tollhouse_admin.command import CHANGE, DESTROY, LIST, READ, Session, command, noun
from tollhouse_admin.connection import Connection
from tollhouse_admin.limit_options import AMOUNT_HELP, LimitId, OnlyLimit, amount_of, find_limit
from tollhouse_admin.names import last_id, tenant_of
from tollhouse_admin.output import Layout
from tollhouse_admin.rendering import enum_number
from tollhouse_admin.resource import Etag, Kind
from tollhouse_admin.scopes import (
    OFFERED,
    Department,
    Project,
    Scope,
    Tenant,
    complete_in_tenant,
    in_tenant,
    scope_of,
    tenant_name,
)

app = noun("Temporary increases of limits: one person asks, another approves, and at its expiry it ends by itself.")


class State(StrEnum):
    """How far an increase has come."""

    REQUESTED = "requested"
    APPROVED = "approved"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"
    REVOKED = "revoked"
    EXPIRED = "expired"


def _increases(connection: Connection, tenant: str) -> Iterable[pb.LimitIncrease]:
    stub = connection.stub(LimitIncreaseServiceStub)
    request = pb.ListLimitIncreasesRequest(parent=tenant)
    return connection.pages(stub.ListLimitIncreases, request, "limit_increases", limit=OFFERED)


complete_increases = complete_in_tenant(_increases)
IncreaseId = Annotated[str, typer.Argument(metavar="INCREASE", help="Id or name.", autocompletion=complete_increases)]
Why = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for the other person and the trail.")]


def _stub(session: Session) -> LimitIncreaseServiceStub:
    return session.connection.stub(LimitIncreaseServiceStub)


def _read(session: Session, name: str, *, scope: str) -> pb.LimitIncrease:
    return session.connection.call(_stub(session).GetLimitIncrease, pb.GetLimitIncreaseRequest(name=name, scope=scope))


LAYOUT = Layout(
    [
        *("name", "limit", "amount", "state", "start_time", "expire_time"),
        *("requester", "reason", "decider", "decision_reason"),
    ]
)


def _kind(scope: str = "") -> Kind:
    return Kind(LAYOUT, partial(_read, scope=scope))


def _scope(session: Session, *, parent: str, scope: str | None, department: str | None, project: str | None) -> str:
    """Return the limit's scope where one is named, for who has his permission there and not on the tenant."""
    if not (scope or department or project):
        return ""
    return scope_of(session, scope=scope, tenant=parent, department=department, project=project)


def _named(
    session: Session,
    increase: str,
    *,
    tenant: str | None,
    scope: str | None,
    department: str | None,
    project: str | None,
) -> tuple[str, str]:
    """Return the full name of an increase, and the scope of its limit where one was typed."""
    name = in_tenant(session, increase, "limitIncreases", tenant)
    return name, _scope(session, parent=tenant_of(name), scope=scope, department=department, project=project)


@command(app, "request", CHANGE)
def request_increase(
    session: Session,
    limit: LimitId,
    amount: Annotated[str, typer.Option(metavar="AMOUNT", help=f"How much more. {AMOUNT_HELP}")],
    reason: Why,
    expires: Annotated[str, typer.Option(metavar="WHEN", help="Its end: 14d, 2026-12-31 or 2026-12-31T12:00Z.")],
    *,
    starts: Annotated[
        str | None, typer.Option(metavar="WHEN", help="From when; absent: as soon as it is approved.")
    ] = None,
    increase_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="Its id; absent: the server chooses.")
    ] = None,
    scope: Scope = None,
    tenant: Tenant = None,
    department: Department = None,
    project: Project = None,
) -> None:
    """Ask for more; nothing changes until another person approves. With the limit's scope if you may ask there only."""
    name = in_tenant(session, limit, "limits", tenant)
    parent = tenant_of(name)
    where = _scope(session, parent=parent, scope=scope, department=department, project=project)
    resource = pb.LimitIncrease(
        limit=name,
        # Only the limit itself knows whether its amount is money or a count.
        amount=amount_of(amount, find_limit(session, name, where).metric),
        reason=reason,
        start_time=_moment(starts) if starts else None,
        expire_time=_moment(expires),
    )
    request = pb.RequestLimitIncreaseRequest(
        parent=parent, limit_increase_id=increase_id or "", limit_increase=resource, scope=where
    )
    _kind().create(session, f"a request for more of {last_id(name)}", _stub(session).RequestLimitIncrease, request)


def _moment(text: str) -> Timestamp:
    return parse_moment(text, now=datetime.now(UTC), past=False)


@command(app, "list", LIST)
def list_increases(
    session: Session,
    *,
    of_limit: OnlyLimit = None,
    state: Annotated[State | None, typer.Option(help="Only those in this state now.")] = None,
    scope: Scope = None,
    tenant: Tenant = None,
    department: Department = None,
    project: Project = None,
) -> None:
    """List a tenant's increases, newest first; with a scope only those of limits on exactly that scope."""
    name = in_tenant(session, of_limit, "limits", tenant) if of_limit else ""
    parent = tenant_of(name) if name else tenant_name(session, tenant)
    kind = pb.LimitIncrease.State
    request = pb.ListLimitIncreasesRequest(
        parent=parent,
        limit=name,
        scope=_scope(session, parent=parent, scope=scope, department=department, project=project),
        state=kind.ValueType(enum_number(kind.DESCRIPTOR, state.value)) if state else kind.STATE_UNSPECIFIED,
    )
    _kind().show_pages(session, _stub(session).ListLimitIncreases, request, "limit_increases")


@command(app, "show", READ)
def show(
    session: Session,
    increase: IncreaseId,
    *,
    scope: Scope = None,
    tenant: Tenant = None,
    department: Department = None,
    project: Project = None,
) -> None:
    """Show one increase: who asked, why, and what became of it."""
    name, where = _named(session, increase, tenant=tenant, scope=scope, department=department, project=project)
    _kind(where).show(session, name)


@command(app, "approve", CHANGE)
def approve(
    session: Session,
    increase: IncreaseId,
    *,
    reason: Why = "",
    scope: Scope = None,
    tenant: Tenant = None,
    department: Department = None,
    project: Project = None,
    etag: Etag = None,
) -> None:
    """Put an increase in force that somebody else asked for."""
    name, where = _named(session, increase, tenant=tenant, scope=scope, department=department, project=project)
    request = pb.ApproveLimitIncreaseRequest(name=name, scope=where, decision_reason=reason, etag=etag or "")
    _kind(where).change(session, "approve", name, _stub(session).ApproveLimitIncrease, request)


@command(app, "reject", CHANGE)
def reject(
    session: Session,
    increase: IncreaseId,
    *,
    reason: Why = "",
    scope: Scope = None,
    tenant: Tenant = None,
    department: Department = None,
    project: Project = None,
    etag: Etag = None,
) -> None:
    """Turn a request down for good."""
    name, where = _named(session, increase, tenant=tenant, scope=scope, department=department, project=project)
    request = pb.RejectLimitIncreaseRequest(name=name, scope=where, decision_reason=reason, etag=etag or "")
    _kind(where).change(session, "reject", name, _stub(session).RejectLimitIncrease, request)


@command(app, "withdraw", CHANGE)
def withdraw(
    session: Session,
    increase: IncreaseId,
    *,
    reason: Why = "",
    scope: Scope = None,
    tenant: Tenant = None,
    department: Department = None,
    project: Project = None,
    etag: Etag = None,
) -> None:
    """Take back a request of your own before it is decided."""
    name, where = _named(session, increase, tenant=tenant, scope=scope, department=department, project=project)
    request = pb.WithdrawLimitIncreaseRequest(name=name, scope=where, decision_reason=reason, etag=etag or "")
    _kind(where).change(session, "withdraw", name, _stub(session).WithdrawLimitIncrease, request)


@command(app, "revoke", DESTROY)
def revoke(
    session: Session,
    increase: IncreaseId,
    *,
    reason: Why = "",
    scope: Scope = None,
    tenant: Tenant = None,
    department: Department = None,
    project: Project = None,
    etag: Etag = None,
) -> None:
    """End an approved increase at once; calls in flight stay admitted."""
    name, where = _named(session, increase, tenant=tenant, scope=scope, department=department, project=project)
    request = pb.RevokeLimitIncreaseRequest(name=name, scope=where, decision_reason=reason, etag=etag or "")
    warning = f"The limit of {name} will be what it was without it."
    _kind(where).change(session, "revoke", name, _stub(session).RevokeLimitIncrease, request, warning=warning)
