"""Rotation against real PostgreSQL, OpenBao and the simulator's API Keys API."""

from tests.drivers.custody import Boundaries, Crash, Rig


async def test_a_rotation_replaces_the_key_everywhere(rig: Rig) -> None:
    """The new one is active; the old one is gone at the provider and in Vault."""
    name = await rig.start()

    ended = await rig.finish(name)

    assert (ended.outcome, ended.error, ended.remark) == ("SUCCEEDED", "", "")
    assert await rig.keys_in("ACTIVE") == [ended.new_key_id]
    assert await rig.keys_in("RETIRED") == ["first"]
    await rig.assert_in_order()


async def test_a_crash_at_any_boundary_is_finished_by_the_next_process(rig: Rig) -> None:
    """Before and after each thing that a rotation asks of another process, with nothing left over anywhere."""
    # The first key came by hand, so retiring it takes a look into Vault more.
    await run_to_end(rig, Boundaries())
    plain = Boundaries()
    await run_to_end(rig, plain)

    for crash_at in range(len(plain.passed)):
        crashed = await run_to_end(rig, Boundaries(crash_at=crash_at))
        assert crashed, plain.passed[crash_at]
        await rig.assert_in_order()


async def run_to_end(rig: Rig, boundaries: Boundaries) -> bool:
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
    assert (await rig.rotation(name)).outcome == "SUCCEEDED"
    return crashed
