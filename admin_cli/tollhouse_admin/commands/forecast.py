"""`tollhouse forecast`: what the month that runs will have cost."""

from typing import Annotated

import typer
from tollhouse.admin.v1 import outlook_pb2 as pb
from tollhouse.admin.v1.outlook_pb2_grpc import OutlookServiceStub

from tollhouse_admin.command import READ, Session, command, single
from tollhouse_admin.output import Format, Layout, note, show_one
from tollhouse_admin.scopes import Department, Tenant, department_name, tenant_name

app = single("What this month will have cost, and what to set aside.")

LAYOUT = Layout(
    [
        *("parent", "month", "booked", "expected", "low", "high", "confidence_percent", "recommended"),
        *("expected_charge", "low_charge", "high_charge", "recommended_charge"),
        *("reserve_percent", "level", "trend", "history_days", "days_to_come", "obstacle"),
    ]
)
_TIMEOUT_SECONDS = 60.0
_OBSTACLES = {
    pb.Forecast.OBSTACLE_TOO_FEW_DAYS: "Too little is known: the first cost is less than two weeks ago.",
    pb.Forecast.OBSTACLE_NOT_RUNNING: "The month does not run.",
}


@command(app, None, READ, timeout_seconds=_TIMEOUT_SECONDS)
def forecast(
    session: Session,
    *,
    confidence: Annotated[int, typer.Option(min=50, max=99, metavar="PERCENT", help="How sure the band is.")] = 90,
    reserve: Annotated[
        int, typer.Option(min=0, max=100, metavar="PERCENT", help="What to set aside beyond what is expected.")
    ] = 20,
    tenant: Tenant = None,
    department: Department = None,
) -> None:
    """Forecast cost and charge of this month of a tenant, or of a department with everything below it."""
    parent = department_name(session, department, tenant) if department else tenant_name(session, tenant)
    request = pb.GetForecastRequest(parent=parent, confidence_percent=confidence, reserve_percent=reserve)
    found = session.connection.call(session.connection.stub(OutlookServiceStub).GetForecast, request)
    show_one(session.options.output, LAYOUT, found)
    if session.options.output is Format.TABLE:
        note(_OBSTACLES.get(found.obstacle) or _said(found))


def _said(found: pb.Forecast) -> str:
    return (
        f"Made from the last {found.history_days} days, as a straight line with a weekday profile; in about "
        f"{found.confidence_percent} of 100 such months the cost ends between low and high."
    )
