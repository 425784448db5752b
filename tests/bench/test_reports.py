"""How long roll-ups take to make, and the report of a month from them beside the same from its records."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import asyncpg
import pytest
from tollhouse_server.database.engine import Database
from tollhouse_server.names import TenantName
from tollhouse_server.reporting.conservation_store import compare_rollups
from tollhouse_server.reporting.reports import MonthReport, month_report
from tollhouse_server.reporting.rollup_store import build_next_day
from tollhouse_server.reporting.store import begin_snapshot
from tollhouse_server.reporting.sums import Dimension

from tests.bench.recorder import Recorder
from tests.drivers.postgres import TestDatabase, TestPostgres

RECORDS = 100_000
"""Of one tenant in one month; 10,000,000 for the figures of the promise (a quarter of an hour, 15 GB)."""

DEPARTMENTS, PROJECTS_EACH, CREDENTIALS_EACH, MODELS = 100, 3, 2, 6
MONTH, NEXT_MONTH = datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC)
SPLITS = {
    "department": [Dimension.DEPARTMENT],
    "model": [Dimension.MODEL],
    "SKU": [Dimension.SKU],
    "department, model, SKU": [Dimension.DEPARTMENT, Dimension.MODEL, Dimension.SKU],
    "day": [Dimension.DAY],
}

# Every record has three priced lines that add up to its cost, as an answer with cached tokens has.
_GENERATE = f"""
INSERT INTO usage_record (tenant_id, attempt_id, settled_at, kind, request_id, dispatched_at, worker_epoch,
    department_path, project_id, credential_id, principal_id, method, tier, model, account_id, labels, price_version,
    requests, input_tokens, output_tokens, images, cost_nanos, ceiling_nanos, usage, lines, outcome, response_id)
SELECT 'acme', gen_random_uuid(), at, 'SETTLED', gen_random_uuid(), at, 1, ARRAY['root', 'department-' || place],
    'project-' || place || '-' || n / 7 % {PROJECTS_EACH}, 'k' || place || n / 11 % {CREDENTIALS_EACH}, 'robot',
    'generateContent', CASE WHEN n % 2 = 0 THEN 'flash' ELSE 'pro' END, 'gemini-' || n % {MODELS}, 'main', '{{}}', 1,
    1, n % 5000, n % 900, 0, n % 5000 * 300 + n % 900 * 2500 + n % 100 * 30, 10000000,
    jsonb_build_object('prompt', jsonb_build_object('text', n % 5000), 'cached', jsonb_build_object('text', n % 100),
        'candidates', jsonb_build_object('text', n % 900), 'thoughts_tokens', n % 90),
    jsonb_build_array(
        jsonb_build_object('sku', 'input_text', 'quantity', n % 5000, 'unit', 'token', 'nanos_per_million', 300000000,
            'cost_nanos', n % 5000 * 300),
        jsonb_build_object('sku', 'cached_text', 'quantity', n % 100, 'unit', 'token', 'nanos_per_million', 30000000,
            'cost_nanos', n % 100 * 30),
        jsonb_build_object('sku', 'output_text', 'quantity', n % 900, 'unit', 'token', 'nanos_per_million',
            2500000000, 'cost_nanos', n % 900 * 2500)),
    'STOP', ''
FROM (SELECT n, hashint8(n) & 2147483647 AS mixed FROM generate_series($1::bigint, $2::bigint) AS n) AS numbered,
    LATERAL (SELECT mixed % {DEPARTMENTS} AS place,
        $3::timestamptz + n * (interval '31 days' / $4::float8) AS at) AS spread
"""  # noqa: S608 - numbers of this file
_BATCH = 500_000

Answer = TypeVar("Answer")


@pytest.fixture
def database(postgres_server: TestPostgres) -> Iterator[TestDatabase]:
    """A migrated database of its own."""
    database = postgres_server.create_database()
    yield database
    postgres_server.drop_database(database)


async def generate(dsn: str, records: int) -> None:
    """Write a month of one tenant's records, evenly spread, and let PostgreSQL get to know them."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("INSERT INTO tenant (tenant_id, time_zone) VALUES ('acme', 'UTC')")
    await connection.execute("SELECT create_usage_partition('2026-05-01')")
    for first in range(0, records, _BATCH):
        last = min(first + _BATCH, records) - 1
        await connection.execute(_GENERATE, first, last, MONTH, float(records))
    await connection.execute("VACUUM ANALYZE usage_record")
    await connection.close()


async def timed(act: Callable[[], Awaitable[Answer]]) -> tuple[Answer, float]:
    """Return what an act returns, and its seconds."""
    started_at = time.perf_counter()
    return await act(), time.perf_counter() - started_at


@asynccontextmanager
async def opened(dsn: str) -> AsyncIterator[Database]:
    """Open the database as the server does."""
    database = Database(dsn)
    try:
        yield database
    finally:
        await database.close()


async def build(database: Database) -> int:
    """Roll up the month."""
    days = 0
    while True:
        async with database.transaction() as session:
            if await build_next_day(session, "acme", NEXT_MONTH) is None:
                return days
            days += 1


async def report(database: Database, by: list[Dimension]) -> MonthReport:
    """Make the month's report."""
    async with database.transaction() as session:
        await begin_snapshot(session)
        return await month_report(session, TenantName("acme"), month="2026-05", dimensions=by)


async def reports(database: Database) -> dict[str, tuple[MonthReport, float]]:
    """Make the month's report in every split."""

    async def one(by: list[Dimension]) -> tuple[MonthReport, float]:
        return await timed(lambda: report(database, by))

    return {name: await one(by) for name, by in SPLITS.items()}


def content(made: MonthReport) -> tuple[Any, Any]:
    """Return what must not depend on where a report was read from."""
    return made.totals, made.lines


async def test_a_months_report_from_rollups_is_the_one_from_records_and_quicker(
    database: TestDatabase, recorder: Recorder
) -> None:
    """Prints the table; it holds that both are the same to the nano-dollar, and the one from roll-ups under 5 s."""
    await generate(database.root_dsn, RECORDS)
    async with opened(database.app_dsn) as opened_database:
        from_records = await reports(opened_database)
        days, building_seconds = await timed(lambda: build(opened_database))
        connection = await asyncpg.connect(database.root_dsn)
        await connection.execute("ANALYZE usage_rollup, usage_rollup_sku, usage_rollup_day")
        groups, skus = [
            await connection.fetchval(f"SELECT count(*) FROM {table}")  # noqa: S608 - a constant
            for table in ("usage_rollup", "usage_rollup_sku")
        ]
        await connection.close()
        from_rollups = await reports(opened_database)

        async def compare() -> int:
            async with opened_database.transaction() as session:
                return len([one async for one in compare_rollups(session)])

        differences, comparing_seconds = await timed(compare)

    rolled_up = {
        "days": days,
        "wall_s": building_seconds,
        "compared_s": comparing_seconds,
        "rows": groups,
        "sku_rows": skus,
    }
    recorder.record_all(f"rollups/{RECORDS}_records", rolled_up)
    for name, (made, seconds) in from_rollups.items():
        found = {"from_records_s": from_records[name][1], "from_rollups_s": seconds, "lines": len(made.lines)}
        recorder.record_all(f"report/{RECORDS}_records/by_{name.replace(', ', '_').replace(' ', '_')}", found)
    assert differences == 0
    assert {name: content(made) for name, (made, _) in from_rollups.items()} == {
        name: content(made) for name, (made, _) in from_records.items()
    }
