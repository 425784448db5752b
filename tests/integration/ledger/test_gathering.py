"""How many works a tick waits for."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from tollhouse_server.ledger.terms import Reservation

from tests.drivers.ledger import LedgerProcess, LedgerView, ledger_process, terms
from tests.drivers.postgres import TestDatabase

CALLS = 40
TURN_SECONDS = 0.0001
TRIES = 20
ENOUGH = 16


@pytest.fixture
async def process(fresh_database: TestDatabase, view: LedgerView) -> AsyncIterator[LedgerProcess]:
    """One running ledger with one lane, whose memory is warm."""
    async with ledger_process(fresh_database.app_dsn, lanes=1) as process:
        await process.ledger.release(await process.ledger.reserve(terms(), timeout_seconds=5))
        yield process


async def one_a_turn(process: LedgerProcess) -> AsyncIterator["asyncio.Task[Reservation]"]:
    """Start calls in an event loop that is busy: one in each turn, which takes a tenth of a millisecond."""
    for _ in range(CALLS):
        yield asyncio.create_task(process.ledger.reserve(terms(), timeout_seconds=5))
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


async def seconds_of_a_reservation(process: LedgerProcess) -> float:
    """Return what a call waits that comes alone."""
    began_at = time.perf_counter()
    reservation = await process.ledger.reserve(terms(), timeout_seconds=5)
    seconds = time.perf_counter() - began_at
    await process.ledger.release(reservation)
    return seconds


async def test_a_tick_in_a_busy_loop_waits_for_some_works_and_not_for_all(process: LedgerProcess) -> None:
    """Half of the tries may be disturbed: whatever else takes the processor for six milliseconds ends the wait."""
    found = [await works_of_the_first_tick(process) for _ in range(TRIES)]

    assert sorted(found)[TRIES // 2] == ENOUGH, found


async def test_a_tick_in_an_idle_loop_waits_for_nobody(process: LedgerProcess) -> None:
    """The quickest of some took less than a tick waits in a busy loop."""
    assert min([await seconds_of_a_reservation(process) for _ in range(TRIES)]) < 0.006
