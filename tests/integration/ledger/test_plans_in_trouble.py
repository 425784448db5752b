"""What a plan takes for granted: nothing that a call is held on goes unchecked, and no plan outlives its connection."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg
import pytest
from tollhouse_server.errors import LimitExceeded, StoreUnavailable
from tollhouse_server.ledger import connections
from tollhouse_server.ledger.ledger import Ledger
from tollhouse_server.ledger.terms import NOTHING, RecordKind, Settlement
from tollhouse_server.ledger.tick import Tick

from tests.drivers.ledger import CountingObserver, LedgerProcess, LedgerView, settled, terms
from tests.drivers.postgres import TestDatabase

if TYPE_CHECKING:
    from tollhouse_server.ledger.store import Connection

REFUSED = Settlement(kind=RecordKind.REFUSED, actual=NOTHING, outcome="HTTP_503")


@pytest.mark.parametrize(("metric", "ending"), [("CONCURRENCY", settled(60)), ("COST", REFUSED), ("REQUESTS", REFUSED)])
async def test_a_call_that_takes_the_place_of_another_is_checked_too(
    process: LedgerProcess, view: LedgerView, metric: str, ending: Settlement
) -> None:
    """One ends and one begins in the same tick, and the counter stays as it is: above a limit that was lowered."""
    limit = await view.add_limit("lowered", "tenants/acme", metric, "TOTAL", 1000, "tiers/flash")
    going, staying = [await process.ledger.reserve(terms(), timeout_seconds=5) for _ in range(2)]
    before = await view.counter(limit)
    await view.connection.execute("UPDATE usage_limit SET amount = $2 WHERE limit_id = $1", limit, before[0] // 2)
    await view.announce()
    for _ in range(10):
        # The limits are known anew, and ticks plan again.
        await process.ledger.release(await process.ledger.reserve(terms(tier="pro"), timeout_seconds=5))

    _, verdict = await asyncio.gather(
        process.ledger.settle(going, ending), process.ledger.reserve(terms(), timeout_seconds=5), return_exceptions=True
    )

    assert isinstance(verdict, LimitExceeded)
    assert (await view.counter(limit))[0] == before[0] // 2
    await process.ledger.release(staying)


@asynccontextmanager
async def impatient(dsn: str, opened: list["Connection"]) -> AsyncIterator[Ledger]:
    """Run a ledger that gives its connection up after half a second without an answer."""

    async def connect() -> "Connection":
        connection = await connections.connect(dsn, command_timeout_seconds=0.5)
        opened.append(connection)
        return connection

    tick = Tick(connect, lambda: 1, CountingObserver(), lanes=1)
    ledger = Ledger(tick)
    running = asyncio.create_task(tick.run())
    try:
        for _ in range(6):
            # The limits are known, and ticks plan.
            await ledger.release(await ledger.reserve(terms(), timeout_seconds=5))
        yield ledger
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@asynccontextmanager
async def stalled(pid: int) -> AsyncIterator[None]:
    """Stop a backend for the length of the block, as a machine without memory or a slow disk does."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_a_plan_that_is_carried_out_late_holds_nothing_for_a_caller_who_has_gone(
    fresh_database: TestDatabase, view: LedgerView
) -> None:
    """Its backend has stalled before it began; the tick has looked meanwhile, and found no attempt."""
    limit = await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 1000)
    opened: list[Connection] = []

    async with impatient(fresh_database.app_dsn, opened) as ledger:
        async with stalled(opened[-1].get_server_pid()):
            with pytest.raises(StoreUnavailable):
                await ledger.reserve(terms(), timeout_seconds=0.3)
            await asyncio.sleep(1.5)
        await ledger.drain()
        await asyncio.sleep(0.5)

    assert await view.counter(limit) == (0, 0)
    assert await view.count("attempt") == 0


async def test_a_plan_that_is_carried_out_late_begins_no_attempt_anew(
    fresh_database: TestDatabase, view: LedgerView
) -> None:
    """A call at its second target: admitted by another connection and settled, before the first plan is carried out."""
    limit = await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 1000)
    opened: list[Connection] = []

    async with impatient(fresh_database.app_dsn, opened) as ledger:
        async with stalled(opened[-1].get_server_pid()):
            call = asyncio.create_task(ledger.reserve(terms(first=False), timeout_seconds=20))
            await asyncio.sleep(1.5)
            if call.done():
                await ledger.settle(await call, settled(60))
        if await view.count("usage_record WHERE kind = 'SETTLED'") == 0:
            await ledger.settle(await call, settled(60))
        await asyncio.sleep(0.5)

    assert await view.counter(limit) == (0, 60)
    assert await view.count("attempt") == 0


async def test_a_statement_that_nobody_waits_for_ends(fresh_database: TestDatabase, view: LedgerView) -> None:
    """A tick waits for a row for longer than its client does: what it has asked for does not go on without it."""
    await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 1000)
    other = await asyncpg.connect(fresh_database.root_dsn)
    opened: list[Connection] = []

    async with impatient(fresh_database.app_dsn, opened) as ledger:
        async with other.transaction():
            await other.execute("SELECT FROM counter FOR UPDATE")
            with pytest.raises(StoreUnavailable):
                await ledger.reserve(terms(), timeout_seconds=0.3)
            await asyncio.sleep(2)
            going_on = await view.count(
                "pg_stat_activity WHERE application_name = 'tollhouse-ledger' AND datname = current_database() "
                "AND state = 'active' AND query_start < clock_timestamp() - interval '1 second'"
            )
        await ledger.drain()
    await other.close()

    assert going_on == 0


async def test_limits_are_read_again_after_a_fail_over(process: LedgerProcess, view: LedgerView) -> None:
    """The last change was lost with the old primary; the next one makes the same epoch of another limit."""
    limit = await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 1000)
    await process.ledger.release(await process.ledger.reserve(terms(), timeout_seconds=5))
    await view.connection.execute("UPDATE usage_limit SET amount = 10 WHERE limit_id = $1", limit)
    await view.connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'tollhouse-ledger' AND datname = current_database()"
    )
    await asyncio.sleep(0.2)

    with pytest.raises(LimitExceeded):
        await process.ledger.reserve(terms(), timeout_seconds=5)
