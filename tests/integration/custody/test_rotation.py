"""Rotation against real PostgreSQL, OpenBao and the simulator's API Keys API."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from tollhouse_server.custody.providers.google import ApiKeysAddress
from tollhouse_server.custody.rotation_store import Overtaken, claim, move
from tollhouse_server.custody.terms import Step
from tollhouse_server.database.rows import run_sql
from tollhouse_server.errors import KeyProviderFailed
from tollhouse_server.vault.key_ring import upstream_key_path

from tests.drivers.custody import AT_ONCE, Boundaries, Crash, Rig


async def test_a_rotation_replaces_the_key_everywhere(rig: Rig) -> None:
    """The new one is active; the old one is gone at the provider and in Vault."""
    name = await rig.start()

    ended = await rig.finish(name)

    assert (ended.outcome, ended.error, ended.remark) == ("SUCCEEDED", "", "")
    assert await rig.keys_in("ACTIVE") == [ended.new_key_id]
    assert await rig.keys_in("RETIRED") == ["first"]
    await rig.assert_in_order()


@pytest.mark.parametrize("refuses", [False, True], ids=["accepted", "refused"])
async def test_a_crash_at_any_boundary_is_finished_by_the_next_process(rig: Rig, *, refuses: bool) -> None:
    """Between any two things that a rotation asks of other processes, with nothing left over anywhere."""
    # The first key came by hand, so retiring it takes a look into Vault more.
    await run_to_end(rig, Boundaries(), "SUCCEEDED")
    chosen, outcome = replace(rig, refuses=refuses), "FAILED" if refuses else "SUCCEEDED"
    plain = Boundaries()
    await run_to_end(chosen, plain, outcome)

    # After one thing is before the next; tests/faults strikes both sides, and under load.
    for crash_at in [index for index, name in enumerate(plain.passed) if not name.startswith("after")]:
        crashed = await run_to_end(chosen, Boundaries(crash_at=crash_at), outcome)
        assert crashed, plain.passed[crash_at]
        await rig.assert_in_order()
    assert len(plain.passed) > (25 if refuses else 40)


async def run_to_end(rig: Rig, boundaries: Boundaries, outcome: str) -> bool:
    """Rotate once, with a crash on the way if there is one; tell whether there was."""
    name = await rig.start()
    machine = rig.machine(boundaries)
    crashed = False
    try:
        while (await rig.rotation(name)).ended_at is None:
            await machine.advance()
    except Crash:
        crashed = True
        # The crash may have come after the very last commit.
        if (await rig.rotation(name)).ended_at is None:
            await rig.finish(name)
    assert (await rig.rotation(name)).outcome == outcome
    return crashed


async def test_a_key_that_the_upstream_does_not_take_yet_is_waited_for(rig: Rig) -> None:
    """Google's keys become valid with a delay; only one that stays refused is given up."""
    patient = replace(rig, refuses=True, pace=replace(AT_ONCE, probe_patience=timedelta(minutes=1)))
    name = await patient.start()

    for _ in range(4):
        await patient.machine().advance()
    waiting = await rig.rotation(name)
    ended = await rig.finish(name)

    assert (waiting.step, waiting.tries > 0) == ("PROBE", True)
    assert ended.outcome == "SUCCEEDED"


async def test_a_refused_key_leaves_the_old_one_in_use_and_the_reason_behind(rig: Rig) -> None:
    """The new one was never active, and is gone at the provider and in Vault."""
    refused = replace(rig, refuses=True)
    name = await refused.start()

    ended = await refused.finish(name)

    assert (ended.outcome, ended.step) == ("FAILED", "ROLL_BACK")
    assert "refuses the new key" in ended.error
    assert await rig.keys_in("ACTIVE") == ["first"]
    await rig.assert_in_order()


async def test_a_key_that_cannot_be_told_at_its_provider_is_left_to_a_person(rig: Rig) -> None:
    """It came by hand, so that its name there is unknown, and somebody has lost its secret from Vault."""
    name = await rig.start()
    await rig.vault.delete_secret(upstream_key_path(rig.account_id, "first"))

    ended = await rig.finish(name)

    assert ended.outcome == "SUCCEEDED"
    assert "by hand" in ended.remark
    assert await rig.live_at_provider() == ["first", ended.new_key_id]


async def test_whoever_was_overtaken_can_write_nothing(rig: Rig) -> None:
    """A process that stood still past its lease finds a higher fence."""
    await rig.start()
    async with rig.database.transaction() as session:
        slow = await claim(session, lease_seconds=0.0)
    async with rig.database.transaction() as session:
        quick = await claim(session, lease_seconds=0.0)
    assert slow is not None
    assert quick is not None
    assert quick.fence > slow.fence

    with pytest.raises(Overtaken):
        async with rig.database.transaction() as session:
            await move(session, slow, Step.PROBE)


async def test_a_leased_rotation_is_left_alone(rig: Rig) -> None:
    """Two housekeepers never work at one step."""
    await rig.start()
    async with rig.database.transaction() as session:
        await claim(session, lease_seconds=60.0)

    assert not await rig.machine().advance()


async def test_two_processes_at_one_step_issue_one_key(rig: Rig) -> None:
    """The id is the rotation's own, and the provider knows it once."""
    order = rig.order("key-20261121-0a1b2c3d")

    first, second = await asyncio.gather(rig.provider.issue(order), rig.provider.issue(order))

    assert first is not None
    assert second is not None
    assert first.provider_key == second.provider_key
    assert first.secret == second.secret
    assert await rig.live_at_provider() == ["first", "key-20261121-0a1b2c3d"]


@pytest.mark.parametrize("method", ["GetKey", "CreateKey", "GetKeyString", "DeleteKey"])
async def test_a_provider_that_fails_is_asked_again(rig: Rig, method: str) -> None:
    """The error stands in the rotation meanwhile."""
    plan = await rig.simulator.add_fault("503", method=method)
    name = await rig.start()
    for _ in range(12):
        await rig.machine().advance()
    failing = await rig.rotation(name)
    await rig.simulator.clear_faults(plan["id"])
    async with rig.database.transaction() as session:
        await run_sql(session, "UPDATE key_rotation SET next_at = now()")

    ended = await rig.finish(name)

    assert "The key provider SIMULATOR failed" in failing.error
    assert (ended.outcome, ended.error) == ("SUCCEEDED", "")
    await rig.assert_in_order()


async def test_a_provider_that_cannot_be_reached_says_so_without_details_of_the_request(rig: Rig) -> None:
    """Key strings are in the paths of some requests."""
    unreachable = rig.provider_at(ApiKeysAddress(endpoint="http://127.0.0.1:9", token="t"))

    with pytest.raises(KeyProviderFailed) as raised:
        await unreachable.find(rig.order("any"))

    assert "127.0.0.1" not in str(raised.value)
