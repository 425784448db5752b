"""What deciding costs, with 100,000 grants, and that reading them does not hold up anybody else."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from tollhouse_server.access.authorizer import Authorizer
from tollhouse_server.access.policy import Policy
from tollhouse_server.access.rights import GROUPS, PRINCIPALS, TenantRights
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import EpochWatch
from tollhouse_server.identity.principal import Principal

from tests.bench.recorder import Recorder
from tests.drivers.postgres import TestDatabase
from tests.unit.access.build import principal

_TENANTS = 100
_PRINCIPALS = 200
_GRANTS_EACH = 5
_DEPTH = 8
_MICROSECONDS = 1e6
_MILLISECONDS = 1e3

_COMPANY = f"""
INSERT INTO tenant (tenant_id) SELECT 't-' || t FROM generate_series(0, {_TENANTS - 1}) t;
INSERT INTO department (tenant_id, department_id, parent_id, path)
    SELECT 't-' || t, 'd-' || d, CASE WHEN d > 0 THEN 'd-' || d - 1 END,
        text2ltree(array_to_string(ARRAY(SELECT 'd-' || n FROM generate_series(0, d) n), '.'))
    FROM generate_series(0, {_TENANTS - 1}) t, generate_series(0, {_DEPTH - 1}) d;
INSERT INTO principal (tenant_id, principal_id, kind)
    SELECT 't-' || t, 'p-' || p, 'USER'
    FROM generate_series(0, {_TENANTS - 1}) t, generate_series(0, {_PRINCIPALS - 1}) p;
INSERT INTO role_grant (tenant_id, grant_id, principal_id, role, scope)
    SELECT 't-' || t, 'g-' || p || '-' || g, 'p-' || p, 'caller', 'tenants/t-' || t || '/departments/d-' || g
    FROM generate_series(0, {_TENANTS - 1}) t, generate_series(0, {_PRINCIPALS - 1}) p,
        generate_series(0, {_GRANTS_EACH - 1}) g;
"""  # noqa: S608 - numbers of ours


def company() -> dict[str, TenantRights]:
    """Return 100,000 grants in a hundred tenants, with groups of which everybody is in three."""
    tenants = {}
    for number in range(_TENANTS):
        tenants[f"t-{number}"] = rights = TenantRights()
        for depth in range(_DEPTH):
            rights.add_department(f"d-{depth}", [f"d-{one}" for one in range(depth + 1)])
        for group in range(30):
            rights.grant(GROUPS, f"g-{group}", "read-only", f"tenants/t-{number}/departments/d-{group % _DEPTH}")
        for who in range(_PRINCIPALS):
            for grant in range(_GRANTS_EACH):
                rights.grant(PRINCIPALS, f"p-{who}", "caller", f"tenants/t-{number}/departments/d-{grant}")
            for group in range(3):
                rights.join(f"g-{(who + group) % 30}", f"p-{who}")
    return tenants


def people() -> list[Principal]:
    """Return a thousand of them, of all tenants."""
    return [principal(f"t-{one % _TENANTS}", f"p-{one // _TENANTS}") for one in range(1_000)]


def seconds_each(policy: Policy, asked: list[Principal], permission: str) -> float:
    """Return what one decision took of the processor, on the deepest department of each one's own tenant."""
    scopes = [f"tenants/{one.tenant_id}/departments/d-{_DEPTH - 1}/projects/p" for one in asked]
    started_at = time.thread_time()
    for one, scope in zip(asked, scopes, strict=True):
        policy.allows(one, permission, scope)
    return (time.thread_time() - started_at) / len(asked)


def test_a_decision_costs_little_and_nothing_the_second_time(recorder: Recorder) -> None:
    """With 100,000 grants uncached, yes or no (the goal is 1 ms), and memoised (1 us)."""
    policy, asked = Policy(company()), people()

    yes = seconds_each(policy, asked, "generation.generate")
    no = seconds_each(policy, asked, "limits.delete")
    again = min(seconds_each(policy, asked, "generation.generate") for _ in range(20))

    for name, seconds in {"yes": yes, "no": no, "memoised": again}.items():
        recorder.record(f"decide/100000_grants/{name}_cpu_us", seconds * _MICROSECONDS)
    assert policy.allows(asked[0], "generation.generate", f"tenants/{asked[0].tenant_id}/departments/d-0")


async def run_sql(dsn: str, statements: str) -> None:
    """Run statements as one who may do anything."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statements)
    finally:
        await connection.close()


class Pulse:
    """Notes the longest time, of the processor's, for which the event loop came to nothing else.

    Not the clock's: on a machine with other work that would be the pauses that the machine makes.
    """

    def __init__(self) -> None:
        self.longest_seconds = 0.0

    async def run(self) -> None:
        """Beat for ever."""
        while True:
            started_at = time.thread_time()
            await asyncio.sleep(0.002)
            self.longest_seconds = max(self.longest_seconds, time.thread_time() - started_at)


@asynccontextmanager
async def beating() -> AsyncIterator[Pulse]:
    """Watch the event loop while the block runs."""
    pulse = Pulse()
    task = asyncio.create_task(pulse.run())
    try:
        yield pulse
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_reading_all_grants_leaves_the_event_loop_to_others(
    fresh_database: TestDatabase, recorder: Recorder
) -> None:
    """100,000 grants (no pause is to be over 20 ms); a change of one tenant reads that tenant alone."""
    await run_sql(fresh_database.root_dsn, _COMPANY)
    database = Database(fresh_database.app_dsn)
    watch = EpochWatch(database)
    authorizer = Authorizer(database, watch)

    # What the tests have in memory is nothing that a worker would have to look through.
    gc.collect()
    gc.freeze()
    async with beating() as pulse:
        started_at = time.perf_counter()
        await watch.refresh()
        whole_seconds = time.perf_counter() - started_at
        await run_sql(
            fresh_database.root_dsn,
            "DELETE FROM role_grant WHERE tenant_id = 't-3' AND principal_id = 'p-1';"
            "UPDATE epoch SET value = value + 1 WHERE topic = 'access'",
        )
        started_at = time.perf_counter()
        await watch.refresh()
        one_seconds = time.perf_counter() - started_at
    gc.unfreeze()
    await database.close()

    found = {"all_ms": whole_seconds, "one_tenant_ms": one_seconds, "longest_pause_ms": pulse.longest_seconds}
    for name, seconds in found.items():
        recorder.record(f"read_grants/100000_grants/{name}", seconds * _MILLISECONDS)
    scope = "tenants/t-3/departments/d-5"
    assert authorizer.allows(principal("t-3", "p-2"), "generation.generate", scope)
    assert not authorizer.allows(principal("t-3", "p-1"), "generation.generate", scope)
