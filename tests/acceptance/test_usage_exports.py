"""A month of records leaves the ledger, as an operator does it: create, download, confirm, drop."""

import asyncio
import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

from tollhouse_server.database.engine import Database
from tollhouse_server.reporting.rollup_store import build_next_day

from tests.drivers.command_line import CommandLine
from tests.drivers.stack import RunningStack

RECORDS = 12_345
_OLD_MONTH = """
INSERT INTO usage_record (tenant_id, attempt_id, settled_at, kind, request_id, dispatched_at, worker_epoch,
    department_path, project_id, credential_id, principal_id, method, tier, model, account_id, labels, price_version,
    requests, input_tokens, output_tokens, images, cost_nanos, ceiling_nanos, usage, lines, outcome, response_id)
SELECT 'archive', gen_random_uuid(), timestamptz '2025-01-31 10:00Z' + n / 10 * interval '1 second', 'SETTLED',
    gen_random_uuid(), '2025-01-31Z', 1, ARRAY['old'], 'p' || n % 3, 'k', 'robot', 'generateContent', 'flash',
    'gemini-old', 'main', '{"place": "Zürich"}', 1, 1, 1, 1, 0, n, n, '{}', '[]', 'STOP', ''
FROM generate_series(1, $1::integer) AS n
"""


def make_old_month(stack: RunningStack) -> None:
    """Give a company a January long ago, rolled up."""
    stack.query("INSERT INTO tenant (tenant_id, time_zone) VALUES ('archive', 'UTC')")
    stack.query("SELECT create_usage_partition('2025-01-01')")
    stack.query(_OLD_MONTH, RECORDS)

    async def build() -> None:
        database = Database(str(stack.run["postgres"]))
        async with database.transaction() as session:
            await build_next_day(session, "archive", datetime(2025, 2, 2, tzinfo=UTC))
        await database.close()

    asyncio.run(build())


def test_a_month_is_taken_out_of_the_ledger_and_its_report_stays(
    running_stack: RunningStack, tollhouse: CommandLine, tmp_path: Path
) -> None:
    """What is downloaded adds up to what was dropped; nothing is dropped before it is confirmed."""
    make_old_month(running_stack)
    report = ["report", "month", "--tenant", "archive", "--month", "2025-01", "-g", "project", "-o", "csv"]
    before = tollhouse.ok(*report)
    tollhouse.ok("exports", "create", "2025-01")
    early = tollhouse("exports", "drop-month", "2025-01", "--yes")

    tollhouse.ok("exports", "download", "2025-01", "--directory", str(tmp_path))
    tollhouse.ok("exports", "confirm", str(tmp_path / "usage-2025-01.manifest.json"), "--location", "shelf 7")
    tried = tollhouse("exports", "drop-month", "2025-01", "--dry-run")
    tollhouse.ok("exports", "drop-month", "2025-01", "--yes")

    (export,) = tollhouse.json("exports", "list")
    records = tollhouse("report", "records", "--tenant", "archive", "--since", "2025-01-01", "--until", "2025-02-01")
    kept = gzip.decompress((tmp_path / "usage-2025-01.jsonl.gz").read_bytes()).decode().splitlines()
    assert (early.returncode, "WRONG_STATE" in early.stderr) == (5, True)
    assert (tried.returncode, "would be accepted" in tried.stderr) == (0, True)
    assert sum(json.loads(line)["cost_nanos"] for line in kept) == RECORDS * (RECORDS + 1) // 2
    assert (export["state"], int(export["recordCount"]), export["location"]) == ("STATE_DROPPED", RECORDS, "shelf 7")
    assert tollhouse.ok(*report) == before
    assert "RECORDS_DROPPED" in records.stderr
    assert running_stack.query("SELECT count(*) FROM usage_record WHERE tenant_id = 'archive'")[0][0] == 0
