"""Migrations beside traffic: a migration that has to wait for a table keeps nobody else from it for long."""

import asyncio
from contextlib import AsyncExitStack
from unittest.mock import Mock

import asyncpg
import pytest
from alembic import command
from sqlalchemy.exc import DBAPIError
from tollhouse_server.database.engine import Database
from tollhouse_server.database.migrate import config_for, upgrade
from tollhouse_server.database.rows import run_sql
from tollhouse_server.errors import StoreUnavailable

from tests.drivers.postgres import TestDatabase

BEFORE_IT = "0047"
"""The next migration drops a column of `upstream_use`."""

_WAITS = "SELECT count(*) FROM pg_locks WHERE relation = 'upstream_use'::regclass AND NOT granted"
_COLUMN = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'upstream_use'::regclass AND attname = 'suspense_nanos'"


async def test_whoever_comes_after_a_waiting_migration_is_served_before_it(fresh_database: TestDatabase) -> None:
    """A long reading has the table: the migration waits, lets others pass, and is done when the reading ends."""
    await asyncio.to_thread(command.downgrade, config_for(fresh_database.owner_dsn), BEFORE_IT)
    async with AsyncExitStack() as stack:
        long_reader, other = [await asyncpg.connect(fresh_database.root_dsn) for _ in range(2)]
        stack.push_async_callback(other.close)
        await long_reader.execute("BEGIN; LOCK TABLE upstream_use IN ACCESS SHARE MODE")

        migrating = asyncio.create_task(asyncio.to_thread(upgrade, fresh_database.owner_dsn))
        # Whatever goes wrong here, the thread ends: the reading goes first.
        stack.push_async_callback(asyncio.wait, [migrating])
        stack.push_async_callback(long_reader.close)
        async with asyncio.timeout(30):
            while not await long_reader.fetchval(_WAITS):  # noqa: ASYNC110 - PostgreSQL tells nobody
                await asyncio.sleep(0.01)
        served = await asyncio.wait_for(other.fetchval("SELECT count(*) FROM upstream_use"), 20)

        assert served == 0
        assert not migrating.done()

        await long_reader.execute("COMMIT")
        await migrating
        assert await other.fetchval(_COLUMN) == 0


async def test_a_table_that_others_use_all_the_time_is_one_error_that_says_so(
    fresh_database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the last try of the migration raises is told as a fact."""
    holder, database = await asyncpg.connect(fresh_database.root_dsn), Database(fresh_database.app_dsn)
    await holder.execute("SELECT pg_advisory_lock(1)")
    with pytest.raises(DBAPIError) as refused:
        async with database.transaction() as session:
            await run_sql(session, "SET LOCAL lock_timeout = '1ms'")
            await run_sql(session, "SELECT pg_advisory_xact_lock(1)")
    await database.close()
    await holder.close()
    monkeypatch.setattr(command, "upgrade", Mock(side_effect=refused.value))

    with pytest.raises(StoreUnavailable, match="in use by long transactions"):
        upgrade(fresh_database.owner_dsn)
