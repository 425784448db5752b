"""What the engine says of what PostgreSQL refuses, and how a transaction lasts while its process reckons."""

import asyncio

import pytest
from sqlalchemy.exc import DBAPIError
from tollhouse_server.database import rows
from tollhouse_server.database.engine import Database
from tollhouse_server.database.rows import kept_alive, run_sql

from tests.drivers.postgres import TestDatabase

ADDRESS = "jo@example.com"


async def test_an_error_has_nothing_of_what_was_bound_to_its_statement(fresh_database: TestDatabase) -> None:
    """It ends up in a log, and what is bound may be somebody's address, or a secret."""
    database = Database(fresh_database.app_dsn, pool_size=1)

    with pytest.raises(DBAPIError) as raised:
        async with database.transaction() as session:
            await run_sql(session, "SELECT 1 / 0 FROM epoch WHERE topic <> :value", {"value": ADDRESS})
    await database.close()

    assert "division by zero" in str(raised.value)
    assert ADDRESS not in str(raised.value)


async def test_long_work_does_not_cost_its_transaction(
    fresh_database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL ends transactions that are silent, and one that reckons for a minute would be."""
    monkeypatch.setattr(rows, "_SIGN_OF_LIFE_SECONDS", 0.05)
    database = Database(fresh_database.app_dsn, pool_size=1)

    async with database.transaction() as session:
        await run_sql(session, "SET LOCAL idle_in_transaction_session_timeout = '500ms'")
        answer = await kept_alive(session, asyncio.sleep(1.0, "reckoned"))
        found = (await run_sql(session, "SELECT 1 AS still_there")).one()
    await database.close()

    assert (answer, found.still_there) == ("reckoned", 1)
