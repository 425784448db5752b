"""What a round of readings costs PostgreSQL and the housekeeper, by how many departments there are, a limit each."""

import time
from pathlib import Path

import psutil
import pytest
from prometheus_client import CollectorRegistry
from tollhouse_server.database.engine import Database
from tollhouse_server.database.rows import run_sql
from tollhouse_server.money import NANOS_PER_DOLLAR
from tollhouse_server.readings.rounds import Most, Readings
from tollhouse_server.telemetry.declarations import money
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.telemetry.readings import publish

from tests.bench.recorder import Recorder
from tests.drivers.ledger import LedgerView, ledger_view
from tests.drivers.postgres import TestDatabase

MOST = 100

_COMPANIES = """
INSERT INTO tenant (tenant_id, time_zone) SELECT 't' || n, 'Europe/Berlin' FROM generate_series(0, 9) AS n;
INSERT INTO usage_limit (tenant_id, name, scope, metric, "window", amount)
SELECT 't' || n %% 10, 'd' || n, 'tenants/t' || n %% 10 || '/departments/d' || n, 'COST',
    (ARRAY['DAY', 'MONTH', 'FISCAL_MONTH', 'TOTAL', 'HOUR'])[n %% 5 + 1], 1000000000000
FROM generate_series(0, %(departments)s - 1) AS n;
INSERT INTO counter (tenant_id, limit_id, window_start, held, settled)
SELECT tenant_id, limit_id, starts_at, limit_id, limit_id * 1000000 FROM usage_limit CROSS JOIN LATERAL (
    SELECT to_timestamp(0) WHERE "window" = 'TOTAL' UNION ALL
    SELECT date_trunc('day', now(), 'Europe/Berlin') - make_interval(days => ago) FROM generate_series(0, 39) AS ago
    WHERE "window" <> 'TOTAL'
) AS w (starts_at);
INSERT INTO usage_rollup_day (tenant_id, day_start, day_end, time_zone, record_count, cost_nanos)
SELECT 't' || n, day, day + interval '1 day', 'Europe/Berlin', 1, 1 FROM generate_series(0, 9) AS n,
    LATERAL (SELECT date_trunc('day', now(), 'Europe/Berlin') - make_interval(days => ago) AS day
    FROM generate_series(1, 20) AS ago) AS days;
INSERT INTO usage_rollup (tenant_id, day_start, department_path, project_id, credential_id, tier, model, record_count,
    is_booked, calls, input_tokens, output_tokens, images, cost_nanos, cached_tokens, tool_use_tokens, thoughts_tokens)
SELECT d.tenant_id, d.day_start, ARRAY['root', 'd' || n], 'p', 'k', 'flash', model, 1, true, 1, 1, 1, 0, n, 0, 0, 0
FROM usage_rollup_day d, generate_series(0, %(departments)s - 1) AS n, unnest(ARRAY['a', 'b']) AS model
WHERE d.tenant_id = 't' || n %% 10;
"""

_CALLS = """
INSERT INTO usage_record (tenant_id, attempt_id, kind, request_id, dispatched_at, worker_epoch, department_path,
    project_id, credential_id, principal_id, method, tier, model, account_id, labels, price_version, requests,
    input_tokens, output_tokens, images, cost_nanos, ceiling_nanos, usage, lines, outcome, response_id, holds)
SELECT 't' || n %% 10, gen_random_uuid(), 'SETTLED', gen_random_uuid(), now(), 1,
    ARRAY['root', 'd' || n %% %(departments)s], 'p', 'k', 'robot', 'generateContent', 'flash', 'a', 'main', '{}', 1, 1,
    100, 100, 0, 30, 30, '{}', '[]', 'SERVED', '', '[]'
FROM generate_series(1, 15000) AS n
"""


def cpu_seconds(pids: list[int]) -> float:
    """Return the processor time that processes have used."""
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


async def backends(view: LedgerView) -> list[int]:
    """Return the server processes of all others' connections."""
    rows = await view.connection.fetch(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    return [row["pid"] for row in rows]


@pytest.mark.parametrize("departments", [1_000, 10_000])
async def test_cost_of_a_round(
    departments: int, fresh_database: TestDatabase, tmp_path: Path, recorder: Recorder
) -> None:
    """The first one of a leader reads the month; the others what 15 seconds have brought, at 1,000 calls a second."""
    calls = _CALLS % {"departments": departments}
    async with ledger_view(fresh_database.root_dsn) as view:
        for sql in (_COMPANIES % {"departments": departments}, calls, "ANALYZE"):
            await view.connection.execute(sql)
        database = Database(fresh_database.app_dsn, pool_size=1)
        readings = Readings(database, Metrics(CollectorRegistry()), tmp_path, Most(budgets=MOST, departments=MOST))
        async with database.transaction() as session:
            await run_sql(session, "SELECT 1")
        pids = await backends(view)
        for name in ("first", *["later"] * 4):
            before = cpu_seconds(pids), time.process_time(), time.monotonic()
            publish(tmp_path, told := tuple(await readings.read()))
            after = cpu_seconds(pids), time.process_time(), time.monotonic()
            theirs, ours, wall = (b - a for a, b in zip(before, after, strict=True))
            found = {"postgres_ms": theirs * 1e3, "housekeeper_ms": ours * 1e3, "wall_ms": wall * 1e3}
            share = {"percent_of_15_s_on_one_core": (theirs + ours) / 0.15}
            recorder.record_all(f"readings/{departments}_departments_{name}", found | share)
            await view.connection.execute(calls)
            assert max(len(one.values) for one in told) == MOST + 1
        assert len(pids) == 1
        await database.close()


_MANY = f"""
INSERT INTO tenant (tenant_id, time_zone) VALUES ('acme', 'UTC');
INSERT INTO usage_limit (tenant_id, name, scope, metric, "window", amount)
SELECT 'acme', 'l' || n, 'tenants/acme/departments/d' || n, 'COST', 'TOTAL', {NANOS_PER_DOLLAR}
FROM generate_series(1, 100000) AS n;
INSERT INTO usage_rollup_day (tenant_id, day_start, day_end, time_zone, record_count, cost_nanos)
SELECT 'acme', day, day + interval '1 second', 'UTC', 1, 1 FROM date_trunc('month', now(), 'UTC') AS day;
INSERT INTO usage_rollup (tenant_id, day_start, department_path, project_id, credential_id, tier, model, record_count,
    is_booked, calls, input_tokens, output_tokens, images, cost_nanos, cached_tokens, tool_use_tokens, thoughts_tokens)
SELECT 'acme', day_start, ARRAY['d' || n], '', '', '', '', 1, true, 1, 1, 1, 0, {NANOS_PER_DOLLAR}, 0, 0, 0
FROM usage_rollup_day, generate_series(1, 100000) AS n;
ANALYZE
"""  # noqa: S608 - constants of this file


async def test_a_hundred_thousand_departments_are_as_many_series_as_a_hundred(
    fresh_database: TestDatabase, tmp_path: Path
) -> None:
    """Those told of one by one, and one for all others, whose sum is right to the dollar."""
    async with ledger_view(fresh_database.root_dsn) as view:
        await view.connection.execute(_MANY)
    database = Database(fresh_database.app_dsn, pool_size=1)

    told = await Readings(database, Metrics(CollectorRegistry()), tmp_path, Most(budgets=MOST, departments=MOST)).read()

    values = {one.declaration: one.values for one in told}
    await database.close()
    assert max(map(len, values.values())) == MOST + 1
    assert sum(values[money.BUDGET_AMOUNT].values()) == 100_000
    assert sum(values[money.DEPARTMENT_COST].values()) == 100_000
