"""What the engine says of what PostgreSQL refuses."""

import pytest
from sqlalchemy.exc import DBAPIError
from tollhouse_server.database.engine import Database
from tollhouse_server.database.rows import run_sql
from tollhouse_server.telemetry.redaction import redacted

from tests.drivers.postgres import TestDatabase


async def test_an_error_has_nothing_of_what_was_bound_to_its_statement(fresh_database: TestDatabase) -> None:
    """It ends up in a log, and what is bound may be somebody's address, or a secret."""
    database = Database(fresh_database.app_dsn, pool_size=1)

    with pytest.raises(DBAPIError) as raised:
        async with database.transaction() as session:
            await run_sql(session, "SELECT 1 / 0 FROM epoch WHERE topic <> :value", {"value": "jo@example.com"})
    await database.close()

    assert "division by zero" in str(raised.value)
    assert "jo@example.com" not in str(raised.value)


async def test_a_log_has_nothing_of_a_row_that_is_refused(fresh_database: TestDatabase) -> None:
    """PostgreSQL quotes it whole in its detail."""
    database = Database(fresh_database.app_dsn, pool_size=1)
    sql = "INSERT INTO content_policy VALUES (:tenant, :keep, 30, '{}', false)"

    with pytest.raises(DBAPIError) as raised:
        async with database.within("acme") as session:
            await run_sql(session, sql, {"tenant": "acme", "keep": "jo@example.com"})
    await database.close()

    assert "jo@example.com" in str(raised.value)
    assert "jo@example.com" not in redacted(str(raised.value))
    assert "content_policy_keep_check" in redacted(str(raised.value))
