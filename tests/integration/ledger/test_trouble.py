"""Broken batches, stores that refuse, commits in doubt: nothing is lost, nothing twice, nobody is told wrong things."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from tollhouse_server.errors import DuplicateRequest, LimitExceeded, StoreUnavailable
from tollhouse_server.ledger import connections, store
from tollhouse_server.ledger.terms import (
    NOTHING,
    Amounts,
    CallTerms,
    RecordKind,
    Reservation,
    Settlement,
    suspended,
)
from tollhouse_server.ledger.tick import Tick
from tollhouse_server.ledger.works import Batch, ReserveWork

from tests.drivers.ledger import SCOPE, LedgerProcess, LedgerView, ledger_process, settled, terms
from tests.drivers.postgres import TestDatabase

REFUSED = Settlement(kind=RecordKind.REFUSED, actual=NOTHING, outcome="HTTP_503")


def resubmit(process: LedgerProcess, asked: CallTerms) -> "asyncio.Future[Reservation]":
    """Queue a reservation as a tick does that does not know whether its commit happened."""
    work = ReserveWork(terms=asked, verdict=asyncio.get_running_loop().create_future(), uncertain=True)
    process.tick.submit_reserve(work)
    return work.verdict


@asynccontextmanager
async def transaction(dsn: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """Another session's transaction, which is rolled back at the end if it was not committed."""
    connection = await asyncpg.connect(dsn)
    own = connection.transaction()
    await own.start()
    try:
        yield connection
    finally:
        await connection.close()


async def until(condition: Callable[[], Any]) -> None:
    """Wait until an awaitable condition is true."""
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110 - another process's state, which tells nobody
            await asyncio.sleep(0.02)


async def test_what_was_told_of_a_broken_batch_is_not_carried_again(
    process: LedgerProcess, view: LedgerView, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch is carried singly because one work spoils it, and an outage hits between the singles."""
    limit = await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 1000)
    commit, sizes = Tick._commit_once, []

    async def breaking(tick: Tick, lane: Any, batch: Batch) -> None:
        sizes.append(len(batch))
        if sizes == [2]:
            raise ValueError("one of them cannot be written")
        if sizes == [2, 1, 1]:
            raise StoreUnavailable(detail="cut")
        await commit(tick, lane, batch)

    monkeypatch.setattr(Tick, "_commit_once", breaking)
    one, two = await asyncio.gather(*(process.ledger.reserve(terms(), timeout_seconds=10) for _ in range(2)))
    await process.ledger.drain()
    await process.ledger.settle(one, settled(60))
    await process.ledger.settle(two, settled(70))

    assert sorted(await view.records()) == [("SETTLED", 60), ("SETTLED", 70)]
    assert await view.counter(limit) == (0, 130)


async def test_a_database_that_only_reads_loses_no_settlement(
    process: LedgerProcess, view: LedgerView, fresh_database: TestDatabase
) -> None:
    """After a fail-over the old primary answers, and refuses every write: an outage, not a defect of a settlement."""
    limit = await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 1000)
    reservation = await process.ledger.reserve(terms(), timeout_seconds=10)

    async def only_reads(switch: str) -> None:
        await view.connection.execute(
            f'ALTER DATABASE "{fresh_database.name}" SET default_transaction_read_only = {switch}'
        )
        await view.connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'tollhouse-ledger' AND datname = current_database()"
        )

    await only_reads("on")
    settling = asyncio.create_task(process.ledger.settle(reservation, settled(60)))
    await until(lambda: _seen(process, "ReadOnlySQLTransactionError"))
    await only_reads("off")
    await settling

    assert await view.records() == [("SETTLED", 60)]
    assert await view.counter(limit) == (0, 60)


async def _seen(process: LedgerProcess, failure: str) -> bool:
    return failure in process.observer.failures


async def test_settlements_do_not_wait_for_limits_to_stand_still(
    process: LedgerProcess, view: LedgerView, fresh_database: TestDatabase
) -> None:
    """A bulk import changes limits all the time, and every tick finds them changed."""
    limit = await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 10**9)
    calls = [await process.ledger.reserve(terms(), timeout_seconds=10) for _ in range(20)]
    importing = await asyncpg.connect(fresh_database.root_dsn)

    async def import_limits() -> None:
        while True:
            await importing.execute("UPDATE epoch SET value = value + 1 WHERE topic = 'limits'")

    async def end(call: Reservation) -> None:
        await asyncio.gather(
            process.ledger.settle(call, settled(60)),
            process.ledger.reserve(terms(), timeout_seconds=0.5),
            return_exceptions=True,
        )

    task = asyncio.create_task(import_limits())
    try:
        await asyncio.gather(*(end(call) for call in calls))
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await importing.close()

    records = await view.records()
    assert records.count(("SETTLED", 60)) == 20
    held, spent = await view.counter(limit)
    assert (held, spent) == (100 * await view.count("attempt"), 20 * 60)
    outcomes = await view.connection.fetch("SELECT DISTINCT outcome FROM usage_record WHERE kind = 'SETTLED'")
    assert [row["outcome"] for row in outcomes] == ["SERVED"]


async def test_a_top_up_is_judged_by_limits_even_while_they_change(
    view: LedgerView, fresh_database: TestDatabase
) -> None:
    """One lane waits for a row; the other learns that limits have changed, and both forget."""
    limit = await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 1000)
    async with ledger_process(fresh_database.app_dsn, lanes=2) as process:
        await _grow_while_limits_change(process, view, fresh_database)

    assert await view.counter(limit) == (900, 0)


async def _grow_while_limits_change(process: LedgerProcess, view: LedgerView, fresh_database: TestDatabase) -> None:
    await view.connection.execute("INSERT INTO tenant (tenant_id, time_zone) VALUES ('other', 'UTC')")
    reservation = await process.ledger.reserve(terms(cost_nanos=900), timeout_seconds=10)

    async with transaction(fresh_database.root_dsn) as blocking:
        await blocking.execute("SELECT * FROM attempt FOR UPDATE")
        growing = asyncio.create_task(process.ledger.top_up(reservation, Amounts(cost_nanos=5000), timeout_seconds=20))
        await asyncio.sleep(0.2)
        await view.announce()
        elsewhere = replace(SCOPE, tenant_id="other")
        await process.ledger.reserve(terms(scope=elsewhere), timeout_seconds=10)

    with pytest.raises(LimitExceeded):
        await growing


async def test_a_top_up_counts_all_of_a_rolling_window(process: LedgerProcess, view: LedgerView) -> None:
    """An attempt of two minutes ago asks for more; what was held since counts too."""
    limit = await view.add_limit("budget", "tenants/acme", "COST", "ROLLING_10_MINUTES", 1000)
    reservation = await process.ledger.reserve(terms(cost_nanos=100), timeout_seconds=10)
    await view.connection.execute("DELETE FROM counter WHERE held = 0")
    await view.connection.execute("UPDATE counter SET window_start = window_start - interval '2 minutes'")
    hold = reservation.holds[0]
    earlier = hold._replace(key=hold.key._replace(window_start=hold.key.window_start - 120))
    await process.ledger.reserve(terms(cost_nanos=900), timeout_seconds=10)

    with pytest.raises(LimitExceeded):
        await process.ledger.top_up(reservation._replace(holds=(earlier,)), Amounts(cost_nanos=500), timeout_seconds=10)

    assert await view.counter(limit) == (1000, 0)


@pytest.mark.parametrize("first", [True, False])
async def test_a_call_that_was_swept_before_anyone_knew_of_it_is_given_back(
    process: LedgerProcess, view: LedgerView, first: bool
) -> None:
    """Its commit was in doubt and had happened; while the outage lasted the sweeper took its worker for dead."""
    limit = await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 1000)
    asked = terms(first=first)
    swept = await process.ledger.reserve(asked, timeout_seconds=10)
    await process.ledger.settle(swept, suspended(swept))

    with pytest.raises(StoreUnavailable, match="before the call was sent"):
        await resubmit(process, asked)
    await process.ledger.drain()

    assert await view.records() == [("SUSPENSE", 100), ("ADJUSTMENT", -100)]
    assert await view.counter(limit) == (0, 0)
    assert await view.count("suspense WHERE resolved_at IS NULL") == 0


_ROW = """
INSERT INTO attempt (tenant_id, attempt_id, request_id, worker_epoch, dispatched_at, terms, holds)
VALUES ('acme', $1, $2, 1, now(), '{"department_path": ["a"], "project_id": "p", "credential_id": "c", "method": "m",
    "principal_id": "p", "tier": "t", "model": "m", "account_id": "a", "labels": {}, "price_version": 1,
    "ceiling": [1, 1, 1, 0, 100]}', '[]')
"""


@pytest.mark.parametrize("is_waited_for", [True, False])
async def test_a_commit_that_is_still_under_way_is_waited_for(
    process: LedgerProcess, view: LedgerView, fresh_database: TestDatabase, is_waited_for: bool
) -> None:
    """A call without limits locks no counter that it could wait at; its attempt must not be overlooked."""
    asked = terms()

    async with transaction(fresh_database.root_dsn) as old:
        await old.execute(_ROW, asked.attempt_id, asked.request_id)
        verdict = resubmit(process, asked)
        await asyncio.sleep(0.2)
        if not is_waited_for:
            verdict.cancel()
        await old.execute("COMMIT")
    if is_waited_for:
        assert (await verdict).terms.attempt_id == asked.attempt_id
    await process.ledger.drain()

    assert await view.count("attempt") == int(is_waited_for)


async def test_a_server_that_stands_still_with_its_counters_locked_keeps_the_others_for_seconds_only(
    process: LedgerProcess, view: LedgerView, fresh_database: TestDatabase
) -> None:
    """Its machine was frozen between a look and the writing; PostgreSQL takes its connection away."""
    limit = await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 1000)
    await process.ledger.release(await process.ledger.reserve(terms(), timeout_seconds=10))
    frozen = await connections.connect(fresh_database.app_dsn)
    await frozen.execute("BEGIN")
    await frozen.execute("SELECT ledger_now() FROM counter FOR UPDATE")

    await process.ledger.reserve(terms(), timeout_seconds=20)

    assert await view.counter(limit) == (100, 0)
    frozen.terminate()


async def test_a_call_whose_commit_nobody_heard_of_is_admitted_and_once(
    process: LedgerProcess, view: LedgerView, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is lost when all is written: a planned tick is committed then, one that looked is rolled back."""
    limit = await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 1000)
    before = await process.ledger.reserve(terms(), timeout_seconds=10)
    write, losses = store.write, list[datetime]()

    async def written_unheard(*args: Any, **keywords: Any) -> datetime:
        at = await write(*args, **keywords)
        if not losses:
            losses.append(at)
            raise asyncpg.ConnectionDoesNotExistError
        return at

    monkeypatch.setattr(store, "write", written_unheard)

    reservation, _ = await asyncio.gather(
        process.ledger.reserve(terms(), timeout_seconds=10), process.ledger.settle(before, settled(60))
    )

    assert losses
    assert await view.counter(limit) == (100, 60)
    assert await view.connection.fetchval("SELECT attempt_id FROM attempt") == reservation.terms.attempt_id


async def test_an_error_after_the_commit_takes_no_admission_back(process: LedgerProcess, view: LedgerView) -> None:
    """How the earlier call of a duplicate stands cannot be read; the others of the batch are admitted all the same."""
    taken = uuid4()
    await process.ledger.reserve(terms(request_id=taken), timeout_seconds=10)
    await view.connection.execute("REVOKE SELECT ON usage_record FROM tollhouse_ledger")

    repeated, other = await asyncio.gather(
        process.ledger.reserve(terms(request_id=taken), timeout_seconds=10),
        process.ledger.reserve(terms(), timeout_seconds=10),
        return_exceptions=True,
    )

    assert isinstance(repeated, DuplicateRequest)
    assert repeated.state == "UNKNOWN"
    assert isinstance(other, Reservation)
    assert await view.count("attempt") == 2


async def test_a_refused_call_does_not_take_its_request_id(process: LedgerProcess, view: LedgerView) -> None:
    """Two calls with one id in one batch and no room: both are told so, not that one of them was dispatched."""
    await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 50)
    request_id: UUID = uuid4()

    results = await asyncio.gather(
        *(process.ledger.reserve(terms(request_id=request_id), timeout_seconds=10) for _ in range(2)),
        return_exceptions=True,
    )

    assert [type(result) for result in results] == [LimitExceeded, LimitExceeded]
    assert await view.count("request_key") == 0


async def test_a_duplicate_is_told_of_the_attempt_that_served(process: LedgerProcess, view: LedgerView) -> None:
    """The first target refused, the second served: the call is settled, and must not be paid for again."""
    await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 1000)
    request_id = uuid4()
    first = await process.ledger.reserve(terms(request_id=request_id), timeout_seconds=10)
    await process.ledger.settle(first, REFUSED)
    second = await process.ledger.reserve(
        terms(request_id=request_id, first=False, fingerprint=b""), timeout_seconds=10
    )
    await process.ledger.settle(second, settled(100))

    with pytest.raises(DuplicateRequest) as repeated:
        await process.ledger.reserve(terms(request_id=request_id), timeout_seconds=10)

    assert repeated.value.state == "SETTLED"


async def test_suspense_names_the_process_that_sent_the_attempt(
    process: LedgerProcess, view: LedgerView, fresh_database: TestDatabase
) -> None:
    """Not the one that swept it."""
    async with ledger_process(fresh_database.app_dsn) as dead:
        await dead.ledger.reserve(terms(), timeout_seconds=10)
        epoch = dead.epoch.current
    await view.connection.execute("UPDATE worker SET state = 'DEAD' WHERE epoch = $1", epoch)

    await process.sweeper.sweep()

    assert await view.connection.fetchval("SELECT worker_epoch FROM suspense") == epoch
    assert await view.connection.fetchval("SELECT worker_epoch FROM usage_record") == epoch


async def test_a_charge_that_no_column_can_hold_goes_to_suspense(process: LedgerProcess, view: LedgerView) -> None:
    """It cannot be booked as it is; it must not stay held until the process dies."""
    limit = await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 1000)
    reservation = await process.ledger.reserve(terms(), timeout_seconds=10)

    await process.ledger.settle(reservation, settled(2**63))

    assert await view.records() == [("SUSPENSE", 100)]
    assert await view.connection.fetchval("SELECT cause FROM suspense") == "UNBOOKABLE"
    assert await view.counter(limit) == (0, 100)


async def test_a_drain_waits_for_reservations_that_nobody_waits_for(
    process: LedgerProcess, view: LedgerView, fresh_database: TestDatabase
) -> None:
    """A call is cancelled while its admission is being written: the process must not end before it is given back."""
    limit = await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 1000)
    await process.ledger.release(await process.ledger.reserve(terms(), timeout_seconds=10))

    async with transaction(fresh_database.root_dsn) as blocking:
        await blocking.execute("LOCK TABLE request_key IN SHARE MODE")
        call = asyncio.create_task(process.ledger.reserve(terms(), timeout_seconds=20))
        await asyncio.sleep(0.2)
        call.cancel()
        draining = asyncio.create_task(process.ledger.drain())
        await asyncio.sleep(0.1)
        is_drained_early = draining.done()
    await draining

    assert not is_drained_early
    assert await view.counter(limit) == (0, 0)
    assert await view.count("attempt") == 0
