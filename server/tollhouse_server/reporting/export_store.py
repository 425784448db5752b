"""The SQL of exports: taking stock of a month, reading its records as lines, and dropping them.

A line is what `usage_record_line` makes of a record; moments in it are in UTC, which each transaction sets for itself.
"""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, select, text
from sqlalchemy.exc import DBAPIError
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.integrity import LOCK_NOT_AVAILABLE, refusal_of
from tollhouse_server.database.rows import run_sql
from tollhouse_server.errors import MonthNotDroppable, ResourceNotFound, StoreUnavailable
from tollhouse_server.names import UsageExportName
from tollhouse_server.reporting.periods import Period
from tollhouse_server.reporting.rollup_store import fetch_rows
from tollhouse_server.reporting.tables import EXPORT

_OBSTACLE: Final = "TH001"

_TAKE_STOCK = """
SELECT count(*) AS record_count, coalesce(sum(r.cost_nanos), 0) AS cost_nanos,
    coalesce(sum(usage_line_checksum(usage_record_line(r))), 0) AS checksum
FROM usage_record r WHERE r.settled_at >= :start AND r.settled_at < :end
"""

# What was not confirmed may be created again: a month that is over does not change, but what a line looks like may.
_SAVE = """
INSERT INTO usage_export AS e (month, record_count, cost_nanos, checksum, created_by)
VALUES (:month, :record_count, :cost_nanos, :checksum, :creator)
ON CONFLICT ON CONSTRAINT usage_export_pkey DO UPDATE
    SET record_count = excluded.record_count, cost_nanos = excluded.cost_nanos, checksum = excluded.checksum,
        created_at = now(), created_by = excluded.created_by
    WHERE e.state = 'READY'
RETURNING *
"""

_CONFIRM = """
UPDATE usage_export SET state = 'CONFIRMED', content_sha256 = :content_sha256, location = :location,
    confirmed_at = now(), confirmed_by = :confirmer
WHERE month = :month RETURNING *
"""

_LINES = """
SELECT usage_record_line(r) AS line, r.tenant_id, r.settled_at, r.attempt_id FROM usage_record r
WHERE r.settled_at >= :start AND r.settled_at < :end AND (r.tenant_id, r.settled_at) >= (:tenant_id, :settled_at)
    AND ((r.tenant_id, r.settled_at) > (:tenant_id, :settled_at) OR r.attempt_id > :attempt_id)
ORDER BY r.tenant_id, r.settled_at, r.attempt_id LIMIT :size
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageExport:
    """What is known of the export of a month; `month` is its first day, `state` READY, CONFIRMED or DROPPED."""

    month: date
    state: str
    record_count: int
    cost_nanos: int
    checksum: int
    content_sha256: str
    location: str
    created_at: datetime
    created_by: str
    confirmed_at: datetime | None
    confirmed_by: str
    dropped_at: datetime | None

    @property
    def name(self) -> str:
        """Return the resource name."""
        return str(UsageExportName(f"{self.month:%Y-%m}"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A place in the lines of a month: the record that was read last."""

    tenant_id: str
    settled_at: datetime
    attempt_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedLine:
    """One record as a line of JSON, and its place."""

    line: str
    place: Place


async def save_export(session: AsyncSession, month: date, period: Period, *, creator: str) -> UsageExport | None:
    """Take stock of a month and keep it; None if an export of it is confirmed already."""
    await _in_utc(session)
    stock = (await run_sql(session, _TAKE_STOCK, {"start": period.start, "end": period.end})).one()
    values = {**stock._mapping, "month": month, "creator": creator}
    row = (await run_sql(session, _SAVE, values)).one_or_none()
    return None if row is None else _export(row)


async def get_export(session: AsyncSession, month: date, *, lock: bool = False) -> UsageExport:
    """Return the export of a month.

    Raises:
        ResourceNotFound: there is none.
    """
    query = select(EXPORT).where(EXPORT.c.month == month)
    rows = await fetch_rows(session, query.with_for_update() if lock else query)
    if not rows:
        raise ResourceNotFound(name=str(UsageExportName(f"{month:%Y-%m}")))
    return _export(rows[0])


async def list_exports(session: AsyncSession, *, after: date, size: int) -> list[UsageExport]:
    """Return up to `size` exports, the oldest month first, of months after that of `after`."""
    query = select(EXPORT).where(EXPORT.c.month > after).order_by(EXPORT.c.month).limit(size)
    return [_export(row) for row in await fetch_rows(session, query)]


async def confirm_export(
    session: AsyncSession, month: date, *, content_sha256: str, location: str, confirmer: str
) -> UsageExport:
    """Mark a locked export as kept."""
    values = {"month": month, "content_sha256": content_sha256, "location": location, "confirmer": confirmer}
    return _export((await run_sql(session, _CONFIRM, values)).one())


async def list_lines(session: AsyncSession, period: Period, *, after: Place | None, size: int) -> list[ExportedLine]:
    """Return up to `size` records of a period, of all tenants, that come behind `after`."""
    await _in_utc(session)
    place = after or Place(tenant_id="", settled_at=period.start, attempt_id=UUID(int=0))
    values = {
        "start": period.start,
        "end": period.end,
        "tenant_id": place.tenant_id,
        "settled_at": place.settled_at,
        "attempt_id": place.attempt_id,
        "size": size,
    }
    return [
        ExportedLine(
            line=row.line,
            place=Place(tenant_id=row.tenant_id, settled_at=row.settled_at, attempt_id=row.attempt_id),
        )
        for row in (await run_sql(session, text(_LINES), values)).all()
    ]


async def drop_records(session: AsyncSession, export: UsageExport) -> None:
    """Drop the records of a confirmed month; the database looks at everything that stands against it once more.

    Raises:
        MonthNotDroppable: something does.
        StoreUnavailable: a report is being read, or the table is in use otherwise; try again.
    """
    try:
        await run_sql(session, "SELECT drop_usage_partition(:month)", {"month": export.month})
    except DBAPIError as error:
        sqlstate, obstacle = refusal_of(error)
        if sqlstate == LOCK_NOT_AVAILABLE:
            raise StoreUnavailable(detail="the records are being read") from error
        if sqlstate == _OBSTACLE:
            raise MonthNotDroppable(name=export.name, obstacle=obstacle) from error
        raise


async def _in_utc(session: AsyncSession) -> None:
    await run_sql(session, "SET LOCAL TIME ZONE 'UTC'")


def _export(row: Row[Any]) -> UsageExport:
    values = dict(row._mapping)
    return UsageExport(**values | {"cost_nanos": int(row.cost_nanos), "checksum": int(row.checksum)})
