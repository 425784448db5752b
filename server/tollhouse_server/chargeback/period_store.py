"""The SQL of months, sealed statements and adjustments. Every function works in its caller's transaction."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy.exc import DBAPIError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.chargeback.tables import AdjustmentRow, BillingPeriodRow, SealedStatementRow
from tollhouse_server.database.integrity import LOCK_NOT_AVAILABLE, closed_months, constraints, refusal_of
from tollhouse_server.database.rows import insert, run_sql
from tollhouse_server.errors import ResourceExists, ResourceNotFound, StoreUnavailable
from tollhouse_server.names import AdjustmentName, PeriodName
from tollhouse_server.reporting.periods import Period
from tollhouse_server.reporting.rollup_store import rolled_days

_SEALED_AT_A_TIME: Final = 20


async def find_period(session: AsyncSession, name: PeriodName, *, lock: bool = False) -> BillingPeriodRow | None:
    """Return the row of a month, if there is one; with `lock` it stays as it is until the transaction ends."""
    query = select(BillingPeriodRow).where(
        BillingPeriodRow.tenant_id == name.tenant, BillingPeriodRow.month == name.month
    )
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    return (await session.exec(query)).one_or_none()


async def create_period(session: AsyncSession, row: BillingPeriodRow) -> BillingPeriodRow:
    """Write the row of a month that had none.

    Raises:
        StoreUnavailable: somebody else has written it at the same moment; try again.
    """
    race = StoreUnavailable(detail="the month is being changed")
    with constraints({"billing_period_pkey": race}):
        return await insert(session, row)


async def list_periods(session: AsyncSession, tenant: str) -> Sequence[BillingPeriodRow]:
    """Return all months of a tenant that have a row: twelve a year."""
    return (await session.exec(select(BillingPeriodRow).where(BillingPeriodRow.tenant_id == tenant))).all()


async def periods_of(session: AsyncSession, tenants: Collection[str]) -> dict[str, list[BillingPeriodRow]]:
    """Return all months of some tenants that have a row, by tenant."""
    found: dict[str, list[BillingPeriodRow]] = {tenant: [] for tenant in tenants}
    for row in (await session.exec(select(BillingPeriodRow).where(col(BillingPeriodRow.tenant_id).in_(tenants)))).all():
        found[row.tenant_id].append(row)
    return found


async def first_moment(session: AsyncSession, tenant: str) -> datetime | None:
    """Return when the tenant's first day with records began, or his first record if no day is rolled up."""
    query = """
SELECT coalesce(
    (SELECT d.day_start FROM usage_rollup_day d WHERE d.tenant_id = :tenant ORDER BY d.day_start LIMIT 1),
    (SELECT r.settled_at FROM usage_record r WHERE r.tenant_id = :tenant ORDER BY r.settled_at LIMIT 1)
) AS first
"""
    first: datetime | None = (await run_sql(session, query, {"tenant": tenant})).one().first
    return first


async def is_rolled_up(session: AsyncSession, tenant: str, period: Period) -> bool:
    """Tell whether the days of a period are rolled up, those before the tenant's first record aside."""
    days = await rolled_days(session, tenant)
    if any(day.period.end >= period.end for day in days):
        return True
    query = "SELECT EXISTS (SELECT FROM usage_record WHERE tenant_id = :tenant AND settled_at < :end) AS is_there"
    return not (await run_sql(session, query, {"tenant": tenant, "end": period.end})).one().is_there


async def open_suspense(session: AsyncSession, tenant: str, period: Period) -> tuple[int, int]:
    """Return how many attempts of a period are in suspense, and what is booked for them."""
    query = """
SELECT count(*) AS attempts, coalesce(sum(r.cost_nanos), 0) AS nanos FROM suspense s JOIN usage_record r
    ON r.tenant_id = s.tenant_id AND r.attempt_id = s.attempt_id AND r.kind = 'SUSPENSE'
WHERE s.tenant_id = :tenant AND s.resolved_at IS NULL AND r.settled_at >= :start AND r.settled_at < :end
"""
    values = {"tenant": tenant, "start": period.start, "end": period.end}
    row = (await run_sql(session, query, values)).one()
    return int(row.attempts), int(row.nanos)


async def guard_records(session: AsyncSession, period: Period) -> None:
    """Make the partitions that a period touches refuse records of closed months, before one is closed.

    Raises:
        StoreUnavailable: the ledger was at it for too long; try again.
    """
    try:
        await run_sql(
            session, "SELECT guard_usage_partitions(:start, :end)", {"start": period.start, "end": period.end}
        )
    except DBAPIError as error:
        if refusal_of(error)[0] == LOCK_NOT_AVAILABLE:
            raise StoreUnavailable(detail="the ledger's records are in use") from error
        raise


# --- sealed statements ------------------------------------------------------------------------------------------------


async def save_sealed(session: AsyncSession, rows: Sequence[SealedStatementRow]) -> None:
    """Write the sealed statements of a month, before it is marked as closed."""
    # A few at a time: that of a large tenant is some megabytes, and of departments there may be thousands.
    for start in range(0, len(rows), _SEALED_AT_A_TIME):
        session.add_all(rows[start : start + _SEALED_AT_A_TIME])
        await session.flush()


async def find_sealed(session: AsyncSession, name: PeriodName, department: str) -> SealedStatementRow | None:
    """Return the sealed statement of a tenant (no department) or department, if there is one."""
    return await session.get(SealedStatementRow, (name.tenant, name.month, department))


async def list_sealed(
    session: AsyncSession, name: PeriodName, *, after: str | None, size: int
) -> Sequence[SealedStatementRow]:
    """Return up to `size` sealed statements, the tenant's first, those behind the department `after`."""
    sealed = SealedStatementRow
    query = select(sealed).where(sealed.tenant_id == name.tenant, sealed.month == name.month)
    if after is not None:
        query = query.where(col(sealed.department_id) > after)
    return (await session.exec(query.order_by(col(sealed.department_id)).limit(size))).all()


# --- adjustments ------------------------------------------------------------------------------------------------------


async def create_adjustment(session: AsyncSession, row: AdjustmentRow) -> AdjustmentRow:
    """Write an adjustment.

    Raises:
        PeriodClosed: its month is closed.
        ResourceExists: its id is taken.
    """
    exists = ResourceExists(name=str(AdjustmentName(row.tenant_id, row.adjustment_id)))
    with closed_months(), constraints({"adjustment_pkey": exists}):
        return await insert(session, row)


async def get_adjustment(session: AsyncSession, name: AdjustmentName) -> AdjustmentRow:
    """Return an adjustment.

    Raises:
        ResourceNotFound: there is none of this name.
    """
    row = await session.get(AdjustmentRow, (name.tenant, name.adjustment))
    if row is None:
        raise ResourceNotFound(name=str(name))
    return row


async def list_adjustments(
    session: AsyncSession, tenant: str, *, month: str, after: tuple[datetime, str] | None, size: int
) -> Sequence[AdjustmentRow]:
    """Return up to `size` adjustments, the newest first, of one month or (empty) of all."""
    row = AdjustmentRow
    query = select(row).where(row.tenant_id == tenant)
    if month:
        query = query.where(row.month == month)
    if after is not None:
        at, adjustment_id = after
        older = col(row.created_at) < at
        query = query.where(older | ((col(row.created_at) == at) & (col(row.adjustment_id) < adjustment_id)))
    order = col(row.created_at).desc(), col(row.adjustment_id).desc()
    return (await session.exec(query.order_by(*order).limit(size))).all()


async def adjustments_of(session: AsyncSession, tenant: str, month: str) -> Sequence[AdjustmentRow]:
    """Return all adjustments of a month, the oldest first."""
    row = AdjustmentRow
    query = select(row).where(row.tenant_id == tenant, row.month == month)
    return (await session.exec(query.order_by(col(row.created_at), col(row.adjustment_id)))).all()
