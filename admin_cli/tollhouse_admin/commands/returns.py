"""`tollhouse returns`: what work costs without Tollhouse, held against its cost in statements."""

from enum import StrEnum
from typing import Annotated

import typer
from tollhouse.admin.v1 import outlook_pb2 as pb
from tollhouse.admin.v1.outlook_pb2_grpc import OutlookServiceStub

from tollhouse_admin.amounts import money_of, parse_count, parse_dollars
from tollhouse_admin.charge_options import month_named, parse_day
from tollhouse_admin.command import CHANGE, LIST, Session, command, noun
from tollhouse_admin.dry_run import Change, carry_out
from tollhouse_admin.failures import wrong_usage
from tollhouse_admin.output import Layout, show_list
from tollhouse_admin.rendering import enum_number
from tollhouse_admin.scopes import Tenant, in_tenant, tenant_name

app = noun("Returns: what a unit of work costs otherwise, for the statements' return on investment.")

LAYOUT = Layout(["name", "subject", "unit", "amount", "counting", "start_date", "creator", "create_time"])
COUNT = Layout(["name", "month", "units"])

Id = Annotated[str, typer.Argument(metavar="ID", help="Id or name.")]


class Counting(StrEnum):
    """How units are counted."""

    CALLS = "calls"
    GIVEN = "given"


def _stub(session: Session) -> OutlookServiceStub:
    return session.connection.stub(OutlookServiceStub)


def _subject(project: str | None, label: str | None) -> str:
    if (project is None) == (label is None):
        raise wrong_usage("Either --of-project or --of-label is needed", "For example --of-label task=ticket.")
    return f"projects/{(project or '').rpartition('/')[2]}" if project else f"labels/{label}"


@command(app, "set", CHANGE)
def set_alternative(
    session: Session,
    alternative: Id,
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="US dollars for a unit; 0 ends it.")],
    unit: Annotated[str, typer.Option(metavar="TEXT", help="What is counted, such as `answered ticket`.")],
    day: Annotated[str, typer.Option("--from", metavar="DAY", help="From which day on: 2026-11-30, or today.")],
    *,
    project: Annotated[str | None, typer.Option("--of-project", metavar="PROJECT", help="Its work.")] = None,
    label: Annotated[
        str | None, typer.Option("--of-label", metavar="KEY=VALUE", help="The work of calls with this label.")
    ] = None,
    counted_by: Annotated[
        Counting, typer.Option("--counted-by", help="Every call is a unit, or `returns record` gives the number.")
    ] = Counting.CALLS,
    tenant: Tenant = None,
) -> None:
    """State what a unit of a project's or label's work costs otherwise."""
    kind = pb.AlternativeCost.Counting
    resource = pb.AlternativeCost(
        name=in_tenant(session, alternative, "alternativeCosts", tenant),
        subject=_subject(project, label),
        unit=unit,
        amount=money_of(parse_dollars(amount)),
        counting=kind.ValueType(enum_number(kind.DESCRIPTOR, counted_by.value)),
        start_date=parse_day(day),
    )
    request = pb.SetAlternativeCostRequest(alternative_cost=resource)
    method = _stub(session).SetAlternativeCost
    carry_out(session, Change(verb="set", subject=resource.name, method=method, request=request, layout=LAYOUT))


@command(app, "list", LIST)
def list_alternatives(session: Session, *, tenant: Tenant = None) -> None:
    """List what was stated, by name and day."""
    request = pb.ListAlternativeCostsRequest(parent=tenant_name(session, tenant))
    method = _stub(session).ListAlternativeCosts
    pages = session.connection.pages(method, request, "alternative_costs", limit=session.options.limit)
    show_list(session.options.output, LAYOUT, pages)


@command(app, "record", CHANGE)
def record(
    session: Session,
    alternative: Id,
    units: Annotated[str, typer.Argument(metavar="UNITS", help="How many: 5000, 5k.")],
    month: Annotated[str, typer.Option(metavar="YYYY-MM", help="The month, `this` or `last`.")],
    *,
    tenant: Tenant = None,
) -> None:
    """Say how many units of work a month had; the last number counts."""
    name = in_tenant(session, alternative, "alternativeCosts", tenant)
    request = pb.RecordUnitsRequest(name=name, month=month_named(month), units=parse_count(units))
    method = _stub(session).RecordUnits
    carry_out(session, Change(verb="record", subject=name, method=method, request=request, layout=COUNT))
