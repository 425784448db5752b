"""SQL of currencies' rates, and of which currency a tenant has chosen."""

from collections.abc import Sequence
from datetime import date
from typing import Any

from sqlmodel import col, func, select, tuple_
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.chargeback.charge_tables import CurrencyRateRow, DisplayCurrencyRow
from tollhouse_server.database.rows import change, check_version, insert
from tollhouse_server.names import DisplayCurrencyName


async def rate_on(session: AsyncSession, code: str, day: date) -> CurrencyRateRow | None:
    """Return the newest rate of a currency that is not of a later day; of two of one day that recorded last."""
    rate = CurrencyRateRow
    query = select(rate).where(col(rate.code) == code, col(rate.dated) <= day)
    return (await session.exec(query.order_by(col(rate.dated).desc(), col(rate.rate_id).desc()).limit(1))).first()


async def has_rate(session: AsyncSession, code: str) -> bool:
    """Tell whether there is any rate of a currency."""
    query = select(func.count()).select_from(CurrencyRateRow).where(col(CurrencyRateRow.code) == code)
    return (await session.exec(query)).one() > 0


async def add_rate(session: AsyncSession, row: CurrencyRateRow) -> CurrencyRateRow:
    """Record a rate."""
    return await insert(session, row)


async def list_rates(
    session: AsyncSession, *, code: str, after: tuple[str, date, int] | None, size: int
) -> Sequence[CurrencyRateRow]:
    """Return up to `size` rates by currency, the newest day first, after one of a currency, day and id."""
    rate = CurrencyRateRow
    conditions: list[Any] = [col(rate.code) == code] if code else []
    if after is not None:
        same = col(rate.code) == after[0]
        older = tuple_(col(rate.dated), col(rate.rate_id)) < tuple_(after[1], after[2])
        conditions.append((col(rate.code) > after[0]) | (same & older))
    order = (col(rate.code), col(rate.dated).desc(), col(rate.rate_id).desc())
    return (await session.exec(select(rate).where(*conditions).order_by(*order).limit(size))).all()


async def chosen_currency(session: AsyncSession, tenant: str, *, lock: bool = False) -> DisplayCurrencyRow | None:
    """Return what a tenant has chosen; None if he never has."""
    query = select(DisplayCurrencyRow).where(DisplayCurrencyRow.tenant_id == tenant)
    if lock:
        query = query.with_for_update(key_share=True)
    return (await session.exec(query)).one_or_none()


async def choose_currency(
    session: AsyncSession, name: DisplayCurrencyName, code: str, *, expected_version: int | None
) -> DisplayCurrencyRow:
    """Write the currency of a tenant; an empty code is none.

    Raises:
        EtagMismatch: what he has chosen is not at `expected_version`.
    """
    row = await chosen_currency(session, name.tenant, lock=True)
    if row is None:
        row = DisplayCurrencyRow(tenant_id=name.tenant, code="", version=0)
        check_version(row, expected_version, str(name))
        return await insert(session, DisplayCurrencyRow(tenant_id=name.tenant, code=code))
    check_version(row, expected_version, str(name))
    return await change(session, row, code=code)
