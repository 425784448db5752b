"""The chores that one process does for all."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs
from tollhouse_server.ledger.connections import create_pool
from tollhouse_server.ledger.housekeeping import Housekeeping
from tollhouse_server.telemetry.metrics import Metrics

from tests.drivers.ledger import LedgerProcess, LedgerView, settled, terms
from tests.drivers.postgres import TestDatabase

if TYPE_CHECKING:
    from tollhouse_server.ledger.connections import Pool

_PARTITIONS = """
SELECT inhrelid::regclass::text FROM pg_inherits
WHERE inhparent = 'usage_record'::regclass AND inhrelid::regclass::text ~ '_[0-9]{4}_[0-9]{2}$' ORDER BY 1
"""


async def test_chores_count_what_is_open_forget_old_request_ids_and_make_partitions_ahead(
    process: LedgerProcess, view: LedgerView, fresh_database: TestDatabase
) -> None:
    """One round as the application's role: gauges set, ids of two days ago free, three months of partitions."""
    old = await process.ledger.reserve(terms(), timeout_seconds=5)
    await process.ledger.settle(old, settled())
    await view.connection.execute("UPDATE request_key SET day = day - 2")
    await process.ledger.reserve(terms(), timeout_seconds=5)
    partitions = await view.connection.fetch(_PARTITIONS)
    await view.connection.execute(f"DROP TABLE {partitions[-1][0]}")
    registry = CollectorRegistry()
    pool = await create_pool(fresh_database.app_dsn)

    async with asyncio.TaskGroup() as group:
        chores = group.create_task(Housekeeping(pool, Metrics(registry)).run())
        async with asyncio.timeout(5):
            while not registry.get_sample_value("tollhouse_in_flight_attempts"):  # noqa: ASYNC110 - gauges wake nobody
                await asyncio.sleep(0.01)
        chores.cancel()
    await pool.close()

    assert registry.get_sample_value("tollhouse_in_flight_attempts") == 1
    assert registry.get_sample_value("tollhouse_suspense_attempts") == 0
    assert await view.count("request_key") == 1
    assert len(partitions) == 3
    assert await view.connection.fetch(_PARTITIONS) == partitions


@pytest.fixture
async def pool(fresh_database: TestDatabase) -> "AsyncIterator[Pool]":
    """The application role's connections."""
    pool = await create_pool(fresh_database.app_dsn)
    yield pool
    await pool.close()


def housekeeping(pool: "Pool") -> Housekeeping:
    """Return the chores."""
    return Housekeeping(pool, Metrics(CollectorRegistry()))


async def add_counters(view: LedgerView, window: str, *ages: timedelta, **values: int) -> None:
    """Make a limit and its counters that began so long ago."""
    limit_id = await view.add_limit(f"limit-{window}-{len(ages)}-{values}".lower(), "tenants/acme", "COST", window, 10)
    for age in ages:
        await view.connection.execute(
            "INSERT INTO counter (tenant_id, limit_id, window_start, held, settled) "
            "VALUES ('acme', $1, now() - $2::interval, $3, 5)",
            limit_id,
            age,
            values.get("held", 0),
        )


@pytest.mark.parametrize(
    ("window", "kept", "gone"),
    [
        ("MINUTE", timedelta(hours=1), timedelta(hours=1, minutes=12)),
        ("ROLLING_10_MINUTES", timedelta(hours=1), timedelta(hours=1, minutes=12)),
        ("HOUR", timedelta(days=2), timedelta(days=2, hours=2)),
        ("DAY", timedelta(days=40), timedelta(days=42)),
        ("MONTH", timedelta(days=13 * 30), timedelta(days=437)),
        ("FISCAL_MONTH", timedelta(days=13 * 30), timedelta(days=437)),
    ],
)
async def test_counters_of_windows_that_are_long_over_are_forgotten(
    view: LedgerView, pool: "Pool", window: str, kept: timedelta, gone: timedelta
) -> None:
    """Those that people still look at stay; what anything is held on stays whatever its age, and so does a total."""
    await add_counters(view, window, timedelta(0), kept, gone, gone * 2)
    await add_counters(view, window, gone * 3, held=1)
    await view.connection.execute(
        "INSERT INTO counter (tenant_id, limit_id, window_start) SELECT 'acme', limit_id, 'epoch' FROM usage_limit"
    )

    await housekeeping(pool).clean()

    rows = await view.connection.fetch("SELECT now() - window_start AS age FROM counter ORDER BY window_start DESC")
    ages = [row["age"] for row in rows if row["age"] < timedelta(days=10_000)]
    assert [round(age / timedelta(minutes=1)) for age in ages] == [
        round(age / timedelta(minutes=1)) for age in (timedelta(0), kept, gone * 3)
    ]
    assert len(rows) == 5


async def test_a_counter_that_an_attempt_in_flight_may_name_is_kept(
    process: LedgerProcess, view: LedgerView, pool: "Pool"
) -> None:
    """Its hold may be 0, so the row does not show it; the attempt's age does."""
    await process.ledger.reserve(terms(), timeout_seconds=5)
    await view.connection.execute("UPDATE attempt SET dispatched_at = now() - interval '5 hours'")
    await add_counters(view, "MINUTE", timedelta(hours=4), timedelta(hours=5, seconds=30), timedelta(hours=6))

    await housekeeping(pool).clean()

    assert await view.count("counter") == 2


async def test_cleaning_neither_waits_for_what_a_tick_has_locked_nor_forgets_it(view: LedgerView, pool: "Pool") -> None:
    """More than a batch goes at once; the locked one in the next round."""
    await add_counters(view, "MINUTE", *(timedelta(hours=2, seconds=n) for n in range(600)))
    chores = housekeeping(pool)
    tick = view.connection.transaction()
    await tick.start()
    await view.connection.execute(
        "SELECT FROM counter WHERE window_start = (SELECT min(window_start) FROM counter) FOR NO KEY UPDATE"
    )

    async with asyncio.timeout(5):
        await chores.clean()
    left = await view.count("counter")
    await tick.rollback()
    await chores.clean()

    assert (left, await view.count("counter")) == (1, 0)


async def test_old_alerts_are_forgotten(view: LedgerView, pool: "Pool") -> None:
    """After thirteen months."""
    now = datetime.now(UTC)
    for days in (390, 400):
        await view.connection.execute(
            "INSERT INTO limit_alert (tenant_id, limit_id, window_start, kind, settled, amount, raised_at) "
            "VALUES ('acme', 1, $1, 'ABOVE_HOLD', 1, 1, $1)",
            now - timedelta(days=days),
        )

    await housekeeping(pool).clean()

    assert await view.count("limit_alert") == 1


async def test_a_day_whose_rows_stand_in_the_default_partition_stays_there(
    process: LedgerProcess, view: LedgerView, pool: "Pool"
) -> None:
    """Nothing fails and no row is touched; other partitions are made, and that day's keys are found as before."""
    today = await view.connection.fetchval("SELECT 'request_key_' || to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM_DD')")
    in_two_days = await view.connection.fetchval(
        "SELECT 'request_key_' || to_char(now() AT TIME ZONE 'UTC' + interval '2 days', 'YYYY_MM_DD')"
    )
    last_month = (await view.connection.fetch(_PARTITIONS))[-1][0]
    for partition in (today, in_two_days, last_month):
        await view.connection.execute(f"DROP TABLE IF EXISTS {partition}")
    reservation = await process.ledger.reserve(terms(), timeout_seconds=5)
    await process.ledger.settle(reservation, settled())
    await view.connection.execute(
        "UPDATE usage_record SET settled_at = date_trunc('month', now()) + interval '2 months 1 day'"
    )

    with capture_logs() as logs:
        assert await housekeeping(pool).clean()

    names = [row[0] for row in await view.connection.fetch("SELECT inhrelid::regclass::text FROM pg_inherits")]
    assert (today in names, in_two_days in names, last_month in names) == (False, True, False)
    assert await view.count("request_key_default") == 1
    assert await view.count("usage_record_default") == 1
    assert [log["event"] for log in logs] == ["partitions_not_made"]
    assert logs[0]["missing"] == [today, last_month]


async def test_a_chore_that_postgresql_refuses_stops_no_other_and_is_told(
    process: LedgerProcess, view: LedgerView, pool: "Pool"
) -> None:
    """A dead worker of long ago is forgotten although partitions cannot be made; the error is in the log."""
    await view.connection.execute("REVOKE EXECUTE ON FUNCTION create_request_partition(date) FROM tollhouse_ledger")
    await view.connection.execute("UPDATE worker SET state = 'DEAD', heartbeat_at = now() - interval '2 days'")

    with capture_logs() as logs:
        assert await housekeeping(pool).clean()

    assert await view.count("worker") == 0
    assert [(log["log_level"], log["chore"], log["error"]) for log in logs if log["event"] == "chore_failed"] == [
        ("error", "request partitions", "InsufficientPrivilegeError")
    ]
