"""Limits as administrators see them: create, read, change, delete, and the counter of the current window."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.epochs import Topic, bump
from tollhouse_server.database.rows import change, check_version, find, insert, run_sql
from tollhouse_server.errors import EtagMismatch
from tollhouse_server.ledger.tables import LimitRow
from tollhouse_server.ledger.terms import Calendar, Window
from tollhouse_server.ledger.windows import window_end, window_start
from tollhouse_server.names import LimitName
from tollhouse_server.tenancy.store import read_clock


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitUse:
    """The current window of a limit: amounts in the unit of its metric."""

    held: int
    settled: int
    window_start: datetime
    resets_at: datetime | None


async def create_limit(session: AsyncSession, row: LimitRow) -> LimitRow:
    """Insert a limit; it binds every reservation that starts after the commit."""
    await insert(session, row)
    await bump(session, Topic.LIMITS)
    return row


async def get_limit(session: AsyncSession, name: LimitName) -> LimitRow:
    """Return an active limit.

    Raises:
        ResourceNotFound: there is none.
    """
    query = select(LimitRow).where(
        LimitRow.tenant_id == name.tenant, LimitRow.name == name.limit, LimitRow.state == "ACTIVE"
    )
    return await find(session, query, name)


async def list_limits(
    session: AsyncSession, tenant: str, *, scopes: Sequence[str], after: str, size: int
) -> list[LimitRow]:
    """Return up to `size` active limits in the order of their names; `scopes`, if there are any, narrow to those."""
    query = select(LimitRow).where(LimitRow.tenant_id == tenant, LimitRow.state == "ACTIVE", col(LimitRow.name) > after)
    if scopes:
        query = query.where(col(LimitRow.scope).in_(scopes))
    return list((await session.exec(query.order_by(col(LimitRow.name)).limit(size))).all())


async def change_amount(session: AsyncSession, row: LimitRow, amount: int, *, expected_version: int | None) -> LimitRow:
    """Set a limit's amount. What is held or settled already stays counted.

    Raises:
        EtagMismatch: the row is no longer at `expected_version`.
    """
    return await _update(session, row, expected_version, amount=amount)


async def delete_limit(session: AsyncSession, row: LimitRow, *, expected_version: int | None) -> LimitRow:
    """Stop enforcing a limit; its counters stay for reports."""
    return await _update(session, row, expected_version, state="DELETED")


async def _update(session: AsyncSession, row: LimitRow, expected_version: int | None, **changes: object) -> LimitRow:
    name = str(LimitName(row.tenant_id, row.name))
    await session.refresh(row, with_for_update=True)
    if row.state != "ACTIVE":
        raise EtagMismatch(name=name)
    check_version(row, expected_version, name)
    await change(session, row, **changes)
    await bump(session, Topic.LIMITS)
    return row


async def limit_use(session: AsyncSession, row: LimitRow) -> LimitUse:
    """Return what the limit's current window holds, zero when nothing has been counted in it yet."""
    clock = await read_clock(session, row.tenant_id)
    calendar = Calendar(clock.zone, clock.fiscal_month_start_day)
    start = window_start(Window(row.window), clock.now, calendar)
    counter = await run_sql(
        session,
        "SELECT held, settled FROM counter WHERE tenant_id = :tenant AND limit_id = :limit AND window_start = :at",
        {"tenant": row.tenant_id, "limit": row.limit_id, "at": start},
    )
    counted = counter.one_or_none()
    return LimitUse(
        held=counted.held if counted else 0,
        settled=counted.settled if counted else 0,
        window_start=start,
        resets_at=window_end(Window(row.window), start, calendar),
    )
