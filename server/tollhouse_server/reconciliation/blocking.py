"""What of Google's bill keeps a tenant's month from being closed."""

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.reconciliation.dates import days_within
from tollhouse_server.reconciliation.variance_store import list_blocking
from tollhouse_server.reconciliation.variances import Variance
from tollhouse_server.reporting.periods import Period


async def blocking_variances(session: AsyncSession, tenant: str, period: Period) -> tuple[Variance, ...]:
    """Return the differences above the platform's bounds that nobody has explained or accepted, by day.

    They are of Google projects that the tenant used within the period, and of those that nobody is known to have used.
    A month that was not reconciled has none.
    """
    return tuple(await list_blocking(session, tenant, *days_within(period)))
