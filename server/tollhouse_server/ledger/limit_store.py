"""Limits as administrators see them: create, read, change, delete, and the counter of the current window."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.epochs import Topic, bump
from tollhouse_server.database.rows import run_sql
from tollhouse_server.errors import EtagMismatch, ResourceNotFound
from tollhouse_server.ledger.tables import LimitRow
from tollhouse_server.ledger.terms import Window
from tollhouse_server.ledger.windows import window_end, window_start


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitUse:
    """The current window of a limit: amounts in the unit of its metric."""

    held: int
    settled: int
    window_start: datetime
    resets_at: datetime | None


async def create_limit(session: AsyncSession, row: LimitRow) -> LimitRow:
    """Insert a limit; it binds every reservation that starts after the commit."""
    session.add(row)
    await session.flush()
    await session.refresh(row)
    await bump(session, Topic.LIMITS)
    return row


async def get_limit(session: AsyncSession, tenant_id: str, name: str) -> LimitRow:
    """Return the active limit `name` of the tenant.

    Raises:
        ResourceNotFound: there is none.
    """
    query = select(LimitRow).where(LimitRow.tenant_id == tenant_id, LimitRow.name == name, LimitRow.state == "ACTIVE")
    row = (await session.exec(query)).one_or_none()
    if row is None:
        raise ResourceNotFound(name=f"tenants/{tenant_id}/limits/{name}")
    return row


async def list_limits(
    session: AsyncSession, tenant_id: str, *, scopes: Sequence[str] = (), after_name: str = "", page_size: int = 100
) -> list[LimitRow]:
    """Return up to `page_size` active limits ordered by name, after `after_name`; `scopes` narrows to those scopes."""
    query = select(LimitRow).where(
        LimitRow.tenant_id == tenant_id, LimitRow.state == "ACTIVE", col(LimitRow.name) > after_name
    )
    if scopes:
        query = query.where(col(LimitRow.scope).in_(scopes))
    return list((await session.exec(query.order_by(col(LimitRow.name)).limit(page_size))).all())


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
    await session.refresh(row, with_for_update=True)
    if row.state != "ACTIVE" or (expected_version is not None and row.version != expected_version):
        raise EtagMismatch(name=f"tenants/{row.tenant_id}/limits/{row.name}")
    for field, value in changes.items():
        setattr(row, field, value)
    row.version += 1
    row.updated_at = datetime.now(UTC)
    session.add(row)
    await session.flush()
    await bump(session, Topic.LIMITS)
    return row


async def limit_use(session: AsyncSession, row: LimitRow) -> LimitUse:
    """Return what the limit's current window holds, zero when nothing has been counted in it yet."""
    found = await run_sql(
        session,
        "SELECT clock_timestamp() AS now, time_zone FROM tenant WHERE tenant_id = :tenant",
        {"tenant": row.tenant_id},
    )
    tenant = found.one()
    now, zone = tenant.now, ZoneInfo(tenant.time_zone)
    start = window_start(Window(row.window), now, zone)
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
        resets_at=window_end(Window(row.window), start, zone),
    )
