"""The records of a month as CSV, copied in slices by two connections: each once, in order, and all of one moment."""

import csv
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import asyncpg
import pytest
from tollhouse_server.chargeback import record_store
from tollhouse_server.chargeback.record_store import share_snapshot, stream_records
from tollhouse_server.database.engine import Database
from tollhouse_server.names import DepartmentName, Scope, TenantName
from tollhouse_server.reporting.periods import Period
from tollhouse_server.reporting.rollup_store import build_next_day
from tollhouse_server.reporting.store import begin_snapshot

from tests.drivers.postgres import TestDatabase
from tests.drivers.recorded_month import MAY, Company, shapes

CALLS = 400
MONTH = Period(start=datetime(2026, 5, 1, tzinfo=UTC), end=datetime(2026, 6, 1, tzinfo=UTC))
ACME = Company(tenant="acme", departments=4)


@pytest.fixture
async def root(fresh_database: TestDatabase) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    """The owner of everything, beside a month of acme."""
    connection = await asyncpg.connect(fresh_database.root_dsn)
    await connection.execute("SELECT create_usage_partition('2026-05-01')")
    await ACME.found(connection)
    await ACME.call(connection, shapes()[:50], calls=CALLS)
    yield connection
    await connection.close()


@pytest.fixture
async def database(root: "asyncpg.Connection[asyncpg.Record]", fresh_database: TestDatabase) -> AsyncIterator[Database]:
    """The same as the server sees it, the first ten days rolled up."""
    database = Database(fresh_database.app_dsn)
    for _ in range(10):
        async with database.transaction() as session:
            await build_next_day(session, ACME.tenant, MAY.replace(month=6, day=1))
    yield database
    await database.close()


async def records(
    database: Database, scope: Scope, meanwhile: Callable[[], Awaitable[None]] | None = None
) -> list[dict[str, str]]:
    """Return what is streamed; `meanwhile` is done when one connection sees its state of the ledger, the other none."""
    async with database.within("acme", begin=begin_snapshot) as session:
        begin = await share_snapshot(session)
        if meanwhile is not None:
            await meanwhile()
        async with database.within("acme", begin=begin) as other:
            text = b"".join([piece async for piece in stream_records([session, other], scope, MONTH)])
    return list(csv.DictReader(io.StringIO(text.decode())))


async def test_each_record_is_streamed_once_in_the_order_of_time(
    database: Database, root: "asyncpg.Connection[asyncpg.Record]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether its day is rolled up or not, and however many slices a day has."""
    monkeypatch.setattr(record_store, "_SLICE_RECORDS", 3)

    found = await records(database, TenantName("acme"))

    expected = await root.fetch("SELECT attempt_id, cost_nanos FROM usage_record ORDER BY settled_at, attempt_id")
    assert len(expected) == CALLS
    assert [(one["attempt_id"], int(one["cost_nanos"])) for one in found] == [
        (str(row["attempt_id"]), row["cost_nanos"]) for row in expected
    ]


async def test_a_department_streams_its_own_records_and_those_below(
    database: Database, root: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    """By the tree at the time of the booking."""
    found = await records(database, DepartmentName("acme", "d0"))

    below = await root.fetchval("SELECT count(*) FROM usage_record WHERE department_path @> ARRAY['d0']")
    assert len(found) == below > 0
    assert all("d0" in one["department_path"].split("/") for one in found)


async def test_both_connections_see_the_same_moment(
    database: Database, root: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    """What is booked while the records stream is in none of the slices."""

    async def book() -> None:
        await ACME.call(root, shapes()[:50], calls=50, seed=2)

    found = await records(database, TenantName("acme"), meanwhile=book)

    assert len(found) == CALLS


async def test_a_connection_that_breaks_ends_the_stream_with_an_error(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of a month must not look like the whole of it."""
    monkeypatch.setattr(
        record_store, "_RECORDS", record_store._RECORDS.replace("SELECT attempt_id", "SELECT 1 / (model = '')::int")
    )

    with pytest.raises(asyncpg.DivisionByZeroError):
        await records(database, TenantName("acme"))


@pytest.mark.parametrize("counts", [(), (1,), (100_000,), (0, 48_001, 16_000)])
def test_slices_follow_upon_each_other_and_are_the_whole_period(counts: tuple[int, ...]) -> None:
    """Days that are rolled up are cut by their records, others by the hour."""
    first = MONTH.start + timedelta(days=2, hours=5)
    days = [
        (Period(start=first + timedelta(days=number), end=first + timedelta(days=number + 1)), count)
        for number, count in enumerate(counts)
    ]

    slices = list(record_store._slices(MONTH, days))

    assert (slices[0].start, slices[-1].end) == (MONTH.start, MONTH.end)
    assert all(before.end == behind.start for before, behind in pairwise(slices))
    cut_by_records = sum(max(1, -(-count // 16_000)) for count in counts)
    assert len(slices) == cut_by_records + (31 - len(counts)) * 24
