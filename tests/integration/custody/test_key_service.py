"""Rotations, revocations and policies as an administrator asks for them."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace

import pytest
from tollhouse.admin.v1 import upstream_keys_pb2 as pb
from tollhouse_server.custody.rotations import KeyVault
from tollhouse_server.custody.terms import ProviderKind
from tollhouse_server.database.epochs import Topic, bump
from tollhouse_server.database.rows import run_sql
from tollhouse_server.errors import InvalidRequest, RotationUnderWay, WrongState
from tollhouse_server.names import KeyRotationName
from tollhouse_server.vault.secret_text import SecretFields

from tests.drivers.custody import Boundaries, Crash, Rig
from tests.drivers.postgres import TestDatabase
from tests.integration.admin.plane import Plane

KEY = pb.UpstreamKey


@pytest.fixture
async def plane(fresh_database: TestDatabase, rig: Rig) -> AsyncIterator[Plane]:
    """The administration plane over the rig's account, whose keys the simulator issues."""
    plane = await Plane.start(fresh_database.app_dsn)
    plane.hold_keys(rig.vault)
    policy = pb.KeyPolicy(name=policy_of(rig), provider=pb.KEY_PROVIDER_SIMULATOR, drain_seconds=0)
    await plane.call(pb.UpdateKeyPolicyRequest(key_policy=policy))
    yield plane
    await plane.database.close()


def policy_of(rig: Rig) -> str:
    return f"accounts/{rig.account_id}/keyPolicy"


def first_of(rig: Rig) -> str:
    return f"accounts/{rig.account_id}/upstreamKeys/first"


async def finish(rig: Rig, started: pb.KeyRotation) -> None:
    await rig.finish(KeyRotationName.parse(started.name))


async def test_a_rotation_that_was_asked_for_ends_with_a_new_key(plane: Plane, rig: Rig) -> None:
    """The answer says how it begins, the resource how it ended, the old key's metadata stays."""
    started = await plane.call(pb.RotateUpstreamKeyRequest(name=first_of(rig)))
    meanwhile = await plane.call(pb.GetUpstreamKeyRequest(name=first_of(rig)))
    await finish(rig, started)

    ended = await plane.call(pb.GetKeyRotationRequest(name=started.name))
    keys = (await plane.call(pb.ListUpstreamKeysRequest(parent=f"accounts/{rig.account_id}"))).upstream_keys
    listed = await plane.call(pb.ListKeyRotationsRequest(parent=f"accounts/{rig.account_id}"))

    assert (started.state, started.step) == (pb.KeyRotation.STATE_RUNNING, pb.KeyRotation.STEP_STAGE)
    assert meanwhile.rotation == started.name
    assert (ended.state, ended.error) == (pb.KeyRotation.STATE_SUCCEEDED, "")
    assert ended.creator.startswith("tenants/platform/principals/")
    assert {key.name: key.state for key in keys} == {
        first_of(rig): KEY.STATE_RETIRED,
        ended.new_key: KEY.STATE_ACTIVE,
    }
    assert [one.name for one in listed.key_rotations] == [started.name]


async def test_every_step_is_in_the_trail_under_who_asked(plane: Plane, rig: Rig) -> None:
    """From the request to the end, in order, each in the transaction of its step."""
    started = await plane.call(pb.RotateUpstreamKeyRequest(name=first_of(rig)))
    await finish(rig, started)

    async with rig.database.transaction() as session:
        sql = "SELECT actor, after FROM audit_event WHERE resource = :name ORDER BY event_id"
        events = (await run_sql(session, sql, {"name": started.name})).all()

    steps = [event.after["step"].removeprefix("STEP_") for event in events]
    assert steps == ["STAGE", "PROBE", "PROMOTE", "OVERLAP", "DRAIN", "RETIRE", "DESTROY", "DESTROY"]
    assert {event.actor for event in events} == {started.creator}
    assert events[-1].after["ended"] is True


async def test_two_rotations_of_one_key_cannot_cross(plane: Plane, rig: Rig) -> None:
    """The second is told of the first; nor can the key be deleted under it."""
    started = await plane.call(pb.RotateUpstreamKeyRequest(name=first_of(rig)))

    for crossing in (pb.RotateUpstreamKeyRequest, pb.DeleteUpstreamKeyRequest):
        with pytest.raises(RotationUnderWay) as raised:
            await plane.call(crossing(name=first_of(rig)))
        assert raised.value.rotation == started.name


async def test_to_start_a_rotation_makes_nobody_load_the_accounts_anew(plane: Plane, rig: Rig) -> None:
    """No key has changed yet; and whoever announces something must not be waited for with rotations locked."""
    before = await accounts_epoch(rig)

    await plane.call(pb.RotateUpstreamKeyRequest(name=first_of(rig)))

    assert await accounts_epoch(rig) == before


async def accounts_epoch(rig: Rig) -> int:
    async with rig.database.transaction() as session:
        return int((await run_sql(session, "SELECT value FROM epoch WHERE topic = 'accounts'")).one().value)


@dataclass(frozen=True, slots=True)
class SlowVault:
    """Destroys a secret only when it is told to go on."""

    inner: KeyVault
    is_asked: asyncio.Event = field(default_factory=asyncio.Event)
    may_go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def read_secret(self, path: str, *, version: int | None = None) -> SecretFields:
        return await self.inner.read_secret(path, version=version)

    async def write_secret(self, path: str, values: Mapping[str, str], *, cas: int) -> int:
        return await self.inner.write_secret(path, values, cas=cas)

    async def delete_secret(self, path: str) -> None:
        self.is_asked.set()
        await self.may_go_on.wait()
        await self.inner.delete_secret(path)


async def test_a_deletion_that_waits_for_vault_keeps_nobody_else_waiting(plane: Plane, rig: Rig) -> None:
    """Another key that is refused or revoked meanwhile is announced to everybody at once."""
    vault = SlowVault(rig.vault)
    plane.hold_keys(vault)
    deletion = asyncio.create_task(plane.call(pb.DeleteUpstreamKeyRequest(name=first_of(rig))))
    await vault.is_asked.wait()

    async with asyncio.timeout(5), rig.database.transaction() as session:
        await bump(session, Topic.ACCOUNTS)
    vault.may_go_on.set()
    await deletion

    assert await rig.keys_in("ACTIVE") == [] == await rig.in_vault()


async def test_a_rotation_is_cancelled_before_its_key_is_used_and_not_after(plane: Plane, rig: Rig) -> None:
    """What was made of it is taken back; the old key is untouched."""
    started = await plane.call(pb.RotateUpstreamKeyRequest(name=first_of(rig)))
    await rig.machine().advance()

    cancelled = await plane.call(pb.CancelKeyRotationRequest(name=started.name))
    await finish(rig, started)
    later = await plane.call(pb.RotateUpstreamKeyRequest(name=first_of(rig)))
    for _ in range(3):
        await rig.machine().advance()
    with pytest.raises(WrongState):
        await plane.call(pb.CancelKeyRotationRequest(name=later.name))

    ended = await plane.call(pb.GetKeyRotationRequest(name=started.name))
    assert cancelled.step == pb.KeyRotation.STEP_ROLL_BACK
    assert ended.state == pb.KeyRotation.STATE_CANCELLED
    await finish(rig, later)
    await rig.assert_in_order()


@pytest.mark.parametrize("boundary", ["after issue", "after write to Vault"])
async def test_a_key_that_nobody_has_written_down_is_taken_back_too(plane: Plane, rig: Rig, boundary: str) -> None:
    """Issued by a process that crashed, then the rotation was cancelled: the id under which it lives is known."""
    plain = Boundaries()
    first = await plane.call(pb.RotateUpstreamKeyRequest(name=first_of(rig)))
    await rig.machine(plain).advance()
    await plane.call(pb.CancelKeyRotationRequest(name=first.name))
    await finish(rig, first)
    second = await plane.call(pb.RotateUpstreamKeyRequest(name=first_of(rig)))
    with pytest.raises(Crash):
        await rig.machine(Boundaries(crash_at=plain.passed.index(boundary))).advance()
    alive = await rig.live_at_provider()

    await plane.call(pb.CancelKeyRotationRequest(name=second.name))
    await finish(rig, second)

    assert len(alive) == 2
    await rig.assert_in_order()


async def test_a_key_that_a_person_brings_goes_through_the_same_steps(plane: Plane, rig: Rig) -> None:
    """With `replaces` it is staged, tried, and takes the place of the old one, which he has to delete himself."""
    policy = pb.KeyPolicy(name=policy_of(rig), provider=pb.KEY_PROVIDER_MANUAL)
    await plane.call(pb.UpdateKeyPolicyRequest(key_policy=policy))
    brought = await rig.provider.issue(rig.order("brought"))
    assert brought is not None
    started = await plane.call(pb.RotateUpstreamKeyRequest(name=first_of(rig)))
    await rig.machine().advance()
    waiting = await plane.call(pb.GetKeyRotationRequest(name=started.name))

    added = await plane.call(
        pb.AddUpstreamKeyRequest(
            parent=f"accounts/{rig.account_id}",
            upstream_key_id="brought",
            secret=brought.secret.reveal(),
            replaces="first",
        )
    )
    await finish(rig, started)

    ended = await plane.call(pb.GetKeyRotationRequest(name=started.name))
    assert "person" in waiting.error
    assert added.state == KEY.STATE_STAGED
    assert (ended.state, ended.new_key) == (pb.KeyRotation.STATE_SUCCEEDED, added.name)
    assert "by hand" in ended.remark
    assert await rig.keys_in("ACTIVE") == ["brought"]
    assert await rig.in_vault() == ["brought"]


async def test_a_new_version_in_vault_is_a_new_key_too(plane: Plane, rig: Rig) -> None:
    """Whoever may write there need not know Tollhouse's commands."""
    manual = replace(rig, kind=ProviderKind.MANUAL)
    brought = await rig.provider.issue(rig.order("brought"))
    assert brought is not None
    name = await manual.start()
    await manual.machine().advance()
    await rig.vault.write_secret(f"upstream-keys/{rig.account_id}/first", {"key": brought.secret.reveal()}, cas=1)

    ended = await manual.finish(name)

    assert ended.outcome == "SUCCEEDED"
    assert await rig.keys_in("ACTIVE") == [ended.new_key_id] == await rig.in_vault()
    held = await rig.vault.read_secret(f"upstream-keys/{rig.account_id}/{ended.new_key_id}")
    assert held["key"] == brought.secret.reveal()


async def test_a_revoked_key_is_out_at_once_and_then_gone_everywhere(plane: Plane, rig: Rig) -> None:
    """It stays REVOKED, cannot be enabled again, and is deleted at its provider and in Vault."""
    revocation = await plane.call(pb.RevokeUpstreamKeyRequest(name=first_of(rig)))
    at_once = await plane.call(pb.GetUpstreamKeyRequest(name=first_of(rig)))
    await finish(rig, revocation)

    assert (at_once.state, at_once.rotation) == (KEY.STATE_REVOKED, revocation.name)
    assert await rig.live_at_provider() == [] == await rig.in_vault()
    assert await rig.keys_in("REVOKED") == ["first"]
    for again in (pb.EnableUpstreamKeyRequest, pb.RevokeUpstreamKeyRequest, pb.RotateUpstreamKeyRequest):
        with pytest.raises(WrongState):
            await plane.call(again(name=first_of(rig)))


async def test_revoking_the_new_key_of_a_rotation_brings_the_old_one_back(plane: Plane, rig: Rig) -> None:
    """Even when the old one is out of use already."""
    started = await plane.call(pb.RotateUpstreamKeyRequest(name=first_of(rig)))
    for _ in range(4):
        await rig.machine().advance()
    draining = await rig.keys_in("DRAINING")

    revocation = await plane.call(pb.RevokeUpstreamKeyRequest(name=started.new_key))
    await finish(rig, revocation)
    await finish(rig, started)

    ended = await plane.call(pb.GetKeyRotationRequest(name=started.name))
    assert draining == ["first"]
    assert ended.state == pb.KeyRotation.STATE_FAILED
    assert await rig.keys_in("ACTIVE") == ["first"] == await rig.live_at_provider()


async def test_a_policy_has_defaults_bounds_and_a_credential_that_nobody_sees(plane: Plane, rig: Rig) -> None:
    """Google needs a service account, which goes to Vault alone."""
    canary = "canary-private-key-8c1f"
    name = policy_of(rig)
    google = pb.KeyPolicy(name=name, provider=pb.KEY_PROVIDER_GOOGLE)
    for credential in ("", "not JSON", json.dumps({"private_key": canary})):
        with pytest.raises(InvalidRequest) as raised:
            await plane.call(pb.UpdateKeyPolicyRequest(key_policy=google, provider_credential=credential))
        assert canary not in str(raised.value)

    credential = json.dumps({"client_email": "a@b.test", "private_key": canary, "token_uri": "https://c.test"})
    after = await plane.call(pb.UpdateKeyPolicyRequest(key_policy=google, provider_credential=credential))

    held = await rig.vault.read_secret(f"custody/{rig.account_id}")
    async with rig.database.transaction() as session:
        trail = str((await run_sql(session, "SELECT before, after FROM audit_event")).all())
    assert held["credential"] == credential
    assert canary not in f"{after}{trail}"
    assert (after.rotation_period_days, after.drain_seconds) == (60, 0)


async def test_an_account_without_a_policy_shows_the_defaults(plane: Plane, rig: Rig) -> None:
    """Sixty days, ten minutes, by hand."""
    async with rig.database.transaction() as session:
        await run_sql(session, "DELETE FROM key_policy")

    found = await plane.call(pb.GetKeyPolicyRequest(name=policy_of(rig)))

    assert (found.provider, found.rotation_period_days, found.drain_seconds) == (pb.KEY_PROVIDER_MANUAL, 60, 600)
