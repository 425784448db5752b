"""Roll-ups as a verification of the ledger sees them."""

from collections.abc import AsyncIterator

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.ledger.verification_store import Check, Finding, Reach
from tollhouse_server.reporting.conservation_store import RollupDifference, compare_rollups

_TABLES = {
    "usage": "usage_rollup",
    "sku": "usage_rollup_sku",
    "label": "usage_rollup_label",
    "price": "usage_rollup_price",
    "day": "usage_rollup_day",
}


async def rollup_findings(session: AsyncSession, reach: Reach) -> AsyncIterator[Finding]:
    """Yield the rolled-up days of a reach that are not the sums of their records; days are whole and within it."""
    async for one in compare_rollups(session, reach.tenant, since=reach.since, until=reach.until):
        yield _finding(one)


def _finding(one: RollupDifference) -> Finding:
    return Finding(
        tenant=one.tenant_id,
        check=Check.ROLLUPS,
        table=_TABLES[one.part],
        key=" ".join(part for part in (f"day of {one.day.start.isoformat()}", one.key) if part),
        field=one.field,
        expected=str(one.records),
        found=str(one.rollups),
    )
