"""Reconciles a month: reads both books, compares them line by line, and keeps what differs."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.pricing import store as price_store
from tollhouse_server.reconciliation import use_store, variance_store
from tollhouse_server.reconciliation.dates import days_of_month
from tollhouse_server.reconciliation.map_store import current_rules
from tollhouse_server.reconciliation.matching import Books, compare
from tollhouse_server.reconciliation.policy import blocking_lines
from tollhouse_server.reconciliation.policy_store import read_policy
from tollhouse_server.reconciliation.sides import lay_side_by_side
from tollhouse_server.reconciliation.variance_store import Reconciliation
from tollhouse_server.reconciliation.variances import Compared

_DAY = timedelta(days=1)


async def reconcile(session: AsyncSession, month: str, *, run_by: str) -> Reconciliation:
    """Compare a month `YYYY-MM` of Pacific time, all in the caller's transaction; safe to repeat.

    What was accepted before stays accepted, as far as it is the same difference.
    """
    first, last = days_of_month(month)
    # A day more at both ends: use of the last evening may be billed on the next day, which is in another month.
    around = first - _DAY, last + _DAY
    await use_store.rebuild_use(session, *around)
    map_version, sku_map = await current_rules(session)
    booked, billed = await use_store.booked_use(session, *around), await use_store.billed_use(session, *around)
    # It takes the processor for as long as the bill is long; others must not wait for it.
    sides = await asyncio.to_thread(lay_side_by_side, booked, billed, sku_map, month=(first, last))
    policy = await read_policy(session)
    books = Books(
        sides=sides,
        sku_map=sku_map,
        prices=await price_store.load(session),
        month=(first, last),
        rounding_nanos=policy.rounding_nanos,
    )
    lines = await asyncio.to_thread(compare, books)
    differing = [line for line in lines if line.variance_nanos or line.findings]
    blocking = blocking_lines(policy, lines)
    values = _sums(month, lines, differing) | {
        "blocking_count": len(blocking),
        "newest_export": sides.newest_export,
        "sku_map_version": map_version,
        "run_by": run_by,
    }
    await variance_store.save_reconciliation(session, values)
    await variance_store.save_variances(session, month, differing, blocking)
    await variance_store.set_blocking_count(session, month)
    return await variance_store.get_reconciliation(session, month)


def _sums(month: str, lines: Sequence[Compared], differing: Sequence[Compared]) -> dict[str, object]:
    return {
        "month": month,
        "booked_nanos": sum(line.booked_nanos for line in lines),
        "billed_nanos": sum(line.billed_nanos for line in lines),
        "credits_nanos": sum(line.credits_nanos for line in lines),
        "unexplained_nanos": sum(line.unexplained_nanos for line in lines),
        "compared_count": len(lines),
        "variance_count": len(differing),
    }
