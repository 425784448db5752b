"""Whether a call costs the same whatever there is besides: departments, grants, budgets and records of its tenant."""

import asyncpg

from tests.bench.governed import governed
from tests.bench.loads import canned, echo
from tests.bench.recorder import Recorder
from tests.bench.rounds import RECORDS, ROUNDS, SECONDS, SIZES

_CALLERS = 64
_COMPANY = """
INSERT INTO department (tenant_id, department_id, path)
    SELECT 'demo', 'd-' || n, text2ltree('d-' || n) FROM generate_series($1::int, $2::int) AS n;
INSERT INTO project (tenant_id, project_id, department_id)
    SELECT 'demo', 'p-' || n, 'd-' || n FROM generate_series($1::int, $2::int) AS n;
INSERT INTO principal (tenant_id, principal_id, kind)
    SELECT 'demo', 'u-' || n, 'USER' FROM generate_series($1::int, $2::int) AS n;
INSERT INTO role_grant (tenant_id, grant_id, principal_id, role, scope)
    SELECT 'demo', 'g-' || n, 'u-' || n, 'caller', 'tenants/demo/departments/d-' || n
    FROM generate_series($1::int, $2::int) AS n;
INSERT INTO usage_limit (tenant_id, name, scope, metric, "window", amount)
    SELECT 'demo', 'l-' || n, 'tenants/demo/departments/d-' || n, 'COST', 'MONTH', 10::bigint ^ 15
    FROM generate_series($1::int, $2::int) AS n
"""
_TELL = "UPDATE epoch SET value = value + 1"
_RECORDS = """
INSERT INTO usage_record SELECT 'demo', uuidv7(), now() - n * interval '1 microsecond', 'SETTLED', gen_random_uuid(),
    now(), 1, '{research}', 'assistant', 'k1', 'robot', 'generateContent', 'flash', 'm', 'main', '{}', 1, 1, 9, 11, 0,
    60, 100, '{}', '[]', 'SERVED', '' FROM generate_series($1::int, $2::int) AS n
"""


async def _grow(root: "asyncpg.Connection[asyncpg.Record]", script: str, had: int, size: int) -> None:
    """Add what is missing, and have the workers and the planner know."""
    for statement in script.split(";"):
        await root.execute(statement, had + 1, size, timeout=3600)
    await root.execute("ANALYZE", timeout=3600)
    await root.execute(_TELL)


async def _grown(recorder: Recorder, suite: str, script: str, sizes: list[int]) -> list[str]:
    """Measure at each size; return the keys."""
    keys, had = [f"{suite}/{size}" for size in sizes], 0
    async with canned() as upstream, echo() as beside, governed(upstream) as running, running.root() as root:
        await running.load(callers=_CALLERS, seconds=2 * SECONDS)
        for key, size in zip(keys, sizes, strict=True):
            await _grow(root, script, had, size)
            had = size
            # Workers read what is new, and their memory fills again.
            await running.load(callers=_CALLERS, seconds=2 * SECONDS)
            for _ in range(ROUNDS):
                least = await beside.measure(callers=_CALLERS, seconds=SECONDS / 2)
                found = await running.measure(callers=_CALLERS, seconds=SECONDS)
                recorder.record_all(key, found)
                recorder.record(f"{key}/cpu_ratio_to_echo", found["cpu_us_per_call"] / least["cpu_us_per_call"])
    return keys


async def test_departments_grants_and_budgets_do_not_matter(recorder: Recorder) -> None:
    """BENCH_SIZES=10,1000,100000: so many departments with a project, a grant and a budget each."""
    keys = await _grown(recorder, "growth_departments", _COMPANY, SIZES)

    assert len(keys) == len(SIZES)


async def test_records_do_not_matter(recorder: Recorder) -> None:
    """BENCH_RECORDS=0,1000000,10000000: so many records of the month, of the caller's own department."""
    keys = await _grown(recorder, "growth_records", _RECORDS, RECORDS)

    assert len(keys) == len(RECORDS)
