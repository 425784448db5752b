"""What is being entered while its month is previewed and closed for the first time is in the statement, or refused."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from tollhouse.admin.v1 import chargeback_pb2 as pb
from tollhouse_server.api.services.chargeback_service import ChargebackService
from tollhouse_server.database.roles import AS_CONTROL

from tests.drivers.books import Books
from tests.drivers.postgres import TestDatabase
from tests.integration.api.callers import by
from tests.integration.chargeback.test_close import ANN, NAME, closed, roll_up, service

__all__ = ["service"]

_ENTRIES = {
    "adjustment": "INSERT INTO adjustment (tenant_id, adjustment_id, month, amount_nanos, reason, created_by)"
    " VALUES ('acme', 'late', '2026-05', 7, 'late', 'eve')",
    "rule": "INSERT INTO charge_rule (tenant_id, rule_id, scope, kind, amount_nanos, reason, starts_on, creator)"
    " VALUES ('acme', 'late', 'tenants/acme', 'FIXED', 7, 'late', '2026-05-01', 'eve')",
    "rule of the platform": "INSERT INTO charge_rule (tenant_id, rule_id, scope, kind, amount_nanos, reason, starts_on,"
    " creator) VALUES ('platform', 'late', 'platform', 'FIXED', 7, 'late', '2026-05-01', 'eve')",
    "shared cost": "INSERT INTO shared_cost (tenant_id, cost_id, display_name, kind, amount_nanos, method, reason,"
    " starts_on, creator) VALUES ('acme', 'late', 'x', 'OTHER', 7, 'EVENLY', 'late', '2026-05-01', 'eve')",
}

_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.fixture
async def somebody(fresh_database: TestDatabase) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    """A connection as the application's, with a transaction that is under way."""
    connection = await asyncpg.connect(fresh_database.app_dsn, server_settings=dict(AS_CONTROL))
    yield connection
    await connection.close()


@pytest.mark.parametrize("entry", _ENTRIES)
async def test_an_entry_under_way_is_waited_for_though_its_month_has_no_row_yet(
    books: Books,
    service: ChargebackService,
    somebody: "asyncpg.Connection[asyncpg.Record]",
    entry: str,
) -> None:
    """There is nothing to lock before the first preview, and yet nothing slips in between two looks."""
    await roll_up(books)
    under_way = somebody.transaction()
    await under_way.start()
    await somebody.execute(_ENTRIES[entry])

    closing = asyncio.create_task(closed(books, service))
    while not closing.done() and not await books.view.connection.fetchval(_WAITING):  # noqa: ASYNC110 - the database tells nobody
        await asyncio.sleep(0)
    await under_way.commit()
    await closing

    stated = await service.get_statement(pb.GetStatementRequest(parent="tenants/acme", month=NAME[-7:]), by(ANN))
    assert sum(one.amount.nanos for one in stated.entries) == 7
