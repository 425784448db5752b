"""What a dead worker leaves behind."""

import asyncio

from tollhouse_server.ledger.workers import Liveness

from tests.drivers.ledger import LedgerProcess, LedgerView, ledger_process, settled, terms
from tests.drivers.postgres import TestDatabase


async def silence(view: LedgerView, epoch: int) -> None:
    """Make a worker look as if it had sent no heartbeat for too long."""
    await view.connection.execute(
        "UPDATE worker SET heartbeat_at = now() - make_interval(secs => $1) WHERE epoch = $2",
        Liveness().dead_after_seconds + 1,
        epoch,
    )


async def test_attempts_of_a_dead_worker_go_to_suspense_at_their_ceiling(
    process: LedgerProcess, view: LedgerView, fresh_database: TestDatabase
) -> None:
    """Never released, never lost: booked, flagged, and the hold is free."""
    limit = await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 1000)
    async with ledger_process(fresh_database.app_dsn) as dead:
        for _ in range(3):
            await dead.ledger.reserve(terms(), timeout_seconds=5)
    await silence(view, dead.epoch.current)

    swept = await process.sweeper.sweep()

    assert swept == 3
    assert await view.counter(limit) == (0, 300)
    assert await view.records() == [("SUSPENSE", 100)] * 3
    assert await view.count("attempt") == 0
    assert await view.count("suspense") == 3


async def test_a_living_worker_keeps_its_attempts(process: LedgerProcess, view: LedgerView) -> None:
    """A sweep touches nothing of a worker whose heart beats."""
    await process.ledger.reserve(terms(), timeout_seconds=5)

    swept = await process.sweeper.sweep()

    assert swept == 0
    assert await view.count("attempt") == 1


async def test_a_worker_that_was_only_slow_settles_what_was_swept_from_it(
    process: LedgerProcess, view: LedgerView, fresh_database: TestDatabase
) -> None:
    """Fenced, not lost: its settlement corrects the suspense by the difference."""
    limit = await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 1000)
    async with ledger_process(fresh_database.app_dsn) as slow:
        reservation = await slow.ledger.reserve(terms(cost_nanos=100), timeout_seconds=5)
        await silence(view, slow.epoch.current)
        await process.sweeper.sweep()

        await slow.ledger.settle(reservation, settled(40))

    assert await view.counter(limit) == (0, 40)
    assert await view.records() == [("SUSPENSE", 100), ("ADJUSTMENT", -60)]


async def test_sweeping_at_the_same_time_books_each_attempt_once(
    process: LedgerProcess, view: LedgerView, fresh_database: TestDatabase
) -> None:
    """Two housekeepers and a late settlement race for ten attempts."""
    async with ledger_process(fresh_database.app_dsn) as dead:
        reservations = [await dead.ledger.reserve(terms(), timeout_seconds=5) for _ in range(10)]
    await silence(view, dead.epoch.current)

    async with ledger_process(fresh_database.app_dsn) as other:
        await asyncio.gather(
            process.sweeper.sweep(),
            other.sweeper.sweep(),
            *(other.ledger.settle(reservation, settled(100)) for reservation in reservations),
        )

    kinds = [kind for kind, _ in await view.records()]
    assert len([kind for kind in kinds if kind in {"SETTLED", "SUSPENSE"}]) == 10
    assert sum(cost for _, cost in await view.records()) == 1000
    assert await view.count("attempt") == 0
