"""The SQL of roll-ups: making them, and knowing which there are."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from sqlalchemy import Insert, Row, Select, TableClause, func, insert, literal, select, text, true
from sqlalchemy.exc import DBAPIError
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.integrity import LOCK_NOT_AVAILABLE, refusal_of
from tollhouse_server.database.rows import run_sql
from tollhouse_server.errors import RecordsDropped, StoreUnavailable
from tollhouse_server.ledger.windows import midnight
from tollhouse_server.reporting.coverage import ReadingPlan, plan_reading
from tollhouse_server.reporting.facts import rollup_rows, rollup_sku_rows
from tollhouse_server.reporting.kept_detail_store import build_details
from tollhouse_server.reporting.periods import Period, calendar_month, day_after
from tollhouse_server.reporting.questions import Question
from tollhouse_server.reporting.tables import EXPORT, ROLLUP, ROLLUP_DAY, ROLLUP_SKU

# Any constant that no other advisory lock of Tollhouse uses: spells "roll".
_BUILD_LOCK: Final = 0x726F6C6C


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledDay:
    """A day of a tenant that is rolled up."""

    tenant_id: str
    period: Period
    record_count: int
    cost_nanos: int
    has_details: bool


async def keep_records(session: AsyncSession) -> None:
    """Let no month be dropped until the transaction ends: a dropped partition is gone from every snapshot at once."""
    await run_sql(session, "LOCK TABLE usage_record IN ACCESS SHARE MODE")


# --- reading ----------------------------------------------------------------------------------------------------------


async def read_plan(session: AsyncSession, question: Question) -> ReadingPlan:
    """Return what of the question's period is read from roll-ups, and what from records, which are there.

    Raises:
        RecordsDropped: records are needed that were dropped after an export.
    """
    await keep_records(session)
    days = await rolled_days(session, question.scope.tenant, question.period)
    plan = plan_reading(question.period, (day.period for day in days), question.days)
    await require_records(session, question.scope.tenant, plan.records)
    return plan


async def rolled_days(session: AsyncSession, tenant: str, period: Period | None = None) -> list[RolledDay]:
    """Return, in order, the rolled-up days of a tenant, those that lie within the period if one is given."""
    day = ROLLUP_DAY.c
    query = select(ROLLUP_DAY).where(day.tenant_id == tenant).order_by(day.day_start)
    if period is not None:
        query = query.where(day.day_start >= period.start, day.day_end <= period.end)
    return [_rolled_day(row) for row in await fetch_rows(session, query)]


def _rolled_day(row: Row[Any]) -> RolledDay:
    return RolledDay(
        tenant_id=row.tenant_id,
        period=Period(start=row.day_start, end=row.day_end),
        record_count=row.record_count,
        cost_nanos=int(row.cost_nanos),
        has_details=row.has_details,
    )


async def require_records(session: AsyncSession, tenant: str, periods: Iterable[Period]) -> None:
    """Make sure that the tenant's records of the periods are in the ledger.

    Raises:
        RecordsDropped: some of them were dropped after an export.
    """
    wanted = list(periods)
    dropped = [month for month in await dropped_months(session) if any(overlap(month, one) for one in wanted)]
    if not dropped:
        return
    first = await _first_day_start(session, tenant)
    # Before his first day a tenant has no records, and without one he had none in any month that was dropped.
    if first is None:
        return
    for month in dropped:
        if any(max(month.start, one.start, first) < min(month.end, one.end) for one in wanted):
            raise RecordsDropped(month=f"{month.start:%Y-%m}")


async def dropped_months(session: AsyncSession) -> list[Period]:
    """Return the months (UTC), in order, whose records were dropped after an export."""
    export = EXPORT.c
    query = select(export.month).where(export.state == "DROPPED").order_by(export.month)
    return [calendar_month(row.month) for row in await fetch_rows(session, query)]


def overlap(one: Period, other: Period) -> bool:
    """Tell whether two stretches of time have a moment in common."""
    return one.start < other.end and other.start < one.end


async def _first_day_start(session: AsyncSession, tenant: str) -> datetime | None:
    query = select(func.min(ROLLUP_DAY.c.day_start).label("first")).where(ROLLUP_DAY.c.tenant_id == tenant)
    (row,) = await fetch_rows(session, query)
    first: datetime | None = row.first
    return first


# --- making -----------------------------------------------------------------------------------------------------------


async def read_watermark(session: AsyncSession) -> datetime:
    """Return a moment before which no record will appear any more.

    Raises:
        StoreUnavailable: somebody held the ledger's clock for longer than a second.
    """
    try:
        watermark: datetime = (await run_sql(session, "SELECT ledger_watermark() AS at")).one().at
    except DBAPIError as error:
        if refusal_of(error)[0] == LOCK_NOT_AVAILABLE:
            raise StoreUnavailable(detail="the ledger's clock is held") from error
        raise
    return watermark


async def read_now(session: AsyncSession) -> datetime:
    """Return the database's time, the only one the ledger goes by."""
    now: datetime = (await run_sql(session, "SELECT clock_timestamp() AS now")).one().now
    return now


@dataclass(frozen=True, slots=True, kw_only=True)
class _Progress:
    """How far a tenant is rolled up; the tenant of a record has one of the two moments."""

    tenant_id: str
    time_zone: str
    last_end: datetime | None
    first_record: datetime | None

    def next_day(self) -> Period | None:
        """Return the day that follows on the last one, or that of the first record."""
        zone = ZoneInfo(self.time_zone)
        if self.last_end is not None:
            return day_after(self.last_end, zone)
        if self.first_record is None:
            return None
        return day_after(midnight(self.first_record.astimezone(zone).date(), zone), zone)


_PROGRESS = """
SELECT t.tenant_id, t.time_zone, d.last_end, CASE WHEN d.last_end IS NULL THEN
    (SELECT r.settled_at FROM usage_record r WHERE r.tenant_id = t.tenant_id ORDER BY r.settled_at LIMIT 1)
    END AS first_record
FROM tenant t LEFT JOIN LATERAL (
    SELECT l.day_end AS last_end FROM usage_rollup_day l WHERE l.tenant_id = t.tenant_id
    ORDER BY l.day_start DESC LIMIT 1
) d ON true
WHERE :tenant = '' OR t.tenant_id = :tenant ORDER BY t.tenant_id
"""


async def _progress(session: AsyncSession, tenant: str = "") -> list[_Progress]:
    found = await run_sql(session, _PROGRESS, {"tenant": tenant})
    return [_Progress(**row._mapping) for row in found.all()]


async def tenants_behind(session: AsyncSession, watermark: datetime) -> list[str]:
    """Return the tenants that have a day which is over at the watermark and not rolled up."""
    behind = ((one.tenant_id, one.next_day()) for one in await _progress(session))
    return [tenant for tenant, day in behind if day is not None and day.end <= watermark]


async def build_next_day(session: AsyncSession, tenant: str, watermark: datetime) -> Period | None:
    """Roll up the tenant's next day, all of it in this transaction; None if no further one is over at the watermark.

    Also None while another process does it. Safe to repeat: what was committed is the last day from then on.
    """
    lock = text("SELECT pg_try_advisory_xact_lock(:key, hashtext(:tenant)) AS held")
    if not (await run_sql(session, lock, {"key": _BUILD_LOCK, "tenant": tenant})).one().held:
        return None
    (progress,) = await _progress(session, tenant)
    day = progress.next_day()
    if day is None or day.end > watermark:
        return None
    await _insert(
        session, insert(ROLLUP).from_select(column_names(ROLLUP), _ordered(ROLLUP, rollup_rows(tenant, [day])))
    )
    skus = _ordered(ROLLUP_SKU, rollup_sku_rows(tenant, [day]))
    await _insert(session, insert(ROLLUP_SKU).from_select(column_names(ROLLUP_SKU), skus))
    await build_details(session, tenant, day)
    rollup = ROLLUP.c
    whole = select(
        literal(tenant),
        literal(day.start),
        literal(day.end),
        literal(progress.time_zone),
        func.coalesce(func.sum(rollup.record_count), 0),
        func.coalesce(func.sum(rollup.cost_nanos), 0),
        true(),
    ).where(rollup.tenant_id == tenant, rollup.day_start == day.start)
    columns = ["tenant_id", "day_start", "day_end", "time_zone", "record_count", "cost_nanos", "has_details"]
    await _insert(session, insert(ROLLUP_DAY).from_select(columns, whole))
    return day


def column_names(table: TableClause) -> list[str]:
    """Return the names of a table's columns, in their order."""
    return [column.name for column in table.c]


def _ordered(table: TableClause, rows: Select[Any]) -> Select[Any]:
    """Return the rows with their columns in the table's order."""
    inner = rows.subquery("made")
    return select(*(inner.c[name] for name in column_names(table)))


async def _insert(session: AsyncSession, statement: Insert) -> None:
    connection = await session.connection()
    await connection.execute(statement)


async def fetch_rows(session: AsyncSession, query: Select[Any]) -> Sequence[Row[Any]]:
    """Run a query and return its rows."""
    connection = await session.connection()
    rows: Sequence[Row[Any]] = (await connection.execute(query)).all()
    return rows
