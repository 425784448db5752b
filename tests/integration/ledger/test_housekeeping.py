"""The chores that one process does for all."""

import asyncio

from prometheus_client import CollectorRegistry
from tollhouse_server.ledger.connections import create_pool
from tollhouse_server.ledger.housekeeping import Housekeeping
from tollhouse_server.telemetry.metrics import Metrics

from tests.drivers.ledger import LedgerProcess, LedgerView, settled, terms
from tests.drivers.postgres import TestDatabase

_PARTITIONS = """
SELECT inhrelid::regclass::text FROM pg_inherits
WHERE inhparent = 'usage_record'::regclass AND inhrelid::regclass::text ~ '_[0-9]{4}_[0-9]{2}$' ORDER BY 1
"""


async def test_chores_count_what_is_open_forget_old_request_ids_and_make_partitions_ahead(
    process: LedgerProcess, view: LedgerView, fresh_database: TestDatabase
) -> None:
    """One round as the application's role: gauges set, ids of yesterday free, three months of partitions."""
    old = await process.ledger.reserve(terms(), timeout_seconds=5)
    await process.ledger.settle(old, settled())
    await view.connection.execute("UPDATE request_key SET created_at = now() - interval '25 hours'")
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
