"""The plans of the ledger's statements: keys are looked up, nothing is read through."""

import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from itertools import product
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from tollhouse_server.database.row_security import LEDGER_RIGHTS
from tollhouse_server.ledger import connections, definition_store, recovery_store, store, threshold_store
from tollhouse_server.ledger.rows import ATTEMPT, ATTEMPT_KEY, GROWN_ATTEMPT, RECORD
from tollhouse_server.ledger.terms import CounterKey
from tollhouse_server.ledger.write_statement import MOVE, Parts, write_sql

from tests.drivers.ledger import LedgerView
from tests.drivers.postgres import TestDatabase

if TYPE_CHECKING:
    from tollhouse_server.ledger.store import Connection

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
TENANTS, LIMITS, MOMENTS = ["acme"], [1], [NOW]
IDS, DAYS = [uuid4()], [NOW.date()]
COUNTERS = [CounterKey("acme", 1, int(NOW.timestamp()))]
KEYED = ATTEMPT_KEY.texts([("acme", IDS[0])])


def parts_of(name: str, parts: Parts) -> tuple[str, tuple[str, list[Any]]]:
    """Return the statement that writes these parts, under a name, with its parameters."""
    arguments: list[Any] = [NOW, 1, 1] if parts.is_planned else []
    arguments += MOVE.texts([(*COUNTERS[0], 1, 1, 1, 1, 1)])
    if parts.ends:
        arguments += [*RECORD.texts([]), *([1, 0, *KEYED] if parts.is_planned else [])]
    if parts.begins:
        arguments += [*ATTEMPT.texts([]), NOW, DAYS, *(DAYS if parts.is_planned else [])]
    return name, (write_sql(parts), arguments + (2 * DAYS if parts.passes_on else []))


STATEMENTS: dict[str, tuple[str, list[Any]]] = {
    "look": (store._LOOK, [*store._COUNTER.texts(COUNTERS), *KEYED, *KEYED, *DAYS, *DAYS]),
    **dict(
        parts_of(f"write {is_planned} {ends} {begins} {passes_on}", Parts(is_planned, ends, begins, passes_on))
        for is_planned, ends, begins, passes_on in product((True, False), repeat=4)
        if begins or not passes_on
    ),
    "claimed_calls": (store._CLAIMED_CALLS, KEYED),
    "load_ended": (recovery_store._LOAD_ENDED, KEYED),
    "end_attempts": (recovery_store._END_ATTEMPTS, KEYED),
    "load_attempts": (store._LOAD_ATTEMPTS, KEYED),
    "grow_attempts": (store._GROW_ATTEMPTS, GROWN_ATTEMPT.texts([])),
    "close_suspense": (recovery_store._CLOSE_SUSPENSE, ["acme", IDS[0], "SERVED"]),
    "find_booking": (recovery_store._FIND_BOOKING, ["acme", IDS[0]]),
    "definitions": (definition_store._DEFINITIONS, [TENANTS, ["tenants/acme"]]),
    "create_counters": (definition_store._CREATE_COUNTERS, [TENANTS, LIMITS, MOMENTS]),
    "raise_alerts": (threshold_store._RAISE, [TENANTS, LIMITS, MOMENTS, [1], NOW]),
}

# How much of its key each table must be looked up by, whatever the statistics say.
KEYS = {
    "counter": {"tenant_id", "limit_id", "window_start"},
    "attempt": {"tenant_id", "attempt_id"},
    "usage_limit": {"tenant_id"},
    "limit_increase": {"tenant_id", "limit_id"},
    "request_key": {"tenant_id", "request_id"},
    "suspense": {"tenant_id", "attempt_id"},
    "usage_record": {"tenant_id", "attempt_id"},
}
BY_TENANT_ALONE = {"claimed_calls": {"attempt"}}
"""Attempts of a tenant are few: those in flight. They are looked through when a request id is repeated."""


FILLED = {f"usage_record_{datetime.now(UTC):%Y_%m}"}
"""Partitions with records. Where there are none the planner does not care; a plan lives five minutes at the most."""


@pytest.fixture(scope="module")
def grown() -> str:
    """SQL that makes 100,000 limits with counters, and records, as a bulk import would; nothing is analysed."""
    return """
    INSERT INTO usage_limit (tenant_id, name, scope, metric, "window", amount)
    SELECT 'acme', 'l' || n, 'tenants/acme/departments/d' || n, 'COST', 'MONTH', 1000 FROM generate_series(1, 100000) n;
    INSERT INTO counter (tenant_id, limit_id, window_start) SELECT tenant_id, limit_id, '2026-11-01Z' FROM usage_limit;
    INSERT INTO usage_record SELECT 'acme', gen_random_uuid(), now(), 'SETTLED', gen_random_uuid(), now(), 1, '{d1}',
        'p', 'k', 'r', 'm', 'flash', 'x', 'a', '{}', 1, 1, 1, 1, 0, 1, 1, '{}', '[]', 'SERVED', ''
    FROM generate_series(1, 20000);
    """


@pytest.fixture
async def connection(fresh_database: TestDatabase, view: LedgerView, grown: str) -> AsyncIterator["Connection"]:
    """The tick's own kind of connection, right after the tables have grown."""
    await view.connection.execute(f"SET session_replication_role = replica; {grown}")
    connection = await connections.connect(fresh_database.app_dsn)
    yield connection
    await connection.close()


def scans(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every node of a plan that reads a table."""
    if "Relation Name" in node and node["Node Type"] != "ModifyTable":
        yield node
    for child in node.get("Plans", []):
        yield from scans(child)


def table_of(scan: dict[str, Any]) -> str:
    """Return the table, of a partition its parent."""
    found = [table for table in KEYS if scan["Relation Name"].startswith(table)]
    return max(found, key=len, default=scan["Relation Name"])


async def test_no_statement_of_a_tick_reads_a_table_through(connection: "Connection") -> None:
    """Not even right after 100,000 limits were made: with stale statistics the planner preferred scans once."""
    misses = []

    for name, (sql, arguments) in STATEMENTS.items():
        (text,) = await connection.fetchrow(f"EXPLAIN (FORMAT JSON) {sql}", *arguments) or ("[]",)
        for scan in scans(json.loads(text)[0]["Plan"]):
            table = table_of(scan)
            if table == "usage_record" and scan["Relation Name"] not in FILLED:
                continue
            wanted = KEYS.get(table, set())
            if table in BY_TENANT_ALONE.get(name, ()):
                wanted = {"tenant_id"}
            if missing := {column for column in wanted if column not in scan.get("Index Cond", "")}:
                misses.append((name, scan["Relation Name"], scan["Node Type"], sorted(missing)))

    assert misses == []


@pytest.mark.parametrize("name", ["look", "write True True True False"])
async def test_attempts_that_end_are_looked_up_however_few_there_seemed_to_be(
    connection: "Connection", view: LedgerView, name: str
) -> None:
    """Joined to a table that a vacuum has found empty, they were found by reading all of its index."""
    await view.connection.execute("VACUUM attempt")
    sql, arguments = STATEMENTS[name]

    (text,) = await connection.fetchrow(f"EXPLAIN (FORMAT JSON) {sql}", *arguments) or ("[]",)

    found = [scan for scan in scans(json.loads(text)[0]["Plan"]) if table_of(scan) == "attempt"]
    assert ["attempt_id" in scan.get("Index Cond", "") for scan in found] == [True]


async def test_the_limits_of_a_scope_are_found_by_their_scope(connection: "Connection") -> None:
    """A tenant has 100,000 limits; a call looks at those of its own scopes."""
    sql, arguments = STATEMENTS["definitions"]

    (text,) = await connection.fetchrow(f"EXPLAIN (FORMAT JSON) {sql}", *arguments) or ("[]",)

    found = [scan for scan in scans(json.loads(text)[0]["Plan"]) if table_of(scan) == "usage_limit"]
    assert ["scope" in scan["Index Cond"] for scan in found] == [True]


async def test_row_security_changes_no_plan_of_the_ledger(
    connection: "Connection", view: LedgerView, fresh_database: TestDatabase
) -> None:
    """It serves all tenants, so its policy lets all rows through, and PostgreSQL does not even look."""
    secured = await plans_of(connection)
    for table in LEDGER_RIGHTS:
        await view.connection.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")

    other = await connections.connect(fresh_database.app_dsn)
    try:
        assert secured == await plans_of(other)
    finally:
        await other.close()


async def plans_of(connection: "Connection") -> dict[str, str]:
    """Return the plan of each statement as text."""
    return {
        name: "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN (COSTS OFF) {sql}", *arguments))
        for name, (sql, arguments) in STATEMENTS.items()
    }
