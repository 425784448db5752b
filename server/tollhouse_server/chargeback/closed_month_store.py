"""The SQL of which months are closed, for what would change the charges of several."""

from datetime import date
from typing import Final

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.rows import run_sql
from tollhouse_server.errors import PeriodClosed
from tollhouse_server.names import PLATFORM

_OF_TENANTS: Final = "(:tenant = '' OR p.tenant_id = :tenant)"

# FOR SHARE waits for a close that is under way, and makes one that comes wait for the change.
_BY_DAYS: Final = f"""
SELECT p.tenant_id, p.month, p.state FROM billing_period p
WHERE {_OF_TENANTS} AND daterange(:first, :before) && daterange(
    (p.starts_at AT TIME ZONE p.time_zone)::date, (p.ends_at AT TIME ZONE p.time_zone)::date)
ORDER BY p.tenant_id, p.month FOR SHARE
"""  # noqa: S608 - a constant of this module

_BY_MONTHS: Final = f"""
SELECT p.tenant_id, p.month, p.state FROM billing_period p
WHERE {_OF_TENANTS} AND to_date(p.month, 'YYYY-MM') <@ daterange(:first, :before)
ORDER BY p.tenant_id, p.month FOR SHARE
"""  # noqa: S608 - a constant of this module


async def require_open_days(session: AsyncSession, scope: str, first: date, before: date | None) -> None:
    """Return if no day from `first` until before `before` is in a closed month of the scope, and keep it so.

    `scope` is the name of a tenant or of something in it, or `platform` for all tenants.

    Raises:
        PeriodClosed: one is.
    """
    await _require_open(session, _BY_DAYS, scope, first, before)


async def require_open_months(session: AsyncSession, scope: str, first: date, before: date | None) -> None:
    """Return if no month that is named after one of these is closed for the scope, and keep it so.

    Raises:
        PeriodClosed: one is.
    """
    await _require_open(session, _BY_MONTHS, scope, first, before)


async def _require_open(session: AsyncSession, query: str, scope: str, first: date, before: date | None) -> None:
    asked = {"tenant": "" if scope == PLATFORM else scope.split("/")[1], "first": first, "before": before}
    for period in await run_sql(session, query, asked):
        if period.state == "CLOSED":
            raise PeriodClosed(name=f"tenants/{period.tenant_id}/periods/{period.month}")
