"""Callers of several tenants hang up at random moments; `make faults ARGS="cancels"` does it ten thousand times."""

import asyncio
import random

from tests.drivers.canaries import add_canary_tenants, hang_up
from tests.drivers.stack import RunningStack

_TENANTS, _CANCELLED, _SEED = 3, 100, 5


def test_nothing_of_a_tenant_reaches_another_when_callers_hang_up(two_workers: RunningStack) -> None:
    """Answers, parts of streams, lists and errors have only what is their own tenant's."""
    tenants = add_canary_tenants(two_workers, random.Random(), _TENANTS)

    overheard = asyncio.run(hang_up(two_workers, tenants, calls=_CANCELLED, seed=_SEED))

    assert overheard.crossed == []
    assert overheard.told["CANCELLED"] >= _CANCELLED
    assert overheard.messages > len(tenants) * 8
