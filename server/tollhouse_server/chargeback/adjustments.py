"""Credits and corrections: signed amounts with a reason, in a month that is not closed, and never changed."""

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.chargeback import period_store as store
from tollhouse_server.chargeback.periods import current_month, month_behind
from tollhouse_server.chargeback.statement import Entry, EntryKind, PeriodState
from tollhouse_server.chargeback.tables import AdjustmentRow
from tollhouse_server.errors import PeriodClosed
from tollhouse_server.names import AdjustmentName, DepartmentName, PeriodName, ProjectName, invalid
from tollhouse_server.tenancy.store import get_department, get_project, read_clock


async def enter(session: AsyncSession, row: AdjustmentRow) -> AdjustmentRow:
    """Enter an adjustment; without a month into the first one from the current on that is not closed.

    Raises:
        PeriodClosed: its month is closed.
        InvalidRequest: its month has not begun, or does not come behind the month that it corrects.
        ResourceNotFound: there is no such tenant, department or project.
        ResourceExists: its id is taken.
    """
    clock = await read_clock(session, row.tenant_id)
    current = current_month(clock)
    row.month = row.month or await _first_open(session, row.tenant_id, current)
    if row.month > max(current, await _first_open(session, row.tenant_id, current)):
        raise invalid("adjustment.month", "has not begun")
    if row.for_month and row.for_month >= row.month:
        raise invalid("adjustment.for_month", f"must be before the month {row.month} in which it is entered")
    await _require_place(session, row)
    if await _is_closed(session, row.tenant_id, row.month):
        raise PeriodClosed(name=str(PeriodName(row.tenant_id, row.month)))
    return await store.create_adjustment(session, row)


async def adjustment_entries(session: AsyncSession, tenant: str, month: str) -> tuple[Entry, ...]:
    """Return the adjustments of a tenant's month as entries, the oldest first."""
    return tuple(_entry(row) for row in await store.adjustments_of(session, tenant, month))


async def creators(session: AsyncSession, tenant: str, month: str) -> dict[str, str]:
    """Return who has entered adjustments of a month, each with the name of one of them."""
    rows = await store.adjustments_of(session, tenant, month)
    return {row.created_by: str(AdjustmentName(tenant, row.adjustment_id)) for row in rows}


async def _first_open(session: AsyncSession, tenant: str, month: str) -> str:
    while await _is_closed(session, tenant, month):
        month = month_behind(month)
    return month


async def _is_closed(session: AsyncSession, tenant: str, month: str) -> bool:
    period = await store.find_period(session, PeriodName(tenant, month))
    return period is not None and period.state == PeriodState.CLOSED.value


async def _require_place(session: AsyncSession, row: AdjustmentRow) -> None:
    if row.project_id:
        await get_project(session, ProjectName(row.tenant_id, row.department_id, row.project_id))
    elif row.department_id:
        await get_department(session, DepartmentName(row.tenant_id, row.department_id))


def _entry(row: AdjustmentRow) -> Entry:
    tenant, department, project = row.tenant_id, row.department_id, row.project_id
    return Entry(
        kind=EntryKind.ADJUSTMENT,
        amount_nanos=row.amount_nanos,
        rule=str(AdjustmentName(tenant, row.adjustment_id)),
        reason=row.reason,
        department=str(DepartmentName(tenant, department)) if department else "",
        project=str(ProjectName(tenant, department, project)) if project else "",
        for_month=row.for_month,
    )
