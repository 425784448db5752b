"""How long a verification takes over a million records of one tenant, each in four counters, with roll-ups."""

import time

from prometheus_client import CollectorRegistry
from tollhouse_server.database.engine import Database
from tollhouse_server.ledger.verification import LedgerVerification, Progress, Verdict
from tollhouse_server.reporting.rollup_findings import rollup_findings
from tollhouse_server.reporting.rollups import RollUps
from tollhouse_server.telemetry.metrics import Metrics

from tests.bench.recorder import Recorder
from tests.drivers.ledger import ledger_view
from tests.drivers.postgres import TestDatabase

RECORDS = 1_000_000
DEPARTMENTS = 100

_TREE = f"""
INSERT INTO tenant (tenant_id, time_zone, created_at) VALUES ('acme', 'UTC', now() - interval '40 days');
INSERT INTO usage_limit (tenant_id, name, scope, metric, "window", amount, created_at)
SELECT 'acme', name, scope, metric, "window", 10::bigint ^ 15, now() - interval '40 days' FROM (
    VALUES ('total', 'tenants/acme', 'COST', 'TOTAL'), ('daily', 'tenants/acme', 'REQUESTS', 'DAY')
) AS whole (name, scope, metric, "window")
UNION ALL
SELECT 'acme', metric || '-' || n, 'tenants/acme/departments/d' || n, metric, 'DAY', 10::bigint ^ 15,
    now() - interval '40 days'
FROM generate_series(0, {DEPARTMENTS - 1}) AS n, unnest(ARRAY['COST', 'OUTPUT_TOKENS']) AS metric;
SELECT create_usage_partition((now() - interval '20 days')::date);
"""  # noqa: S608 - constants of this file

_RECORDS = f"""
INSERT INTO usage_record (tenant_id, attempt_id, settled_at, kind, request_id, dispatched_at, worker_epoch,
    department_path, project_id, credential_id, principal_id, method, tier, model, account_id, labels, price_version,
    requests, input_tokens, output_tokens, images, cost_nanos, ceiling_nanos, usage, lines, outcome, response_id, holds)
SELECT 'acme', gen_random_uuid(), at, 'SETTLED', gen_random_uuid(), at, 1, ARRAY['root', 'd' || d], 'p' || d, 'k' || d,
    'robot', 'generateContent', 'flash', 'gemini-3.8-flash', 'main', '{{}}', 1, 1, 100, n % 500, 0, n % 9973 + 30,
    20000, '{{"thoughts_tokens": 7}}',
    jsonb_build_array(jsonb_build_object('sku', 'input_text', 'quantity', 100, 'cost_nanos', 30),
        jsonb_build_object('sku', 'output_text', 'quantity', n % 500, 'cost_nanos', n % 9973)),
    'SERVED', '', json_build_array(
        json_build_array(1, '1970-01-01T00:00:00+00:00', 'COST', 20000, 0),
        json_build_array(2, day, 'REQUESTS', 1, 0),
        json_build_array(3 + d * 2, day, 'COST', 20000, 0),
        json_build_array(4 + d * 2, day, 'OUTPUT_TOKENS', 500, 0))
FROM (
    SELECT n, n % {DEPARTMENTS} AS d, moment AS at,
        to_char(date_trunc('day', moment, 'UTC') AT TIME ZONE 'UTC', 'YYYY-MM-DD"T00:00:00+00:00"') AS day
    FROM generate_series(1, {RECORDS}) AS n,
        LATERAL (SELECT now() - (n % 1209600) * interval '1 second') AS made (moment)
) AS call
"""  # noqa: S608 - constants of this file

# The same sums as the generator would give, along another way than the one under test.
_COUNTERS = """
INSERT INTO counter (tenant_id, limit_id, window_start, settled)
SELECT 'acme', 1, '1970-01-01Z', sum(cost_nanos) FROM usage_record
UNION ALL
SELECT 'acme', 2, date_trunc('day', settled_at, 'UTC'), count(*) FROM usage_record GROUP BY 3
UNION ALL
SELECT 'acme', 3 + substr(project_id, 2)::bigint * 2, date_trunc('day', settled_at, 'UTC'), sum(cost_nanos)
FROM usage_record GROUP BY 2, 3
UNION ALL
SELECT 'acme', 4 + substr(project_id, 2)::bigint * 2, date_trunc('day', settled_at, 'UTC'), sum(output_tokens)
FROM usage_record GROUP BY 2, 3
"""


async def test_a_million_records_are_verified(fresh_database: TestDatabase, recorder: Recorder) -> None:
    """And add up."""
    async with ledger_view(fresh_database.root_dsn) as view:
        for sql in (_TREE, _RECORDS, _COUNTERS, "ANALYZE"):
            await view.connection.execute(sql)
    database = Database(fresh_database.app_dsn)
    await RollUps(database, Metrics(CollectorRegistry())).build()

    started_at = said_at = time.monotonic()
    verdict = None
    async for event in LedgerVerification(database, rollup_findings).verify():
        if isinstance(event, Progress):
            recorder.record(f"verify_ledger/{RECORDS}_records/{event.check}_s", time.monotonic() - said_at)
            said_at = time.monotonic()
        elif isinstance(event, Verdict):
            verdict = event
    seconds = time.monotonic() - started_at
    await database.close()

    recorder.record(f"verify_ledger/{RECORDS}_records/wall_s", seconds)
    assert verdict is not None
    assert (verdict.findings, verdict.extent.records) == (0, RECORDS)
