"""Narrowed, bound and rotated API keys."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from tollhouse.admin.v1 import api_keys_pb2 as pb
from tollhouse.admin.v1 import projects_pb2, tenants_pb2
from tollhouse_server.api.chain import Arrival
from tollhouse_server.errors import (
    CredentialsInvalid,
    Fault,
    InvalidRequest,
    PermissionDenied,
    RequestIdReused,
    ResourceNotFound,
    WrongState,
)
from tollhouse_server.identity.directory import Directory
from tollhouse_server.identity.last_use import LastUse
from tollhouse_server.identity.networks import parse_network
from tollhouse_server.identity.principal import Principal

from tests.integration.admin.plane import PATIENCE_SECONDS, PEPPER, Plane

CRM = "tenants/acme/departments/emea/projects/crm"
BOT = "tenants/acme/principals/bot"


@pytest.fixture
async def acme(plane: Plane) -> Plane:
    """Tenant acme with a bot that may do everything in it."""
    await plane.tenant("acme")
    await plane.key("acme", "bot", ("tenant-admin", "tenants/acme"))
    return plane


async def made(plane: Plane, *, key: str | None = None, **fields: Any) -> pb.CreateApiKeyResponse:
    """Make a key of the bot."""
    request = pb.CreateApiKeyRequest(parent=CRM, api_key=pb.ApiKey(**({"principal": BOT} | fields)))
    answer: pb.CreateApiKeyResponse = await plane.call(request, key=key)
    await plane.watch.refresh()
    return answer


async def admitted(plane: Plane, key: str, arrival: Arrival | None = None) -> Principal:
    """Return who a key stands for."""
    await plane.watch.refresh()
    return await plane.directory.authenticate(f"Bearer {key}", patience_seconds=PATIENCE_SECONDS, presented=arrival)


def arrival(peer: str, forwarded_for: str = "") -> Arrival:
    """Return a call from somewhere."""
    metadata = {"x-forwarded-for": forwarded_for} if forwarded_for else {}
    return Arrival(body=b"", metadata=metadata, deadline=None, peer=peer)


PREFIXES = {
    pb.ApiKey.ENVIRONMENT_UNSPECIFIED: ("th_live_", "live"),
    pb.ApiKey.ENVIRONMENT_LIVE: ("th_live_", "live"),
    pb.ApiKey.ENVIRONMENT_TEST: ("th_test_", "test"),
    pb.ApiKey.ENVIRONMENT_DEVELOPMENT: ("th_dev_", "development"),
    pb.ApiKey.ENVIRONMENT_STAGING: ("th_stage_", "staging"),
}


async def test_each_environment_has_keys_of_its_own(acme: Plane) -> None:
    """It shows in the text, and decides which accounts serve the key's calls."""
    for environment, (prefix, name) in PREFIXES.items():
        answer = await made(acme, environment=environment)

        assert answer.secret.startswith(prefix)
        assert (await admitted(acme, answer.secret)).environment == name


async def test_a_narrowed_key_does_what_it_is_for_and_nothing_else(acme: Plane) -> None:
    """Whatever else its principal may do; and it makes no key that may do more."""
    narrow = (await made(acme, scopes=["usage", "projects.get", "apiKeys.create"])).secret

    await acme.call(projects_pb2.GetProjectRequest(name=CRM), key=narrow)
    with pytest.raises(PermissionDenied):
        await acme.call(tenants_pb2.GetTenantRequest(name="tenants/acme"), key=narrow)
    with pytest.raises(PermissionDenied):
        await made(acme, key=narrow)
    with pytest.raises(PermissionDenied):
        await made(acme, key=narrow, scopes=["generation"])
    assert (await made(acme, key=narrow, scopes=["usage"])).secret
    with pytest.raises(InvalidRequest):
        await made(acme, scopes=["everything"])


async def test_a_bound_key_is_accepted_from_its_networks_alone(acme: Plane) -> None:
    """The connection's end counts, a header only behind a proxy that is trusted, and nobody's word elsewhere."""
    key = (await made(acme, allowed_networks=["192.0.2.0/24", "2001:db8::/32"])).secret
    behind = Directory(acme.database, acme.watch, PEPPER, trusted_proxies=[parse_network("10.0.0.0/8")])

    for good in ("ipv4:192.0.2.7:1", "ipv6:%5B2001:db8::7%5D:1", "ipv6:%5B::ffff:192.0.2.7%5D:1"):
        assert (await admitted(acme, key, arrival(good))).name == BOT
    for bad in (arrival("ipv4:198.51.100.1:1"), arrival("unix:"), None, arrival("ipv4:10.0.0.1:1", "192.0.2.7")):
        with pytest.raises(CredentialsInvalid) as refused:
            await admitted(acme, key, bad)
        assert refused.value.fault is Fault.NETWORK
    await acme.watch.refresh()
    proxied = arrival("ipv4:10.0.0.1:1", "203.0.113.9, 192.0.2.7")
    assert await behind.authenticate(f"Bearer {key}", patience_seconds=1, presented=proxied)


async def test_networks_can_be_changed_and_must_be_networks(acme: Plane) -> None:
    """A change is in force as soon as it is known."""
    answer = await made(acme, allowed_networks=["192.0.2.1"])
    change = pb.ApiKey(name=answer.api_key.name, allowed_networks=["198.51.100.0/24"])

    assert list(answer.api_key.allowed_networks) == ["192.0.2.1/32"]
    await acme.call(pb.UpdateApiKeyRequest(api_key=change))
    assert await admitted(acme, answer.secret, arrival("ipv4:198.51.100.1:1"))
    for wrong in ("10.0.0.1/8", "nowhere", "::ffff:10.0.0.0/104"):
        with pytest.raises(InvalidRequest):
            await made(acme, allowed_networks=[wrong])


async def test_a_key_is_widened_only_by_who_could_make_it(acme: Plane) -> None:
    """For longer, or from more networks: a key of someone stronger; to narrow it is anybody's who may change it."""
    clerk = await acme.key("acme", "clerk", ("department-admin", "tenants/acme/departments/sales"))
    ends = pb.ApiKey()
    ends.expire_time.FromDatetime(datetime.now(UTC) + timedelta(hours=2))
    bound = await made(acme, expire_time=ends.expire_time, allowed_networks=["192.0.2.0/24", "2001:db8::/32"])
    name = bound.api_key.name

    async def change(by: str, *paths: str, **fields: Any) -> pb.ApiKey:
        request = pb.UpdateApiKeyRequest(api_key=pb.ApiKey(name=name, **fields), update_mask=FieldMask(paths=paths))
        answer: pb.ApiKey = await acme.call(request, key=by)
        return answer

    ends.expire_time.seconds += 1
    for field, value in (
        ("expire_time", ends.expire_time),
        ("expire_time", None),
        ("allowed_networks", []),
        ("allowed_networks", ["192.0.2.0/24", "198.51.100.1"]),
        ("allowed_networks", ["::/0"]),
    ):
        with pytest.raises(PermissionDenied):
            await change(clerk, field, **{field: value})
    ends.expire_time.seconds -= 3600
    narrowed = await change(
        clerk, "expire_time", "allowed_networks", expire_time=ends.expire_time, allowed_networks=["192.0.2.7"]
    )
    assert (narrowed.expire_time, list(narrowed.allowed_networks)) == (ends.expire_time, ["192.0.2.7/32"])
    assert not (await change(acme.admin_key, "allowed_networks")).allowed_networks


async def test_a_key_tells_about_when_it_was_last_used(acme: Plane) -> None:
    """Noted on calls, written in one statement now and then, without a new version of the key."""
    answer = await made(acme)
    uses = LastUse(acme.database)
    directory = Directory(acme.database, acme.watch, PEPPER, uses=uses)
    await acme.watch.refresh()

    await directory.authenticate(f"Bearer {answer.secret}", patience_seconds=1)
    await uses.publish()
    await uses.publish()
    read = await acme.call(pb.GetApiKeyRequest(name=answer.api_key.name))

    assert not answer.api_key.HasField("last_use_time")
    assert abs(read.last_use_time.ToDatetime(tzinfo=UTC) - datetime.now(UTC)) < timedelta(seconds=60)
    assert read.etag == answer.api_key.etag


async def test_a_rotated_key_goes_on_beside_its_successor(acme: Plane) -> None:
    """The successor has all that the old one had; the old one ends after the overlap, and is not rotated twice."""
    old = await made(acme, scopes=["usage"], allowed_networks=["192.0.2.0/24"], environment=pb.ApiKey.ENVIRONMENT_TEST)
    here = arrival("ipv4:192.0.2.1:1")

    answer = await acme.call(pb.RotateApiKeyRequest(name=old.api_key.name))

    new, before = answer.api_key, answer.predecessor
    ends_in = before.expire_time.ToDatetime(tzinfo=UTC) - datetime.now(UTC)
    assert timedelta(hours=23, minutes=59) < ends_in <= timedelta(hours=24)
    assert (new.predecessor, before.successor) == (before.name, new.name)
    assert [new.principal, new.environment, *new.scopes, *new.allowed_networks] == [
        *(BOT, pb.ApiKey.ENVIRONMENT_TEST, "usage", "192.0.2.0/24")
    ]
    for secret in (old.secret, answer.secret):
        assert (await admitted(acme, secret, here)).name == BOT
    with pytest.raises(WrongState):
        await acme.call(pb.RotateApiKeyRequest(name=old.api_key.name))
    await acme.call(pb.RevokeApiKeyRequest(name=new.name))
    assert (await acme.call(pb.RotateApiKeyRequest(name=old.api_key.name))).secret


async def test_without_an_overlap_the_old_key_is_revoked(acme: Plane) -> None:
    """For a key that has leaked; and a revoked one has no successor."""
    old = await made(acme)

    answer = await acme.call(pb.RotateApiKeyRequest(name=old.api_key.name, overlap=Duration()))

    assert answer.predecessor.state == pb.ApiKey.STATE_REVOKED
    assert (await admitted(acme, answer.secret)).name == BOT
    with pytest.raises(CredentialsInvalid):
        await admitted(acme, old.secret)
    with pytest.raises(WrongState):
        await acme.call(pb.RotateApiKeyRequest(name=old.api_key.name))


async def test_a_successor_lives_as_long_as_its_predecessor_was_made_for(acme: Plane) -> None:
    """And no overlap lets the old one outlive its own expiry."""
    expiry = pb.ApiKey()
    expiry.expire_time.FromDatetime(datetime.now(UTC) + timedelta(hours=2))
    old = await made(acme, expire_time=expiry.expire_time)

    answer = await acme.call(pb.RotateApiKeyRequest(name=old.api_key.name))

    lives = answer.api_key.expire_time.ToDatetime(tzinfo=UTC) - datetime.now(UTC)
    assert timedelta(hours=1, minutes=59) < lives <= timedelta(hours=2)
    assert answer.predecessor.expire_time == old.api_key.expire_time


async def test_a_repeated_rotation_makes_one_key_and_shows_it_once(acme: Plane) -> None:
    """By its request id; a dry run makes none."""
    old = await made(acme)
    request = pb.RotateApiKeyRequest(name=old.api_key.name, validate_only=True)
    dry = await acme.call(request)
    request.validate_only, request.request_id = False, "6b8f3a52-94c0-4d9b-8d57-7c1f3b2f9a11"

    first, again = await acme.call(request), await acme.call(request)

    assert (dry.secret, again.secret) == ("", "")
    assert again.api_key == first.api_key
    request.overlap.FromSeconds(1)
    with pytest.raises(RequestIdReused):
        await acme.call(request)


async def test_nobody_rotates_the_key_of_someone_mightier(acme: Plane) -> None:
    """The new key would be his."""
    dean = await acme.key("acme", "dean", ("department-admin", "tenants/acme/departments/sales"))
    boss = await made(acme)

    with pytest.raises(PermissionDenied):
        await acme.call(pb.RotateApiKeyRequest(name=boss.api_key.name), key=dean)


async def test_no_key_is_made_or_left_that_has_expired(acme: Plane) -> None:
    """To end one is to revoke it; a rotation would hand out what nobody can use."""
    past = pb.ApiKey()
    past.expire_time.FromDatetime(datetime.now(UTC) - timedelta(seconds=1))
    old = (await made(acme)).api_key

    for request in (
        pb.CreateApiKeyRequest(parent=CRM, api_key=pb.ApiKey(principal=BOT, expire_time=past.expire_time)),
        pb.RotateApiKeyRequest(name=old.name, expire_time=past.expire_time),
        pb.UpdateApiKeyRequest(
            api_key=pb.ApiKey(name=old.name, expire_time=past.expire_time),
            update_mask=FieldMask(paths=["expire_time"]),
        ),
    ):
        with pytest.raises(InvalidRequest, match="expire_time"):
            await acme.call(request)

    assert (await acme.call(pb.GetApiKeyRequest(name=old.name))).state == pb.ApiKey.STATE_ACTIVE


async def test_a_key_of_a_deleted_project_is_not_rotated(acme: Plane) -> None:
    """Its successor could not be used either."""
    old = (await made(acme)).api_key
    await acme.call(projects_pb2.DeleteProjectRequest(name=CRM))

    with pytest.raises(ResourceNotFound):
        await acme.call(pb.RotateApiKeyRequest(name=old.name))
