"""How many works a tick waits for."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from tollhouse_server.ledger import tick
from tollhouse_server.ledger.terms import Reservation

from tests.drivers.ledger import LedgerProcess, LedgerView, ledger_process, terms
from tests.drivers.postgres import TestDatabase

CALLS = 40
TURN_SECONDS = 0.0001
TRIES = 3
ENOUGH = 16


@pytest.fixture
async def process(
    fresh_database: TestDatabase, view: LedgerView, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[LedgerProcess]:
    """One running ledger with one lane, whose memory is warm, and whose ticks would wait a minute for nothing."""
    monkeypatch.setattr(tick, "_LONGEST_GATHERING_SECONDS", 60.0)
    async with ledger_process(fresh_database.app_dsn, lanes=1) as process:
        await process.ledger.release(await process.ledger.reserve(terms(), timeout_seconds=20))
        yield process


async def one_a_turn(process: LedgerProcess) -> AsyncIterator["asyncio.Task[Reservation]"]:
    """Start calls in an event loop that is busy: one in each turn, which takes a tenth of a millisecond."""
    for _ in range(CALLS):
        yield asyncio.create_task(process.ledger.reserve(terms(), timeout_seconds=20))
        busy_until = time.perf_counter() + TURN_SECONDS
        while time.perf_counter() < busy_until:
            pass
        await asyncio.sleep(0)


async def works_of_the_first_tick(process: LedgerProcess) -> int:
    """Return what the first tick carries of calls that come one after the other."""
    before = process.observer.finished
    calls = [call async for call in one_a_turn(process)]
    for call in calls:
        await process.ledger.release(await call)
    return process.observer.works[before]


async def test_a_tick_in_a_busy_loop_waits_for_some_works_and_not_for_all(process: LedgerProcess) -> None:
    """Enough of them end the wait, though the loop is still busy."""
    assert [await works_of_the_first_tick(process) for _ in range(TRIES)] == [ENOUGH] * TRIES


async def test_a_tick_in_an_idle_loop_waits_for_nobody(process: LedgerProcess) -> None:
    """A call alone is carried, though nobody comes after it."""
    before = process.observer.finished
    await process.ledger.release(await process.ledger.reserve(terms(), timeout_seconds=20))

    assert process.observer.works[before:] == [1, 1]
