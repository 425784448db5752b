"""SQL of wallets and their top-ups. Whoever changes a wallet has its limit's row locked, then the limit's use."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlmodel import col, func, select, tuple_
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.chargeback.charge_tables import TopUpRow, WalletRow
from tollhouse_server.chargeback.funds import Fund, Funds, after, with_top_up
from tollhouse_server.database.integrity import constraints
from tollhouse_server.database.rows import change, check_version, find, insert, run_sql
from tollhouse_server.errors import ResourceExists, WrongState
from tollhouse_server.ledger import limit_store
from tollhouse_server.ledger.tables import LimitRow
from tollhouse_server.money import MAX_NANOS
from tollhouse_server.names import LimitName, WalletName, invalid


@dataclass(frozen=True, slots=True, kw_only=True)
class WalletView:
    """A wallet with its limit and what stands in it, at one moment."""

    row: WalletRow
    scope: str
    held_nanos: int
    settled_nanos: int
    funds: Funds

    @property
    def name(self) -> WalletName:
        """Its resource name."""
        return WalletName(self.row.tenant_id, self.row.wallet_id)


async def create_wallet(session: AsyncSession, row: WalletRow, limit: LimitRow) -> WalletView:
    """Insert a wallet with its limit, which has nothing to spend yet.

    Raises:
        ResourceExists: the id is taken, be it by another limit.
    """
    name = WalletName(row.tenant_id, row.wallet_id)
    limit_name = LimitName(row.tenant_id, row.wallet_id)
    with constraints({"usage_limit_name": ResourceExists(name=str(limit_name))}):
        await limit_store.create_limit(session, limit)
    assert limit.limit_id is not None  # noqa: S101 - the row was written
    row.limit_id = limit.limit_id
    with constraints({"wallet_pkey": ResourceExists(name=str(name))}):
        await insert(session, row)
    return await view_wallet(session, name)


_USE: Final = """
SELECT w.wallet_id, l.scope, coalesce(c.held, 0) AS held, coalesce(c.settled, 0) AS settled, clock_timestamp() AS now
FROM wallet w
JOIN usage_limit l ON l.tenant_id = w.tenant_id AND l.limit_id = w.limit_id
LEFT JOIN counter c ON c.tenant_id = w.tenant_id AND c.limit_id = w.limit_id
WHERE w.tenant_id = :tenant AND w.wallet_id = ANY (:wallets)
"""


async def view_wallet(session: AsyncSession, name: WalletName) -> WalletView:
    """Return a wallet as it is now.

    Raises:
        ResourceNotFound: there is none.
    """
    return (await _views(session, [await find(session, _query(name), name)]))[0]


async def list_wallets(session: AsyncSession, tenant: str, *, scope: str, after_id: str, size: int) -> list[WalletView]:
    """Return up to `size` wallets by id; those of one scope, if it is given."""
    query = select(WalletRow).where(col(WalletRow.tenant_id) == tenant, col(WalletRow.wallet_id) > after_id)
    if scope:
        of_limit = (col(LimitRow.tenant_id) == col(WalletRow.tenant_id)) & (
            col(LimitRow.limit_id) == col(WalletRow.limit_id)
        )
        query = query.join(LimitRow, of_limit).where(col(LimitRow.scope) == scope)
    rows = (await session.exec(query.order_by(col(WalletRow.wallet_id)).limit(size))).all()
    return await _views(session, rows)


async def _views(session: AsyncSession, rows: Sequence[WalletRow]) -> list[WalletView]:
    if not rows:
        return []
    tenant, wallets = rows[0].tenant_id, [row.wallet_id for row in rows]
    uses = {use.wallet_id: use for use in await run_sql(session, _USE, {"tenant": tenant, "wallets": wallets})}
    query = select(TopUpRow).where(col(TopUpRow.tenant_id) == tenant, col(TopUpRow.wallet_id).in_(wallets))
    top_ups = (await session.exec(query)).all()
    views = []
    for row in rows:
        use = uses[row.wallet_id]
        funds = _funds(row, [top_up for top_up in top_ups if top_up.wallet_id == row.wallet_id])
        accounted = after(funds, settled_nanos=use.settled, held_nanos=use.held, now=use.now)
        views.append(
            WalletView(row=row, scope=use.scope, held_nanos=use.held, settled_nanos=use.settled, funds=accounted)
        )
    return views


async def top_up(session: AsyncSession, name: WalletName, row: TopUpRow, *, expected_version: int | None) -> TopUpRow:
    """Put money into a wallet; what has happened until now is accounted for first.

    Raises:
        ResourceNotFound: there is no such wallet.
        EtagMismatch: it is not at `expected_version`.
        WrongState: its limit has ended, with what it was on.
        ResourceExists: the id is taken.
        InvalidRequest: it expires before now, or the wallet would have more than can be counted.
    """
    held = await _lock(session, name)
    check_version(held.wallet, expected_version, str(name))
    if held.limit.state != "ACTIVE":
        raise WrongState(name=str(LimitName(name.tenant, name.wallet)), state=held.limit.state, needed="ACTIVE")
    if row.expires_at is not None and row.expires_at <= held.now:
        raise invalid("top_up.expire_time", "must be in the future")
    if any(known.top_up_id == row.top_up_id for known in held.top_ups):
        raise ResourceExists(name=f"Top-up {row.top_up_id} of {name}")
    row.created_at = held.now
    await insert(session, row)
    funds = with_top_up(held.funds, _fund(row))
    if funds.amount_nanos > MAX_NANOS:
        raise invalid("top_up.amount", "is more than can be counted together with what is in the wallet")
    await _write(session, held, funds, is_new_round=True)
    await session.refresh(row)
    return row


async def bring_up_to_date(session: AsyncSession, tenant: str, wallet: str) -> None:
    """Write which top-ups have paid what was settled, and let those expire that are due."""
    held = await _lock(session, WalletName(tenant, wallet))
    await _write(session, held, held.funds, is_new_round=False)


_DUE: Final = """
SELECT DISTINCT tenant_id, wallet_id FROM wallet_top_up
WHERE expired_at IS NULL AND expires_at <= clock_timestamp() ORDER BY tenant_id, wallet_id
"""


async def due_wallets(session: AsyncSession) -> list[tuple[str, str]]:
    """Return (tenant, wallet) of every wallet with a top-up that is due to expire."""
    return [(row.tenant_id, row.wallet_id) for row in await run_sql(session, _DUE)]


async def list_top_ups(
    session: AsyncSession, name: WalletName, *, place: tuple[datetime, str] | None, size: int
) -> Sequence[TopUpRow]:
    """Return up to `size` top-ups, the newest first, after the one that was made at a moment under an id."""
    order = tuple_(col(TopUpRow.created_at), col(TopUpRow.top_up_id))
    query = select(TopUpRow).where(TopUpRow.tenant_id == name.tenant, TopUpRow.wallet_id == name.wallet)
    if place is not None:
        query = query.where(order < tuple_(*place))
    query = query.order_by(col(TopUpRow.created_at).desc(), col(TopUpRow.top_up_id).desc()).limit(size)
    return (await session.exec(query)).all()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Locked:
    """A wallet that nobody else changes, whose limit counts nothing more until the transaction ends."""

    wallet: WalletRow
    limit: LimitRow
    top_ups: Sequence[TopUpRow]
    funds: Funds
    now: datetime


async def _lock(session: AsyncSession, name: WalletName) -> _Locked:
    wallet = await find(session, _query(name), name)
    of_limit = select(LimitRow).where(LimitRow.tenant_id == name.tenant, LimitRow.limit_id == wallet.limit_id)
    # The limit first, as whoever changes limits does; then the wallet as it is by now.
    limit = await find(session, of_limit, LimitName(name.tenant, name.wallet), lock=True)
    wallet = await find(session, _query(name), name, lock=True)
    held, settled = await limit_store.lock_use(session, limit)
    # Not the transaction's time: it may have waited for a lock since.
    now: datetime = (await session.exec(select(func.clock_timestamp()))).one()
    query = select(TopUpRow).where(TopUpRow.tenant_id == name.tenant, TopUpRow.wallet_id == name.wallet)
    top_ups = (await session.exec(query.execution_options(populate_existing=True))).all()
    funds = after(_funds(wallet, top_ups), settled_nanos=settled, held_nanos=held, now=now)
    return _Locked(wallet=wallet, limit=limit, top_ups=top_ups, funds=funds, now=now)


async def _write(session: AsyncSession, held: _Locked, funds: Funds, *, is_new_round: bool) -> None:
    by_id = {fund.top_up_id: fund for fund in funds.funds}
    for row in held.top_ups:
        fund = by_id[row.top_up_id]
        row.spent_nanos, row.expired_nanos = fund.spent_nanos, fund.expired_nanos
        if fund.is_over and row.expired_at is None:
            row.expired_at = held.now
        session.add(row)
    await session.flush()
    await change(session, held.wallet, attributed_nanos=funds.attributed_nanos)
    await limit_store.keep_amount(session, held.limit, funds.amount_nanos, is_new_round=is_new_round)


def _query(name: WalletName) -> Any:
    return select(WalletRow).where(WalletRow.tenant_id == name.tenant, WalletRow.wallet_id == name.wallet)


def _funds(wallet: WalletRow, top_ups: Sequence[TopUpRow]) -> Funds:
    return Funds(funds=tuple(map(_fund, top_ups)), attributed_nanos=wallet.attributed_nanos)


def _fund(row: TopUpRow) -> Fund:
    assert row.created_at is not None  # noqa: S101 - the row was written
    return Fund(
        top_up_id=row.top_up_id,
        amount_nanos=row.amount_nanos,
        created_at=row.created_at,
        expires_at=row.expires_at,
        spent_nanos=row.spent_nanos,
        expired_nanos=row.expired_nanos,
        is_over=row.expired_at is not None,
    )
