"""Routing policies and tier targets through the administration plane."""

from collections.abc import Mapping
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from tollhouse.admin.v1 import routing_policies_pb2 as pb
from tollhouse.v1 import generation_pb2 as v1
from tollhouse_server.database.rows import run_sql
from tollhouse_server.errors import (
    EtagMismatch,
    InvalidRequest,
    PermissionDenied,
    ResourceNotFound,
)
from tollhouse_server.routing.addresses import Addresses
from tollhouse_server.routing.live import LiveCatalogue
from tollhouse_server.routing.policies import EffectivePolicy

from tests.drivers.postgres import Preparation, TestDatabase
from tests.integration.admin.plane import Plane, add_catalogue, plane_over

TENANT = "tenants/acme"
SALES = f"{TENANT}/departments/sales"
EMEA = f"{TENANT}/departments/emea"
CRM = f"{EMEA}/projects/crm"


async def with_company(database: TestDatabase) -> str:
    """Tenant acme: department sales, emea below it, project crm there; and the packaged catalogue."""
    async with plane_over(database) as plane:
        await add_catalogue(plane)
        await plane.tenant("acme")
        return plane.admin_key


@pytest.fixture
def preparation() -> Preparation:
    return with_company


@pytest.fixture
def company(plane: Plane) -> Plane:
    """The plane with the company, which `preparation` has put there."""
    return plane


async def set_policy(plane: Plane, scope: str, *mask: str, key: str | None = None, **fields: Any) -> pb.RoutingPolicy:
    policy = pb.RoutingPolicy(name=f"{scope}/routingPolicy", **fields)
    request = pb.UpdateRoutingPolicyRequest(
        routing_policy=policy, update_mask=FieldMask(paths=list(mask)) if mask else None
    )
    answer: pb.RoutingPolicy = await plane.call(request, key=key)
    return answer


async def get_policy(plane: Plane, scope: str) -> pb.RoutingPolicy:
    answer: pb.RoutingPolicy = await plane.call(pb.GetRoutingPolicyRequest(name=f"{scope}/routingPolicy"))
    return answer


def origins(policy: pb.RoutingPolicy) -> Mapping[str, list[str]]:
    return {one.field: list(one.scopes) for one in policy.effective_origins}


async def loaded(plane: Plane) -> EffectivePolicy:
    live = LiveCatalogue(plane.database, Addresses(base_urls={}))
    await live.reload()
    return live.current.policy("acme", ("sales", "emea"), "crm")


def names(*given: str) -> pb.NameList:
    return pb.NameList(names=given)


async def test_a_project_sees_what_is_in_force_and_where_it_comes_from(company: Plane) -> None:
    """Three scopes speak; the answer of the lowest tells all of them apart, and servers load the same."""
    await set_policy(company, TENANT, allowed_tiers=names("flash", "pro"), allow_fallback=False)
    await set_policy(company, SALES, allowed_tiers=names("flash", "nano"))
    await set_policy(company, CRM, allow_fallback=True, highest_priority=v1.PRIORITY_CRITICAL)

    found = await get_policy(company, CRM)

    assert not found.HasField("allowed_tiers")
    assert found.allow_fallback
    assert list(found.effective.allowed_tiers.names) == ["flash"]
    assert found.effective.highest_priority == v1.PRIORITY_DEFAULT
    assert origins(found) == {
        "allow_fallback": [CRM],
        "allowed_tiers": [TENANT, SALES],
        "highest_priority": [CRM],
    }
    in_force = await loaded(company)
    assert in_force.policy.allowed_tiers == frozenset({"flash"})
    assert in_force.may_fall_back()
    assert in_force.origins["allowed_tiers"] == (TENANT, SALES)


async def test_every_field_comes_back_as_it_was_set(company: Plane) -> None:
    """Nothing is lost between the wire, the row and the wire."""
    given: dict[str, Any] = {
        "allowed_tiers": names("flash", "pro"),
        "allowed_models": names("gemini-2.5-pro", "gemini-3.8-flash"),
        "allowed_kinds": pb.UpstreamKindList(kinds=[v1.UPSTREAM_KIND_VERTEX]),
        "allowed_regions": names("europe-*", "global"),
        "highest_priority": v1.PRIORITY_CRITICAL,
        "on_device_rules": [
            pb.OnDeviceRule(
                name="health",
                tiers=["flash"],
                models=["gemini-2.5-pro"],
                max_input_tokens=0,
                labels={"data_class": "health"},
                offline_only=True,
                required=True,
            )
        ],
        "tier_overrides": [
            pb.TierOverride(
                tier="pro", targets=[pb.TierTarget(model="gemini-2.5-pro", region="europe-west4", rank=0, weight=3)]
            )
        ],
        "allow_fallback": False,
        "resend_unknown_outcome": False,
        "auto": pb.AutoRouting(
            enabled=True, points={"tools": 7}, thresholds=[v1.TierThreshold(tier="flash", min_score=0)]
        ),
        "department_weights": {"sales": 3},
    }

    await set_policy(company, TENANT, **given)
    found = await get_policy(company, TENANT)

    for name, value in given.items():
        said = getattr(found, name)
        assert (list(said) if isinstance(value, list) else dict(said) if isinstance(value, dict) else said) == value, (
            name
        )
    assert found.effective == pb.RoutingPolicy(**given)


async def test_a_mask_clears_what_is_not_set_and_leaves_the_rest(company: Plane) -> None:
    """False is a word, and nothing is none."""
    await set_policy(company, TENANT, allow_fallback=False, allowed_tiers=names("flash"))

    after = await set_policy(company, TENANT, "allow_fallback")

    assert not after.HasField("allow_fallback")
    assert list(after.allowed_tiers.names) == ["flash"]
    assert after.etag == "v2"


async def test_an_etag_guards_the_first_word_too(company: Plane) -> None:
    """v0 is that of a scope that says nothing."""
    nothing = await get_policy(company, TENANT)

    await set_policy(company, TENANT, etag=nothing.etag, allow_fallback=False)

    assert nothing.etag == "v0"
    with pytest.raises(EtagMismatch):
        await set_policy(company, TENANT, etag="v0", allow_fallback=True)
    with pytest.raises(EtagMismatch):
        await company.call(pb.DeleteRoutingPolicyRequest(name=f"{TENANT}/routingPolicy", etag="v9"))


async def test_a_deleted_policy_is_nowhere_any_more(company: Plane) -> None:
    """The scope says nothing, as before; a second deletion finds nothing."""
    await set_policy(company, TENANT, allowed_tiers=names("flash"))
    request = pb.DeleteRoutingPolicyRequest(name=f"{TENANT}/routingPolicy")

    await company.call(request)

    assert (await get_policy(company, TENANT)).etag == "v0"
    assert (await loaded(company)).policy.allowed_tiers is None
    with pytest.raises(ResourceNotFound):
        await company.call(request)


async def test_a_dry_run_says_what_would_be_and_changes_nothing(company: Plane) -> None:
    """The same answer, the same refusals, no row."""
    policy = pb.RoutingPolicy(name=f"{TENANT}/routingPolicy", allow_fallback=False)

    answer = await company.call(pb.UpdateRoutingPolicyRequest(routing_policy=policy, validate_only=True))

    assert answer.etag == "v1"
    assert (await get_policy(company, TENANT)).etag == "v0"


@pytest.mark.parametrize(
    ("scope", "fields", "path"),
    [
        (TENANT, {"allowed_tiers": names("flsh")}, "allowed_tiers"),
        (TENANT, {"allowed_models": names("gemini-9")}, "allowed_models"),
        (TENANT, {"allowed_models": names("gemini-*")}, "allowed_models"),
        (TENANT, {"tier_overrides": [pb.TierOverride(tier="t", targets=[pb.TierTarget(model="m")])]}, "tier_overrides"),
        (TENANT, {"on_device_rules": [pb.OnDeviceRule(name="a"), pb.OnDeviceRule(name="a")]}, "on_device_rules"),
        (TENANT, {"on_device_rules": [pb.OnDeviceRule(name="a", tiers=["t"])]}, "on_device_rules.tiers"),
        (TENANT, {"auto": pb.AutoRouting(thresholds=[v1.TierThreshold(tier="t")])}, "auto.thresholds"),
        (SALES, {"department_weights": {"emea": 2}}, "department_weights"),
    ],
)
async def test_a_name_that_is_nowhere_is_refused_with_its_field(
    company: Plane, scope: str, fields: dict[str, Any], path: str
) -> None:
    """In a list that allows, a slip of the pen would lock everybody out."""
    with pytest.raises(InvalidRequest) as refused:
        await set_policy(company, scope, **fields)

    assert path in {one.path for one in refused.value.violations}


@pytest.mark.parametrize("scope", ["tenants/ghost", f"{TENANT}/departments/ghost", f"{SALES}/projects/ghost"])
async def test_a_scope_that_is_not_there_has_no_policy(company: Plane, scope: str) -> None:
    """Neither to read nor to write."""
    with pytest.raises(ResourceNotFound):
        await get_policy(company, scope)
    with pytest.raises(ResourceNotFound):
        await set_policy(company, scope, allow_fallback=True)


async def test_no_tenant_gives_itself_priority_over_others(company: Plane) -> None:
    """Critical calls go before those of every tenant: that is the platform's to grant."""
    key = await company.key("acme", "boss", ("tenant-admin", TENANT))

    with pytest.raises(PermissionDenied):
        await set_policy(company, TENANT, key=key, highest_priority=v1.PRIORITY_CRITICAL)
    await set_policy(company, TENANT, key=key, highest_priority=v1.PRIORITY_BATCH)
    granted = await set_policy(company, TENANT, highest_priority=v1.PRIORITY_CRITICAL)

    assert granted.highest_priority == v1.PRIORITY_CRITICAL


async def test_a_department_reads_what_holds_for_it_and_cannot_lift_it(company: Plane) -> None:
    """Who may change a department's policy could delete what the tenant has said there."""
    key = await company.key("acme", "head", ("department-admin", SALES))

    await company.call(pb.GetRoutingPolicyRequest(name=f"{SALES}/routingPolicy"), key=key)

    with pytest.raises(PermissionDenied):
        await set_policy(company, SALES, key=key, allow_fallback=True)
    with pytest.raises(PermissionDenied):
        await company.call(pb.DeleteRoutingPolicyRequest(name=f"{SALES}/routingPolicy"), key=key)
    with pytest.raises(PermissionDenied):
        await company.call(pb.SetTierTargetsRequest(name="tiers/pro"), key=key)


async def test_a_change_is_on_the_trail_with_what_was_before(company: Plane) -> None:
    """Who opened a region is asked months later."""
    await set_policy(company, TENANT, allowed_regions=names("europe-*"))
    await set_policy(company, TENANT, allowed_regions=names("global"))

    async with company.database.transaction() as session:
        query = "SELECT before, after FROM audit_event WHERE resource = :name ORDER BY after->>'etag'"
        rows = (await run_sql(session, query, {"name": f"{TENANT}/routingPolicy"})).all()

    assert rows[-1].before["allowedRegions"] == {"names": ["europe-*"]}
    assert rows[-1].after["allowedRegions"] == {"names": ["global"]}


async def test_a_tier_gets_other_targets_with_ranks_and_weights(company: Plane) -> None:
    """They are in the next catalogue, and a stale etag changes nothing."""
    name = "tiers/pro"
    before = await company.call(pb.GetTierTargetsRequest(name=name))
    targets = [
        pb.TierTarget(model="gemini-2.5-pro", rank=0, weight=3),
        pb.TierTarget(model="gemini-3.1-pro-preview", rank=0, weight=1),
        pb.TierTarget(model="gemini-4-argon", weight=1),
    ]

    after = await company.call(pb.SetTierTargetsRequest(name=name, targets=targets, etag=before.etag))

    assert not before.edited
    assert after.edited
    assert list(after.targets) == list((await company.call(pb.GetTierTargetsRequest(name=name))).targets) == targets
    live = LiveCatalogue(company.database, Addresses(base_urls={}))
    await live.reload()
    assert [(one.rank, one.weight) for one in live.current.get_tier("pro").choices] == [(0, 3), (0, 1), (None, 1)]
    with pytest.raises(EtagMismatch):
        await company.call(pb.SetTierTargetsRequest(name=name, targets=targets, etag=before.etag))


@pytest.mark.parametrize(
    "target", [pb.TierTarget(model="gemini-9"), pb.TierTarget(model="gemini-2.5-pro", account="nobody")]
)
async def test_a_tier_cannot_name_what_is_not_there(company: Plane, target: pb.TierTarget) -> None:
    """A model or an account."""
    with pytest.raises(ResourceNotFound):
        await company.call(pb.SetTierTargetsRequest(name="tiers/pro", targets=[target]))
