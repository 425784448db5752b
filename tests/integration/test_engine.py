"""What the engine says of what PostgreSQL refuses."""

import traceback

import pytest
from sqlalchemy.exc import DBAPIError
from tollhouse_server.database.engine import Database
from tollhouse_server.database.rows import run_sql
from tollhouse_server.telemetry.redaction import redacted

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


async def test_a_log_has_nothing_of_a_row_that_is_refused(fresh_database: TestDatabase) -> None:
    """PostgreSQL quotes it whole in its detail."""
    database = Database(fresh_database.app_dsn, pool_size=1)
    sql = "INSERT INTO content_policy VALUES (:tenant, :keep, 30, '{}', false)"

    with pytest.raises(DBAPIError) as raised:
        async with database.within("acme") as session:
            await run_sql(session, sql, {"tenant": "acme", "keep": ADDRESS})
    await database.close()

    logged = "".join(traceback.format_exception(raised.value))
    assert ADDRESS in logged
    assert ADDRESS not in redacted(logged)
    assert "content_policy_keep_check" in redacted(logged)
