"""What a diagnosis says of a database that is not as it should be: each failing check says what to type."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
from tollhouse_server.database.engine import Database
from tollhouse_server.operations.checks import postgres
from tollhouse_server.operations.checks.terms import Finding, Outcome

from tests.drivers.postgres import TestDatabase


@dataclass(frozen=True, slots=True)
class Place:
    """As much of what checks look at as these look at."""

    database: Database


@asynccontextmanager
async def looking(place: TestDatabase) -> AsyncIterator[Any]:
    database = Database(place.app_dsn, pool_size=1)
    yield Place(database)
    await database.close()


async def change(place: TestDatabase, *statements: str) -> None:
    connection = await asyncpg.connect(place.owner_dsn)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


async def test_a_database_that_is_well_passes(fresh_database: TestDatabase) -> None:
    """It takes writes, and is at the newest migration."""
    async with looking(fresh_database) as place:
        found = [await postgres.writable(place), await postgres.migrations(place)]

    assert [one.outcome for one in found] == [Outcome.OK, Outcome.OK]


async def test_a_database_that_takes_no_writes_is_told(fresh_database: TestDatabase) -> None:
    """All that reads works, and no call is admitted: without this check everything looks well."""
    name = fresh_database.owner_dsn.rpartition("/")[2].partition("?")[0]
    await change(fresh_database, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')

    async with looking(fresh_database) as place:
        found = await postgres.writable(place)

    assert found.outcome is Outcome.FAILURE
    assert "read only" in found.seen
    assert found.advice


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM alembic_version",
        "DROP TABLE alembic_version",
        "INSERT INTO alembic_version VALUES ('0001')",
        "UPDATE alembic_version SET version_num = '0002'",
    ],
)
async def test_a_schema_that_is_half_there_is_told(fresh_database: TestDatabase, statement: str) -> None:
    """A restore or a migration that did not come to its end."""
    await change(fresh_database, statement)

    async with looking(fresh_database) as place:
        found: Finding = await postgres.migrations(place)

    assert found.outcome is Outcome.FAILURE
    assert "tollhouse-server migrate" in found.advice
