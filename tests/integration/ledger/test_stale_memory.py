"""What a process remembers may be out of date; what it admits must not be."""

import asyncio
from datetime import timedelta

from tollhouse_server.errors import LimitExceeded, StoreUnavailable

from tests.drivers.ledger import LedgerProcess, LedgerView, ledger_process, settled, terms
from tests.drivers.postgres import TestDatabase


async def test_a_counter_that_was_cleaned_away_is_made_again(process: LedgerProcess, view: LedgerView) -> None:
    """Housekeeping deletes counters that hold nothing; this process still believes in one of them."""
    limit = await view.add_limit("money", "tenants/acme", "COST", "MONTH", 1000)
    first = await process.ledger.reserve(terms(), timeout_seconds=5)
    await process.ledger.settle(first, settled(60))
    await view.connection.execute("DELETE FROM counter")

    second = await process.ledger.reserve(terms(), timeout_seconds=5)
    await process.ledger.settle(second, settled(70))

    assert await view.counter(limit) == (0, 70)


async def test_a_clock_that_was_guessed_wrong_is_corrected(process: LedgerProcess, view: LedgerView) -> None:
    """A window begins by the database's clock, whatever this process's own says."""
    limit = await view.add_limit("money", "tenants/acme", "COST", "DAY", 1000)
    await process.ledger.release(await process.ledger.reserve(terms(), timeout_seconds=5))
    clock = process.tick.memory.clock
    assert clock.read is not None
    clock.read += timedelta(days=3)

    await process.ledger.reserve(terms(), timeout_seconds=5)

    rows = await view.connection.fetch("SELECT window_start, held FROM counter WHERE limit_id = $1", limit)
    today = await view.connection.fetchval("SELECT date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'")
    assert {row["window_start"]: row["held"] for row in rows if row["held"]} == {today: 100}


async def test_limits_that_change_under_load_bind_whoever_comes_after(
    process: LedgerProcess, view: LedgerView, fresh_database: TestDatabase
) -> None:
    """Two servers with two lanes each, and a new limit in their midst: after its commit no more than it affords."""
    await view.add_limit("wide", "tenants/acme", "COST", "MONTH", 10**9)
    admitted = 0

    async def call(one: LedgerProcess) -> None:
        nonlocal admitted
        try:
            reservation = await one.ledger.reserve(terms(cost_nanos=10), timeout_seconds=20)
        except LimitExceeded:
            return
        admitted += 1
        await one.ledger.settle(reservation, settled(10))

    async with ledger_process(fresh_database.app_dsn) as other:
        calls = [asyncio.create_task(call((process, other)[n % 2])) for n in range(600)]
        await asyncio.sleep(0.05)
        narrow = await view.add_limit("narrow", "tenants/acme/departments/vision", "COST", "MONTH", 50 * 10)
        before = admitted
        await asyncio.gather(*calls)

    held, spent = await view.counter(narrow)
    assert held == 0
    assert spent <= 500
    # A tick whose snapshot is from before the change may be under way in each lane of each server.
    assert admitted - before <= 50 + 4 * 512


async def test_many_lanes_admit_no_more_than_one(fresh_database: TestDatabase, view: LedgerView) -> None:
    """Lanes of one process share a memory; the counters alone decide."""
    limit = await view.add_limit("money", "tenants/acme", "COST", "MONTH", 300 * 100)

    async with ledger_process(fresh_database.app_dsn, lanes=4) as process:
        results = await asyncio.gather(
            *(process.ledger.reserve(terms(), timeout_seconds=20) for _ in range(1000)), return_exceptions=True
        )

    refused = [result for result in results if isinstance(result, BaseException)]
    assert {type(error) for error in refused} == {LimitExceeded}
    assert len(refused) == 700
    assert await view.counter(limit) == (30_000, 0)


async def test_a_call_that_gives_up_in_the_moment_of_its_admission_leaves_no_hold(
    process: LedgerProcess, view: LedgerView
) -> None:
    """Deadlines and cancellations at every moment of a tick: what nobody took is given back."""
    limit = await view.add_limit("money", "tenants/acme", "COST", "MONTH", 10**9)
    await process.ledger.release(await process.ledger.reserve(terms(), timeout_seconds=5))

    async def impatient(number: int) -> bool:
        patience_seconds = number / 100_000
        call = process.ledger.reserve(terms(), timeout_seconds=patience_seconds if number % 2 else 5)
        try:
            if number % 2:
                await call
            else:
                await asyncio.wait_for(call, patience_seconds)
        except (StoreUnavailable, TimeoutError):
            return False
        return True

    taken = sum(await asyncio.gather(*(impatient(number) for number in range(0, 3000, 10))))
    taken += sum(await asyncio.gather(*(impatient(number) for number in range(1, 3000, 10))))
    await process.ledger.drain()

    # Those that were quicker than their caller's patience are in flight, all others are gone.
    assert await view.counter(limit) == (100 * taken, 0)
    assert await view.count("attempt") == taken
    assert process.ledger.in_flight == taken
