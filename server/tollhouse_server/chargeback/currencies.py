"""Currencies for display. All reckoning is in dollars."""

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.chargeback.cells import Month
from tollhouse_server.chargeback.currency_store import chosen_currency, rate_on
from tollhouse_server.chargeback.statement import DisplayCurrency


async def display_currency(session: AsyncSession, tenant: str, month: Month) -> DisplayCurrency | None:
    """Return the tenant's currency at the newest rate of the month's last day or before; None without either."""
    chosen = await chosen_currency(session, tenant)
    if chosen is None or not chosen.code:
        return None
    rate = await rate_on(session, chosen.code, month.last_day)
    if rate is None:
        return None
    return DisplayCurrency(
        code=rate.code, per_dollar_millionths=rate.per_dollar_millionths, dated=rate.dated, source=rate.source
    )
