"""What a dead worker leaves behind."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tollhouse_server.ledger.connections import close_pool, create_pool
from tollhouse_server.ledger.workers import Liveness, Sweeper, WorkerEpoch

from tests.drivers.ledger import LedgerProcess, LedgerView, ledger_process, settled, terms
from tests.drivers.postgres import TestDatabase
from tests.drivers.way import way_to

QUICK = Liveness(dead_after_seconds=1.8)


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


async def test_an_attempt_that_cannot_be_booked_does_not_end_the_sweeping(
    process: LedgerProcess, view: LedgerView, fresh_database: TestDatabase
) -> None:
    """A text that PostgreSQL stores in the attempt and in no record; the API would refuse it."""
    await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 1000)
    async with ledger_process(fresh_database.app_dsn) as dead:
        await dead.ledger.reserve(terms(labels={"team": "a\0b"}), timeout_seconds=5)
        await dead.ledger.reserve(terms(), timeout_seconds=5)
        await silence(view, dead.epoch.current)

    swept = await process.sweeper.sweep()

    assert swept == 1
    assert await view.records() == [("SUSPENSE", 100)]
    assert await view.count("attempt") == 1


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


@asynccontextmanager
async def sweeper_along(dsn: str, process: LedgerProcess) -> AsyncIterator[None]:
    """Run a sweeper that reaches the database by this DSN."""
    pool = await create_pool(dsn)
    sweeping = asyncio.create_task(Sweeper(pool, process.tick, QUICK).run())
    try:
        yield
    finally:
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)
        await close_pool(pool)


@asynccontextmanager
async def beating(dsn: str) -> AsyncIterator[WorkerEpoch]:
    """Run a worker's heart, which begins to beat some time after entry, as after an outage."""
    pool = await create_pool(dsn)
    epoch = WorkerEpoch(pool, QUICK)
    await epoch.register()
    running = asyncio.create_task(epoch.run())
    try:
        yield epoch
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await close_pool(pool)


async def states(view: LedgerView) -> dict[int, str]:
    """Return what each worker counts as."""
    return {row["epoch"]: row["state"] for row in await view.connection.fetch("SELECT epoch, state FROM worker")}


async def test_a_sweeper_that_starts_listens_before_it_declares_anyone_dead(
    process: LedgerProcess, view: LedgerView, fresh_database: TestDatabase
) -> None:
    """Old heartbeats may be all that an outage has left; who is really dead is found out all the same."""
    await process.ledger.reserve(terms(), timeout_seconds=5)
    await silence(view, dead := process.epoch.current)
    async with beating(fresh_database.app_dsn) as living:
        await silence(view, living.current)
        first = living.current

        async with sweeper_along(fresh_database.app_dsn, process), asyncio.timeout(10):
            while await view.count("suspense") == 0:  # noqa: ASYNC110 - another process writes
                await asyncio.sleep(0.05)

        assert living.current == first
        assert await states(view) == {dead: "DEAD", first: "ALIVE"}


async def test_a_sweeper_that_comes_back_first_from_an_outage_declares_no_living_worker_dead(
    process: LedgerProcess, view: LedgerView, fresh_database: TestDatabase
) -> None:
    """For as long as nobody could write, nobody's heart was heard; those that beat again keep their epochs."""
    await process.ledger.reserve(terms(), timeout_seconds=5)
    await silence(view, dead := process.epoch.current)
    async with (
        way_to(fresh_database.app_dsn) as (workers_way, workers_dsn),
        way_to(fresh_database.app_dsn) as (sweepers_way, sweepers_dsn),
        beating(workers_dsn) as living,
    ):
        first = living.current
        async with sweeper_along(sweepers_dsn, process), asyncio.timeout(15):
            for way in (workers_way, sweepers_way):
                way.befall("down")
            await asyncio.sleep(QUICK.dead_after_seconds + 0.5)
            sweepers_way.befall("there")
            await asyncio.sleep(QUICK.heartbeat_seconds)
            workers_way.befall("there")
            while await view.count("suspense") == 0:  # noqa: ASYNC110 - another process writes
                await asyncio.sleep(0.05)

        assert living.current == first
        assert await states(view) == {dead: "DEAD", first: "ALIVE"}
