"""Calls of which it is certain only for a while that they may be made."""

import time

import pytest
from tollhouse_server.ledger.works import PermitLapsedError

from tests.drivers.ledger import LedgerProcess, LedgerView, terms


@pytest.mark.parametrize("is_planned", [True, False])
async def test_nothing_is_admitted_when_the_permit_has_lapsed(
    process: LedgerProcess, view: LedgerView, is_planned: bool
) -> None:
    """Refused right before the commit, with nothing held; the same call is admitted when it is asked for anew."""
    limit = await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 1000)
    if is_planned:
        await process.ledger.release(await process.ledger.reserve(terms(), timeout_seconds=5))
    asked = terms(cost_nanos=100)

    with pytest.raises(PermitLapsedError):
        await process.ledger.reserve(asked, timeout_seconds=5, sure_until=time.monotonic() - 0.001)

    assert await view.counter(limit) == (0, 0)
    await process.ledger.reserve(asked, timeout_seconds=5, sure_until=time.monotonic() + 60)
    assert await view.counter(limit) == (100, 0)
