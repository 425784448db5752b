"""The SQL of breaker orders. Every function works in its caller's transaction.

An order whose time is over is as good as none; it is overwritten or dropped when somebody next touches it.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import func
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.epochs import Topic, lock
from tollhouse_server.database.integrity import constraints
from tollhouse_server.database.rows import change, check_version, insert
from tollhouse_server.errors import EtagMismatch, ResourceNotFound
from tollhouse_server.names import AccountName
from tollhouse_server.traffic.breakers import BreakerKey, Forced
from tollhouse_server.traffic.tables import BreakerOrderRow


def order_name(pattern: BreakerKey) -> str:
    """Return how an order is called in errors."""
    where = [f"region {pattern.region}"] * bool(pattern.region) + [f"model {pattern.model}"] * bool(pattern.model)
    return f"The breaker order on {AccountName(pattern.account_id)} ({', '.join(where) or 'all of it'})"


def pattern_of(row: BreakerOrderRow) -> BreakerKey:
    """Return which breakers an order is for."""
    return BreakerKey(row.account_id, row.region, row.model)


def in_force(row: BreakerOrderRow, at: datetime) -> bool:
    """Tell whether an order's time is not over."""
    return row.expire_at is None or row.expire_at > at


async def list_orders(session: AsyncSession) -> Sequence[BreakerOrderRow]:
    """Return the orders in force. They are few: each was given by a person."""
    query = select(BreakerOrderRow).where(
        col(BreakerOrderRow.expire_at).is_(None) | (col(BreakerOrderRow.expire_at) > func.now())
    )
    columns = (BreakerOrderRow.account_id, BreakerOrderRow.region, BreakerOrderRow.model)
    return (await session.exec(query.order_by(*map(col, columns)))).all()


async def find_order(session: AsyncSession, pattern: BreakerKey) -> BreakerOrderRow | None:
    """Return the order in force on exactly this pattern, locked against other changes of orders."""
    # One at a time: two that give the first order on a pattern would otherwise each find none.
    await lock(session, Topic.BREAKERS)
    row = await session.get(BreakerOrderRow, pattern, populate_existing=True)
    if row is not None and not in_force(row, datetime.now(UTC)):
        await session.delete(row)
        await session.flush()
        return None
    return row


async def put_order(
    session: AsyncSession,
    pattern: BreakerKey,
    forced: Forced,
    *,
    reason: str,
    actor: str,
    expire_at: datetime | None,
    version: int | None = None,
) -> BreakerOrderRow:
    """Give an order instead of the one in force on the same pattern.

    Raises:
        ResourceNotFound: there is no such account.
        EtagMismatch: a version is expected, and the order is at another one or is gone.
    """
    row = await find_order(session, pattern)
    if row is None:
        if version is not None:
            raise EtagMismatch(name=order_name(pattern))
        new = BreakerOrderRow(**pattern._asdict(), forced=forced.value, reason=reason, actor=actor, expire_at=expire_at)
        missing = ResourceNotFound(name=str(AccountName(pattern.account_id)))
        with constraints({"breaker_order_account_fkey": missing}):
            return await insert(session, new)
    check_version(row, version, order_name(pattern))
    await change(session, row, forced=forced.value, reason=reason, actor=actor, expire_at=expire_at)
    return row


async def drop_order(session: AsyncSession, pattern: BreakerKey, *, version: int | None = None) -> BreakerOrderRow:
    """Take an order back and return what it was.

    Raises:
        ResourceNotFound: no order on exactly this pattern is in force.
        EtagMismatch: it is at another version.
    """
    row = await find_order(session, pattern)
    if row is None:
        raise ResourceNotFound(name=order_name(pattern))
    check_version(row, version, order_name(pattern))
    await session.delete(row)
    await session.flush()
    return row
