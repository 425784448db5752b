"""`tollhouse report periods|preview|reopen|close|adjust|adjustments`: months are closed, and corrected later on."""

from typing import Annotated

import typer
from google.protobuf.message import Message
from google.type.money_pb2 import Money
from tollhouse.admin.v1 import chargeback_pb2 as pb

from tollhouse_admin.amounts import money_of, parse_dollars
from tollhouse_admin.command import CHANGE, DESTROY, LIST, READ, Session, command, noun
from tollhouse_admin.commands.statements import TIMEOUT_SECONDS, month_text, stub
from tollhouse_admin.dry_run import Change, perform
from tollhouse_admin.failures import ExitCode, Failure, wrong_usage
from tollhouse_admin.output import Format, Layout, note, show_list, show_one, write_json
from tollhouse_admin.rendering import as_json
from tollhouse_admin.resource import Etag, Kind
from tollhouse_admin.scopes import Department, Project, Tenant, department_name, project_name, tenant_name

app = noun("Months, and what is corrected in them.")

PERIOD = Layout(
    [
        *("name", "state", "start_time", "end_time", "previewer", "preview_time", "closer", "close_time", "sha256"),
        "etag",
    ]
)
SEAL = Layout(["scope", "sha256", "key_version"])
ADJUSTMENT = Layout(
    ["name", "month", "amount", "reason", "department", "project", "for_month", "creator", "create_time"]
)

NeededMonth = Annotated[str, typer.Argument(metavar="YYYY-MM", help="The month, or `last`.")]


def _name(session: Session, month: str, tenant: str | None) -> str:
    return f"{tenant_name(session, tenant)}/periods/{month_text(month)}"


def read_period(session: Session, name: str) -> pb.Period:
    """Return a month with what stands against closing it."""
    return session.connection.call(stub(session).GetPeriod, pb.GetPeriodRequest(name=name))


PERIODS = Kind(PERIOD, read_period)


@command(app, "periods", LIST)
def periods(session: Session, *, tenant: Tenant = None) -> None:
    """List a tenant's months, the newest first."""
    request = pb.ListPeriodsRequest(parent=tenant_name(session, tenant))
    PERIODS.show_pages(session, stub(session).ListPeriods, request, "periods")


@command(app, "period", READ)
def period(session: Session, month: NeededMonth, *, tenant: Tenant = None) -> None:
    """Show one month, and what stands against closing it."""
    PERIODS.show(session, _name(session, month, tenant))


@command(app, "preview", CHANGE, timeout_seconds=TIMEOUT_SECONDS)
def preview(session: Session, month: NeededMonth, *, tenant: Tenant = None, etag: Etag = None) -> None:
    """Put a month that is over up for preview."""
    name = _name(session, month, tenant)
    PERIODS.change(
        session, "preview", name, stub(session).PreviewPeriod, pb.PreviewPeriodRequest(name=name, etag=etag or "")
    )


@command(app, "reopen", CHANGE)
def reopen(session: Session, month: NeededMonth, *, tenant: Tenant = None, etag: Etag = None) -> None:
    """Take a preview back; what is closed stays closed."""
    name = _name(session, month, tenant)
    PERIODS.change(
        session, "reopen", name, stub(session).ReopenPeriod, pb.ReopenPeriodRequest(name=name, etag=etag or "")
    )


@command(app, "close", DESTROY, timeout_seconds=TIMEOUT_SECONDS)
def close(session: Session, month: NeededMonth, *, tenant: Tenant = None, etag: Etag = None) -> None:
    """Close a previewed month for good: its statements are sealed and signed, and nothing in it changes any more."""
    name = _name(session, month, tenant)
    request = pb.ClosePeriodRequest(name=name, etag=etag or "")
    if session.options.dry_run:
        request.validate_only = True
        _show_trial(session, session.connection.call(stub(session).ClosePeriod, request))
        return
    change = Change(
        verb="close",
        subject=name,
        method=stub(session).ClosePeriod,
        request=request,
        layout=PERIOD,
        warning=f"{name} will be locked for good.",
    )
    _show_closed(session, perform(session, change))


def _show_trial(session: Session, answer: pb.ClosePeriodResponse) -> None:
    """Show what the close would come to.

    Raises:
        Failure: it would be refused; the same as of the close itself.
    """
    _show_closed(session, answer)
    if answer.period.obstacles:
        told = "; ".join(one.description for one in answer.period.obstacles)
        raise Failure(
            reason="PERIOD_OBSTRUCTED",
            message=f"dry run: {answer.period.name} would not be closed: {told}",
            exit_code=ExitCode.INVALID,
        )
    note(f"dry run: close {answer.period.name} would be accepted; nothing was changed")


def _show_closed(session: Session, answer: Message | None) -> None:
    if not isinstance(answer, pb.ClosePeriodResponse):
        return
    if session.options.output is Format.JSON:
        write_json(as_json(answer))
        return
    show_one(session.options.output, PERIOD, answer.period)
    if session.options.output is Format.TABLE:
        show_list(session.options.output, SEAL, answer.seals)


@command(app, "adjust", CHANGE)
def adjust(
    session: Session,
    *,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for the statement and the trail.")],
    credit: Annotated[str | None, typer.Option(metavar="AMOUNT", help="US dollars to take off.")] = None,
    charge: Annotated[str | None, typer.Option(metavar="AMOUNT", help="US dollars to add.")] = None,
    month: Annotated[
        str, typer.Option(metavar="YYYY-MM", help="In whose statement; absent: the first that is not closed.")
    ] = "",
    for_month: Annotated[str, typer.Option(metavar="YYYY-MM", help="The earlier month that it corrects.")] = "",
    adjustment: Annotated[str | None, typer.Argument(metavar="ID", help="Its id; absent: the server chooses.")] = None,
    tenant: Tenant = None,
    department: Department = None,
    project: Project = None,
) -> None:
    """Enter a credit or a charge into a month that is not closed; it can never be changed."""
    parent = tenant_name(session, tenant)
    entered = pb.Adjustment(
        month=month_text(month),
        amount=_amount(credit, charge),
        reason=reason,
        department=department_name(session, department, tenant) if department else "",
        project=project_name(session, project, department, tenant) if project else "",
        for_month=month_text(for_month),
    )
    request = pb.CreateAdjustmentRequest(parent=parent, adjustment_id=adjustment or "", adjustment=entered)
    name = f"{parent}/adjustments/{adjustment}" if adjustment else f"an adjustment of {parent}"
    ADJUSTMENTS.create(session, name, stub(session).CreateAdjustment, request)


def _amount(credit: str | None, charge: str | None) -> Money:
    if (credit is None) == (charge is None):
        raise wrong_usage("Say what to enter", "Give --credit or --charge.")
    return money_of(-parse_dollars(credit)) if credit is not None else money_of(parse_dollars(charge or ""))


def _read_adjustment(session: Session, name: str) -> pb.Adjustment:
    return session.connection.call(stub(session).GetAdjustment, pb.GetAdjustmentRequest(name=name))


ADJUSTMENTS = Kind(ADJUSTMENT, _read_adjustment)


@command(app, "adjustments", LIST)
def adjustments(
    session: Session,
    *,
    month: Annotated[
        str,
        typer.Option(metavar="YYYY-MM", help="Only those in its statement: a month, `this` or `last`; absent: all."),
    ] = "",
    tenant: Tenant = None,
) -> None:
    """List a tenant's adjustments, the newest first."""
    request = pb.ListAdjustmentsRequest(parent=tenant_name(session, tenant), month=month_text(month))
    ADJUSTMENTS.show_pages(session, stub(session).ListAdjustments, request, "adjustments")
