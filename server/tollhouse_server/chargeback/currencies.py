"""Currencies for display. All reckoning is in dollars."""

from datetime import timedelta

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.chargeback.currency_store import chosen_currency, rate_on
from tollhouse_server.chargeback.statement import DisplayCurrency
from tollhouse_server.reporting.periods import Period
from tollhouse_server.tenancy.store import read_clock


async def display_currency(session: AsyncSession, tenant: str, period: Period) -> DisplayCurrency | None:
    """Return the tenant's currency at the newest rate of the period's last day or before; None without either."""
    chosen = await chosen_currency(session, tenant)
    if chosen is None or not chosen.code:
        return None
    zone = (await read_clock(session, tenant)).zone
    last = (period.end - timedelta(microseconds=1)).astimezone(zone).date()
    rate = await rate_on(session, chosen.code, last)
    if rate is None:
        return None
    return DisplayCurrency(
        code=rate.code, per_dollar_millionths=rate.per_dollar_millionths, dated=rate.dated, source=rate.source
    )
