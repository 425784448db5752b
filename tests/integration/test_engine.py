"""What the engine says of what PostgreSQL refuses."""

import pytest
from sqlalchemy.exc import DBAPIError
from tollhouse_server.database.engine import Database
from tollhouse_server.database.rows import run_sql

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
