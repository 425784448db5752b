"""Many works at once, commits that fail, locks that wait, callers who go: no charge is lost and no hold stays."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import asyncpg
import pytest
from tollhouse_server.errors import DuplicateRequest, RequestIdReused
from tollhouse_server.ledger.terms import Reservation

from tests.drivers.ledger import LedgerProcess, LedgerView, ledger_process, settled, terms
from tests.drivers.postgres import TestDatabase

_CUT = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name = 'tollhouse-ledger' AND wait_event_type = 'Lock'
"""
_FAILING_COMMIT = """
CREATE FUNCTION fail_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not committed'; END $$;
CREATE CONSTRAINT TRIGGER fail_commit AFTER INSERT ON attempt DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION fail_commit();
"""


BEFORE_THE_VERDICT = "SELECT * FROM counter FOR UPDATE"
AFTER_THE_VERDICT = "LOCK TABLE request_key IN SHARE MODE"


@asynccontextmanager
async def held_up_ticks(database: TestDatabase, lock: str = BEFORE_THE_VERDICT) -> AsyncIterator[None]:
    """Have whatever tick comes wait for the end of the block: for its counters, or to write what it has decided."""
    blocker = await asyncpg.connect(database.root_dsn)
    try:
        async with blocker.transaction():
            await blocker.execute(lock)
            yield
    finally:
        await blocker.close()


async def admitted(process: LedgerProcess, count: int) -> list[Reservation]:
    """Reserve `count` calls at once."""
    return await asyncio.gather(*(process.ledger.reserve(terms(), timeout_seconds=20) for _ in range(count)))


async def test_a_thousand_settlements_at_once_are_all_booked(process: LedgerProcess, view: LedgerView) -> None:
    """More than fit into one tick: none is left behind."""
    limit = await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 10**9)
    reservations = await admitted(process, 1000)

    async with asyncio.timeout(20):
        await asyncio.gather(*(process.ledger.settle(reservation, settled(60)) for reservation in reservations))

    assert await view.counter(limit) == (0, 60_000)
    assert await view.records() == [("SETTLED", 60)] * 1000


async def test_a_drain_waits_until_everything_is_durable(
    process: LedgerProcess, view: LedgerView, fresh_database: TestDatabase
) -> None:
    """A process that is told to stop while the database is slow still books what it owes."""
    await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 10**9)
    reservations = await admitted(process, 50)

    async with asyncio.TaskGroup() as group:
        async with held_up_ticks(fresh_database):
            for reservation in reservations:
                group.create_task(process.ledger.settle(reservation, settled(60)))
            await asyncio.sleep(0.05)
            drained = group.create_task(process.ledger.drain())
            await asyncio.sleep(0.05)
            was_drained_early = drained.done()
        await drained
        booked = len(await view.records())

    assert not was_drained_early
    assert booked == 50


@pytest.mark.parametrize("lock", [BEFORE_THE_VERDICT, AFTER_THE_VERDICT])
async def test_callers_who_give_up_at_any_moment_leave_no_hold(
    process: LedgerProcess, view: LedgerView, fresh_database: TestDatabase, lock: str
) -> None:
    """They go while their tick is at work: what it admits after all is given back."""
    limit = await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 10**9)
    await process.ledger.release((await admitted(process, 1))[0])
    async with held_up_ticks(fresh_database, lock):
        callers = [asyncio.create_task(process.ledger.reserve(terms(), timeout_seconds=20)) for _ in range(20)]
        await asyncio.sleep(0.1)
        for caller in callers:
            caller.cancel()
        results = await asyncio.gather(*callers, return_exceptions=True)

    # A call that is served after them: then their tick has ended, and what it gave back is queued.
    await process.ledger.release((await admitted(process, 1))[0])
    await process.ledger.drain()

    assert {type(result) for result in results} == {asyncio.CancelledError}
    assert await view.counter(limit) == (0, 0)
    assert await view.count("attempt") == 0


@pytest.mark.parametrize("lock", [BEFORE_THE_VERDICT, AFTER_THE_VERDICT])
async def test_what_a_lost_connection_interrupts_is_done_again(
    process: LedgerProcess, view: LedgerView, fresh_database: TestDatabase, lock: str
) -> None:
    """The tick is cut while it is at work; its callers are admitted and booked all the same, once."""
    limit = await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 10**9)
    (before,) = await admitted(process, 1)

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        async with held_up_ticks(fresh_database, lock):
            settlement = group.create_task(process.ledger.settle(before, settled(60)))
            calls = group.create_task(admitted(process, 5))
            while not await view.connection.fetch(_CUT):  # noqa: ASYNC110 - a lock wakes nobody who looks at it
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
        await asyncio.gather(settlement, calls)

    assert process.observer.failures
    assert await view.counter(limit) == (500, 60)
    assert await view.records() == [("SETTLED", 60)]
    assert await view.count("attempt") == 5


async def test_a_commit_that_fails_admits_nobody(process: LedgerProcess, view: LedgerView) -> None:
    """The verdict is told after the commit, and the next call is served."""
    limit = await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 1000)
    await view.connection.execute(_FAILING_COMMIT)

    with pytest.raises(asyncpg.RaiseError):
        await process.ledger.reserve(terms(), timeout_seconds=5)
    after = await view.counter(limit), await view.count("attempt"), await view.count("request_key")
    await view.connection.execute("DROP TRIGGER fail_commit ON attempt")
    await process.ledger.reserve(terms(), timeout_seconds=5)

    assert after == ((0, 0), 0, 0)
    assert await view.counter(limit) == (100, 0)


async def test_a_charge_whose_attempt_was_lost_is_booked_all_the_same(process: LedgerProcess, view: LedgerView) -> None:
    """A fail-over may lose the last commits; what a call has cost meanwhile is real."""
    limit = await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 1000)
    (reservation,) = await admitted(process, 1)
    await view.connection.execute("DELETE FROM attempt")
    await view.connection.execute("UPDATE counter SET held = 0")

    await process.ledger.settle(reservation, settled(60))

    assert await view.counter(limit) == (0, 60)
    assert await view.records() == [("SETTLED", 60)]


async def test_a_settlement_that_is_repeated_later_books_nothing(process: LedgerProcess, view: LedgerView) -> None:
    """It finds its own record, whether the first was told to anyone or not; another call's hold stays as it is."""
    limit = await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 1000)
    reservation, _ = await admitted(process, 2)

    for _ in range(3):
        await process.ledger.settle(reservation, settled(60))

    assert await view.counter(limit) == (100, 60)
    assert await view.records() == [("SETTLED", 60)]


async def test_a_request_id_of_yesterday_is_still_taken(process: LedgerProcess, view: LedgerView) -> None:
    """It is remembered for 24 hours, whatever the calendar says; a new id beside it is served."""
    request_id = uuid4()
    await process.ledger.release(await process.ledger.reserve(terms(request_id=request_id), timeout_seconds=5))
    await view.connection.execute("DELETE FROM request_key")
    await view.connection.execute(
        "INSERT INTO request_key (tenant_id, request_id, day, fingerprint, attempt_id) "
        "SELECT 'acme', $1, (now() AT TIME ZONE 'UTC')::date - 1, 'same', attempt_id FROM usage_record",
        request_id,
    )

    asked = (process.ledger.reserve(terms(request_id=each), timeout_seconds=5) for each in (request_id, uuid4()))
    answers = await asyncio.gather(*asked, return_exceptions=True)

    assert [type(answer) for answer in answers] == [DuplicateRequest, Reservation]


async def test_a_request_id_that_comes_twice_at_once_is_told_from_a_mix_up(
    process: LedgerProcess, view: LedgerView
) -> None:
    """Three calls with one id in one tick: the first is admitted, its copy a duplicate, the other body a mistake."""
    request_id = uuid4()
    asked = [terms(request_id=request_id, fingerprint=body) for body in (b"same", b"same", b"other")]

    first, copy, other = await asyncio.gather(
        *(process.ledger.reserve(each, timeout_seconds=5) for each in asked), return_exceptions=True
    )

    assert isinstance(first, Reservation)
    assert isinstance(copy, DuplicateRequest)
    assert isinstance(other, RequestIdReused)
    assert await view.count("attempt") == 1


async def test_servers_that_look_at_the_same_moment_share_one_budget(
    process: LedgerProcess, view: LedgerView, fresh_database: TestDatabase
) -> None:
    """While one has found room and not yet written what it takes, the other waits to look."""
    limit = await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 100)
    await process.ledger.release((await admitted(process, 1))[0])

    async with ledger_process(fresh_database.app_dsn, looks_first=True) as other:
        async with held_up_ticks(fresh_database, AFTER_THE_VERDICT):
            asked = [asyncio.create_task(each.ledger.reserve(terms(), timeout_seconds=20)) for each in (process, other)]
            await asyncio.sleep(0.2)
        answers = await asyncio.gather(*asked, return_exceptions=True)

    assert sorted(type(answer).__name__ for answer in answers) == ["LimitExceeded", "Reservation"]
    assert await view.counter(limit) == (100, 0)


async def test_servers_that_look_at_the_same_moment_admit_a_request_id_once(
    process: LedgerProcess, view: LedgerView, fresh_database: TestDatabase
) -> None:
    """Both have found the id free before either claims it; who comes second holds nothing."""
    limit = await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 1000)
    await process.ledger.release((await admitted(process, 1))[0])
    request_id = uuid4()

    async with ledger_process(fresh_database.app_dsn, looks_first=True) as other:
        async with held_up_ticks(fresh_database):
            asked = [
                asyncio.create_task(each.ledger.reserve(terms(request_id=request_id), timeout_seconds=20))
                for each in (process, other)
            ]
            await asyncio.sleep(0.2)
        answers = await asyncio.gather(*asked, return_exceptions=True)

    assert sorted(type(answer).__name__ for answer in answers) == ["DuplicateRequest", "Reservation"]
    assert await view.counter(limit) == (100, 0)
    assert await view.count("attempt") == 1


async def test_ticks_that_meet_on_many_counters_do_not_deadlock(
    process: LedgerProcess, view: LedgerView, fresh_database: TestDatabase
) -> None:
    """Three processes reserve and settle on the same thirty limits; none is ever a deadlock's victim."""
    scopes = ("tenants/acme", "tenants/acme/departments/research", "tenants/acme/departments/vision")
    for number in range(30):
        metric = ("COST", "REQUESTS", "OUTPUT_TOKENS")[number % 3]
        await view.add_limit(f"limit-{number}", scopes[number % 3], metric, "MONTH", 10**9)

    async def work(ledger_of: LedgerProcess) -> None:
        for _ in range(15):
            for reservation in await admitted(ledger_of, 3):
                await ledger_of.ledger.settle(reservation, settled(60))

    async with ledger_process(fresh_database.app_dsn) as second, ledger_process(fresh_database.app_dsn) as third:
        processes = (process, second, third)
        await asyncio.gather(*map(work, processes))

    assert [failure for each in processes for failure in each.observer.failures] == []
    assert await view.count("usage_record") == 3 * 15 * 3
