"""What a tenant is charged because Google bills otherwise than the ledger booked."""

from dataclasses import dataclass

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.names import BillVarianceName
from tollhouse_server.reconciliation.dates import days_within
from tollhouse_server.reconciliation.variance_store import list_true_ups
from tollhouse_server.reporting.periods import Period


@dataclass(frozen=True, slots=True, kw_only=True)
class TrueUp:
    """A tenant's part of an accepted difference; `variance` is its resource name.

    `basis_nanos` is the use that the share was reckoned from, `reason` what was written by who accepted it; `model` is
    the price book's, empty where the difference is of none.
    """

    variance: str
    amount_nanos: int
    basis_nanos: int
    model: str
    reason: str


async def true_up_entries(session: AsyncSession, tenant: str, period: Period) -> tuple[TrueUp, ...]:
    """Return what a tenant is charged in a period, in nano-dollars, signed, by day and difference.

    The parts of all tenants of one acceptance add up to what was accepted, exactly; they never change afterwards.
    """
    rows = await list_true_ups(session, tenant, *days_within(period))
    return tuple(
        TrueUp(
            variance=str(BillVarianceName(row.variance_id)),
            amount_nanos=row.amount_nanos,
            basis_nanos=row.basis_nanos,
            model=row.model,
            reason=row.reason,
        )
        for row in rows
    )
