"""`tollhouse allocations`: costs that departments share, and how they are spread."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

import typer
from tollhouse.admin.v1 import shared_costs_pb2 as pb
from tollhouse.admin.v1.shared_costs_pb2_grpc import SharedCostServiceStub

from tollhouse_admin.amounts import parse_count
from tollhouse_admin.charge_options import Why, month_named, parse_pairs, signed_money
from tollhouse_admin.command import CHANGE, LIST, READ, Session, command, noun
from tollhouse_admin.connection import Connection
from tollhouse_admin.failures import wrong_usage
from tollhouse_admin.names import full_name
from tollhouse_admin.output import Layout
from tollhouse_admin.rendering import enum_number
from tollhouse_admin.resource import Etag, Kind
from tollhouse_admin.scopes import OFFERED, Tenant, complete_in_tenant, in_tenant, tenant_name

app = noun("Allocations: costs that no department has caused alone, spread so that the parts sum to the whole.")


class Method(StrEnum):
    """How a cost is spread."""

    FIXED = "fixed"
    EVENLY = "evenly"
    BY_COST = "by-cost"
    BY_CALLS = "by-calls"
    BY_TOKENS = "by-tokens"


class For(StrEnum):
    """What a cost is for."""

    PLATFORM_FEE = "platform-fee"
    CACHE_STORAGE = "cache-storage"
    UNALLOCATED_VERTEX = "unallocated-vertex"
    OTHER = "other"


def _costs(connection: Connection, tenant: str) -> Iterable[pb.SharedCost]:
    stub = connection.stub(SharedCostServiceStub)
    request = pb.ListSharedCostsRequest(parent=tenant)
    return connection.pages(stub.ListSharedCosts, request, "shared_costs", limit=OFFERED)


CostId = Annotated[
    str, typer.Argument(metavar="ALLOCATION", help="Id or name.", autocompletion=complete_in_tenant(_costs))
]


def _stub(session: Session) -> SharedCostServiceStub:
    return session.connection.stub(SharedCostServiceStub)


def _read(session: Session, name: str) -> pb.SharedCost:
    return session.connection.call(_stub(session).GetSharedCost, pb.GetSharedCostRequest(name=name))


COST = Kind(
    Layout(
        [
            *("name", "display_name", "kind", "amount", "method", "departments"),
            *("start_month", "end_month", "reason", "creator"),
        ]
    ),
    _read,
)


@command(app, "create", CHANGE)
def create(
    session: Session,
    *,
    title: Annotated[str, typer.Option("--title", metavar="TEXT", help="Name for people.")],
    amount: Annotated[str, typer.Option(metavar="AMOUNT", help="US dollars of each month; negative: a credit.")],
    method: Annotated[Method, typer.Option(help="How it is spread.")],
    reason: Why,
    begins: Annotated[str, typer.Option("--from", metavar="MONTH", help="First month: 2026-12, this or last.")],
    until: Annotated[
        str | None,
        typer.Option(metavar="MONTH", help="First month that it is not of; absent: it goes on."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Of its first month only.")] = False,
    share: Annotated[
        list[str] | None,
        typer.Option(metavar="DEPARTMENT=SHARE", help="For fixed: who bears how much, in relation; several times."),
    ] = None,
    among: Annotated[
        list[str] | None,
        typer.Option(metavar="DEPARTMENT", help="Only these bear it, with all below them; several times."),
    ] = None,
    purpose: Annotated[For, typer.Option("--for", help="What it is for.")] = For.OTHER,
    cost: Annotated[str | None, typer.Argument(metavar="ID", help="Its id; absent: the server chooses.")] = None,
    tenant: Tenant = None,
) -> None:
    """Begin a shared cost of each month, or with --once of one."""
    if once and until:
        raise wrong_usage("--once and --until do not go together", "Give one of them.")
    parent = tenant_name(session, tenant)
    first = month_named(begins)
    resource = pb.SharedCost(
        display_name=title,
        kind=pb.SharedCost.Kind.ValueType(enum_number(pb.SharedCost.Kind.DESCRIPTOR, purpose.value)),
        amount=signed_money(amount),
        method=pb.SharedCostMethod.ValueType(enum_number(pb.SharedCostMethod.DESCRIPTOR, method.value)),
        departments=_departments(parent, share or [], among or []),
        reason=reason,
        start_month=first,
        end_month=_month_after(first) if once else month_named(until) if until else "",
    )
    name = in_tenant(session, cost, "sharedCosts", parent) if cost else f"a shared cost of {parent}"
    request = pb.CreateSharedCostRequest(parent=parent, shared_cost_id=cost or "", shared_cost=resource)
    COST.create(session, name, _stub(session).CreateSharedCost, request)


def _departments(parent: str, shares: list[str], among: list[str]) -> list[pb.DepartmentShare]:
    typed = {department: parse_count(share) for department, share in parse_pairs(shares, example="sales=3").items()}
    typed |= dict.fromkeys(among, 0)
    return [
        pb.DepartmentShare(department=full_name(department, "departments", parent), share=share)
        for department, share in typed.items()
    ]


def _month_after(month: str) -> str:
    year, number = divmod(int(month[:4]) * 12 + int(month[5:]), 12)
    return f"{year}-{number + 1:02}"


@command(app, "list", LIST)
def list_costs(
    session: Session,
    *,
    month: Annotated[
        str | None, typer.Option(metavar="MONTH", help="Only those of this month: 2026-12, this or last.")
    ] = None,
    tenant: Tenant = None,
) -> None:
    """List a tenant's shared costs."""
    parent = tenant_name(session, tenant)
    request = pb.ListSharedCostsRequest(parent=parent, month=month_named(month) if month else "")
    COST.show_pages(session, _stub(session).ListSharedCosts, request, "shared_costs")


@command(app, "show", READ)
def show(session: Session, cost: CostId, *, tenant: Tenant = None) -> None:
    """Show one shared cost, ended or not."""
    COST.show(session, in_tenant(session, cost, "sharedCosts", tenant))


@command(app, "end", CHANGE)
def end(
    session: Session,
    cost: CostId,
    month: Annotated[str, typer.Option("--on", metavar="MONTH", help="First month that it is not of any more.")],
    *,
    tenant: Tenant = None,
    etag: Etag = None,
) -> None:
    """End a shared cost; its numbers never change. With its first month: as if it had never been."""
    name = in_tenant(session, cost, "sharedCosts", tenant)
    request = pb.EndSharedCostRequest(name=name, end_month=month_named(month), etag=etag or "")
    COST.change(session, "end", name, _stub(session).EndSharedCost, request)
