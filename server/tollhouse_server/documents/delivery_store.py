"""SQL of schedules of deliveries, and of the deliveries."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.integrity import constraints
from tollhouse_server.database.rows import change, check_version, find, insert, run_sql
from tollhouse_server.documents.tables import DeliveryRow, DeliveryScheduleRow
from tollhouse_server.errors import ResourceExists, WrongState
from tollhouse_server.names import DeliveryName, DeliveryScheduleName
from tollhouse_server.tenancy.tables import TenantRow

_WAYS: Final = """
CROSS JOIN LATERAL (
    SELECT 'FOLDER' AS way WHERE s.to_folder UNION ALL SELECT 'BUCKET' WHERE s.to_bucket
    UNION ALL SELECT 'MAIL' WHERE cardinality(s.recipients) > 0
) w
"""

# Two that plan the same at once wait for each other, and not each for the other.
_IN_ORDER: Final = "ORDER BY s.tenant_id, s.schedule_id, p.month, w.way"

_PLAN_CLOSED: Final = f"""
INSERT INTO delivery (tenant_id, delivery_id, schedule_id, month, sha256, way)
SELECT s.tenant_id, 'dl-' || replace(gen_random_uuid()::text, '-', ''), s.schedule_id, p.month, d.sha256, w.way
FROM delivery_schedule s
JOIN tenant t ON t.tenant_id = s.tenant_id AND t.state NOT IN ('DELETED', 'PURGED')
JOIN billing_period p ON p.tenant_id = s.tenant_id AND p.state = 'CLOSED' AND p.closed_at >= s.created_at
JOIN sealed_statement d ON d.tenant_id = s.tenant_id AND d.month = p.month AND d.department_id = s.department_id
{_WAYS}
WHERE s.day = 0 AND s.ended_at IS NULL AND w.way = ANY (:ways)
{_IN_ORDER}
ON CONFLICT ON CONSTRAINT delivery_once DO NOTHING
"""  # noqa: S608 - put together from constants alone

_PLAN_DATED: Final = f"""
INSERT INTO delivery (tenant_id, delivery_id, schedule_id, month, sha256, way)
SELECT s.tenant_id, 'dl-' || replace(gen_random_uuid()::text, '-', ''), s.schedule_id, p.month, '', w.way
FROM unnest(:tenants ::text[], :schedules ::text[], :months ::text[]) AS p (tenant_id, schedule_id, month)
JOIN delivery_schedule s USING (tenant_id, schedule_id)
{_WAYS}
WHERE w.way = ANY (:ways)
{_IN_ORDER}
ON CONFLICT ON CONSTRAINT delivery_once DO NOTHING
"""  # noqa: S608

# For as long as a delivery is under way nobody else takes it; should its process end, it is taken up again after that.
_CLAIM: Final = """
UPDATE delivery
SET attempts = attempts + 1, next_attempt_at = clock_timestamp() + :lease, updated_at = clock_timestamp()
WHERE (tenant_id, delivery_id) = (
    SELECT d.tenant_id, d.delivery_id FROM delivery d
    JOIN tenant t ON t.tenant_id = d.tenant_id AND t.state NOT IN ('DELETED', 'PURGED')
    WHERE d.state = 'PENDING' AND d.next_attempt_at <= clock_timestamp() AND d.way = ANY (:ways)
    ORDER BY d.next_attempt_at, d.tenant_id, d.delivery_id LIMIT 1 FOR UPDATE OF d SKIP LOCKED
)
RETURNING tenant_id, delivery_id, attempts
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A delivery that somebody has taken for an attempt: who takes it up after him has another one."""

    name: DeliveryName
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A month whose statement is to go out by a schedule's date."""

    schedule: DeliveryScheduleName
    month: str


async def create_schedule(session: AsyncSession, row: DeliveryScheduleRow) -> DeliveryScheduleRow:
    """Insert a schedule.

    Raises:
        ResourceExists: the id is taken, be it by one that has ended.
    """
    name = DeliveryScheduleName(row.tenant_id, row.schedule_id)
    with constraints({"delivery_schedule_pkey": ResourceExists(name=str(name))}):
        return await insert(session, row)


async def get_schedule(session: AsyncSession, name: DeliveryScheduleName, *, lock: bool = False) -> DeliveryScheduleRow:
    """Return a schedule that has not ended.

    Raises:
        ResourceNotFound: there is none.
    """
    schedule = DeliveryScheduleRow
    query = select(schedule).where(
        col(schedule.tenant_id) == name.tenant,
        col(schedule.schedule_id) == name.delivery_schedule,
        col(schedule.ended_at).is_(None),
    )
    return await find(session, query, name, lock=lock)


async def list_schedules(session: AsyncSession, tenant: str, *, after: str, size: int) -> Sequence[DeliveryScheduleRow]:
    """Return up to `size` schedules of a tenant that have not ended, by id."""
    schedule = DeliveryScheduleRow
    query = select(schedule).where(
        col(schedule.tenant_id) == tenant, col(schedule.schedule_id) > after, col(schedule.ended_at).is_(None)
    )
    return (await session.exec(query.order_by(col(schedule.schedule_id)).limit(size))).all()


async def end_schedule(session: AsyncSession, row: DeliveryScheduleRow, *, expected_version: int | None) -> None:
    """End a locked schedule; what it has planned already still goes out.

    Raises:
        EtagMismatch: it is at another version.
    """
    check_version(row, expected_version, str(DeliveryScheduleName(row.tenant_id, row.schedule_id)))
    await change(session, row, ended_at=datetime.now(UTC))


async def dated_schedules(session: AsyncSession) -> Sequence[DeliveryScheduleRow]:
    """Return the schedules that go by a day of the month, of every tenant that is not deleted."""
    schedule = DeliveryScheduleRow
    query = (
        select(schedule)
        .join(TenantRow, col(TenantRow.tenant_id) == col(schedule.tenant_id))
        .where(
            col(schedule.day) > 0,
            col(schedule.ended_at).is_(None),
            col(TenantRow.state).not_in(("DELETED", "PURGED")),
        )
    )
    return (await session.exec(query.order_by(col(schedule.tenant_id), col(schedule.schedule_id)))).all()


async def plan_closed(session: AsyncSession, ways: Sequence[str]) -> int:
    """Plan a delivery of each statement that was sealed since a schedule for it began, of tenants that are not deleted.

    Returns how many.
    """
    return int((await run_sql(session, _PLAN_CLOSED, {"ways": list(ways)})).rowcount)


async def plan_dated(session: AsyncSession, due: Sequence[Due], ways: Sequence[str]) -> int:
    """Plan the deliveries of months, unless they are; return how many."""
    values = {
        "tenants": [one.schedule.tenant for one in due],
        "schedules": [one.schedule.delivery_schedule for one in due],
        "months": [one.month for one in due],
        "ways": list(ways),
    }
    return int((await run_sql(session, _PLAN_DATED, values)).rowcount)


async def claim(session: AsyncSession, ways: Sequence[str], *, lease: timedelta) -> Claim | None:
    """Take the delivery on one of these ways that has been due for longest, None where none is."""
    found: Any = (await run_sql(session, _CLAIM, {"ways": list(ways), "lease": lease})).first()
    return Claim(name=DeliveryName(*found[:2]), attempt=found[2]) if found else None


async def find_claimed(session: AsyncSession, claim: Claim) -> DeliveryRow | None:
    """Return a delivery, locked, if nobody else has taken it up or ended it since it was claimed."""
    row = await get_delivery(session, claim.name, lock=True)
    return row if (row.state, row.attempts) == ("PENDING", claim.attempt) else None


async def get_delivery(session: AsyncSession, name: DeliveryName, *, lock: bool = False) -> DeliveryRow:
    """Return a delivery.

    Raises:
        ResourceNotFound: there is none.
    """
    query = select(DeliveryRow).where(
        col(DeliveryRow.tenant_id) == name.tenant, col(DeliveryRow.delivery_id) == name.delivery
    )
    return await find(session, query, name, lock=lock)


async def schedule_of(session: AsyncSession, row: DeliveryRow) -> DeliveryScheduleRow:
    """Return the schedule of a delivery, be it ended."""
    name = DeliveryScheduleName(row.tenant_id, row.schedule_id)
    query = select(DeliveryScheduleRow).where(
        col(DeliveryScheduleRow.tenant_id) == row.tenant_id, col(DeliveryScheduleRow.schedule_id) == row.schedule_id
    )
    return await find(session, query, name)


async def list_deliveries(
    session: AsyncSession, tenant: str, *, state: str, after: str, size: int
) -> Sequence[DeliveryRow]:
    """Return up to `size` deliveries of a tenant by id, in all states or in one."""
    query = select(DeliveryRow).where(col(DeliveryRow.tenant_id) == tenant, col(DeliveryRow.delivery_id) > after)
    if state:
        query = query.where(col(DeliveryRow.state) == state)
    return (await session.exec(query.order_by(col(DeliveryRow.delivery_id)).limit(size))).all()


async def retry(session: AsyncSession, row: DeliveryRow, *, expected_version: int | None) -> DeliveryRow:
    """Let a locked delivery that has failed be tried anew, at once.

    Raises:
        WrongState: it has not failed.
        EtagMismatch: it is at another version.
    """
    name = str(DeliveryName(row.tenant_id, row.delivery_id))
    check_version(row, expected_version, name)
    if row.state != "FAILED":
        raise WrongState(name=name, state=row.state, needed="FAILED")
    anew = {"attempts": 0, "hand_overs": 0, "next_attempt_at": datetime.now(UTC), "fault": ""}
    return await change(session, row, state="PENDING", **anew)
