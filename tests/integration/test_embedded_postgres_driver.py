"""The databases that integration tests get."""

import asyncpg

from tests.drivers.postgres import TestDatabase


async def test_fresh_database_is_owned_by_owner_and_has_ltree(fresh_database: TestDatabase) -> None:
    """The owner role makes tables with ltree columns without being a superuser."""
    connection = await asyncpg.connect(fresh_database.owner_dsn)

    await connection.execute("CREATE TABLE probe (path ltree)")
    superuser = await connection.fetchval("SHOW is_superuser")

    await connection.close()
    assert superuser == "off"


async def test_fresh_databases_do_not_share_tables(fresh_database: TestDatabase) -> None:
    """What another test wrote is not there."""
    connection = await asyncpg.connect(fresh_database.owner_dsn)

    found = await connection.fetchval("SELECT to_regclass('probe')")

    await connection.close()
    assert found is None
