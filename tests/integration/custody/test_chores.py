"""What the housekeeper does by itself: starts what is due, sweeps what was left, measures."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry
from tollhouse_server.custody import policy_store
from tollhouse_server.custody.chores import Custody
from tollhouse_server.custody.key_use import UnusualUse
from tollhouse_server.custody.providers.manual import ManualProvider
from tollhouse_server.custody.providers.protocol import KeyProvider
from tollhouse_server.custody.terms import KeyPolicy, ProviderKind
from tollhouse_server.database.rows import run_sql
from tollhouse_server.names import KeyRotationName
from tollhouse_server.telemetry.metrics import Metrics

from tests.drivers.custody import Rig


def custody_of(rig: Rig, registry: CollectorRegistry | None = None) -> Custody:
    metrics = Metrics(registry or CollectorRegistry())
    providers: dict[ProviderKind, KeyProvider] = {ProviderKind.SIMULATOR: rig.provider}
    providers[ProviderKind.MANUAL] = ManualProvider(rig.vault)
    return Custody(rig.database, rig.machine(), UnusualUse(rig.database, metrics), metrics, providers)


async def make_old(rig: Rig, days: int) -> None:
    async with rig.database.transaction() as session:
        await run_sql(session, "UPDATE upstream_key SET created_at = now() - make_interval(days => :d)", {"d": days})


async def set_policy(rig: Rig, policy: KeyPolicy) -> None:
    async with rig.database.transaction() as session:
        await policy_store.set_policy(session, rig.account_id, policy)


async def rotations(rig: Rig) -> list[KeyRotationName]:
    async with rig.database.transaction() as session:
        rows = (await run_sql(session, "SELECT rotation_id FROM key_rotation ORDER BY created_at")).all()
    return [KeyRotationName(rig.account_id, row.rotation_id) for row in rows]


async def test_a_key_older_than_its_policy_is_rotated_by_itself(rig: Rig) -> None:
    """Once, by whichever of two housekeepers is first, and in the name of the system."""
    await set_policy(rig, KeyPolicy(provider=ProviderKind.SIMULATOR, drain_seconds=0))
    await make_old(rig, 61)

    started = await asyncio.gather(custody_of(rig).start_due(), custody_of(rig).start_due())

    [name] = await rotations(rig)
    ended = await rig.finish(name)
    assert sum(started) == 1
    assert (ended.cause, ended.actor, ended.outcome) == ("POLICY", "housekeeper", "SUCCEEDED")
    assert await custody_of(rig).start_due() == 0
    await rig.assert_in_order()


@pytest.mark.parametrize(("period", "age", "due"), [(60, 59, 0), (30, 31, 1), (90, 61, 0), (None, 61, 1)])
async def test_the_policy_says_when_a_key_is_due(rig: Rig, period: int | None, age: int, due: int) -> None:
    """Without a policy after sixty days, by hand."""
    if period is not None:
        async with rig.database.transaction() as session:
            sql = "INSERT INTO key_policy VALUES (:account, 'MANUAL', :period, 0)"
            await run_sql(session, sql, {"account": rig.account_id, "period": period})
    await make_old(rig, age)

    assert await custody_of(rig).start_due() == due


async def test_a_rotation_that_failed_is_not_tried_again_the_same_day(rig: Rig) -> None:
    """A provider that refuses would be asked every minute."""
    await make_old(rig, 61)
    await custody_of(rig).start_due()
    async with rig.database.transaction() as session:
        await run_sql(session, "UPDATE key_rotation SET ended_at = now(), outcome = 'FAILED'")
    at_once = await custody_of(rig).start_due()
    async with rig.database.transaction() as session:
        await run_sql(session, "UPDATE key_rotation SET ended_at = now() - interval '25 hours'")

    assert (at_once, await custody_of(rig).start_due()) == (0, 1)


async def test_a_key_issued_after_its_rotations_end_is_found_and_retired(rig: Rig) -> None:
    """By a process that stood still past its lease and went on; keys of others are left alone."""
    await set_policy(rig, KeyPolicy(provider=ProviderKind.SIMULATOR, drain_seconds=0))
    name = await rig.start()
    row = await rig.rotation(name)
    async with rig.database.transaction() as session:
        sql = "UPDATE key_rotation SET ended_at = now() - interval '1 hour', outcome = 'CANCELLED'"
        await run_sql(session, sql)
    await rig.provider.issue(rig.order(row.new_key_id))
    await rig.provider.issue(rig.order("of-somebody-else"))

    retired = await custody_of(rig).sweep()

    assert retired == 1
    assert await rig.live_at_provider() == ["first", "of-somebody-else"]


async def test_what_waits_and_what_is_late_is_measured(rig: Rig) -> None:
    """A person who has to bring a key is reminded by the age of the step."""
    registry = CollectorRegistry()
    await make_old(rig, 61)
    custody = custody_of(rig, registry)
    await custody.start_due()
    await rig.machine().advance()
    async with rig.database.transaction() as session:
        await run_sql(session, "UPDATE key_rotation SET step_at = now() - interval '2 days'")

    await custody.measure()

    value = registry.get_sample_value
    assert value("tollhouse_upstream_key_rotations", {"step": "STAGE"}) == 1.0
    age = value("tollhouse_upstream_key_rotation_age_seconds", {"step": "STAGE"})
    assert age is not None
    assert age > 172_000
    assert value("tollhouse_upstream_keys_overdue") == 1.0
    assert value("tollhouse_upstream_key_rotations_failing") == 0.0
    assert value("tollhouse_upstream_key_promotions_total", {"account": rig.account_id}) == 0.0


async def test_it_runs_a_rotation_to_its_end_by_itself(rig: Rig) -> None:
    """The loop that the housekeeper keeps."""
    name = await rig.start()
    running = asyncio.create_task(custody_of(rig).run())

    async with asyncio.timeout(30):
        while (await rig.rotation(name)).ended_at is None:  # noqa: ASYNC110 - it ends in a task of its own
            await asyncio.sleep(0.05)

    running.cancel()
    await rig.assert_in_order()
