"""What the policies along a path come to."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as some
from tollhouse_server.routing.policies import (
    AutoRouter,
    EffectivePolicy,
    OnDeviceRule,
    Policies,
    RoutingPolicy,
    covers,
    effective_policy,
)
from tollhouse_server.routing.priorities import Priority
from tollhouse_server.upstream.protocol import UpstreamKind

from tests.unit.routing.build import ACME, CRM, SALES

REGIONS = ("europe-west4", "europe-west1", "us-east1", "", "asia-east2")
PATTERNS = ("europe-*", "europe-west*", "europe-west4", "us-east1", "global", "a*")


def merged(*policies: RoutingPolicy) -> EffectivePolicy:
    return effective_policy(list(zip((ACME, SALES, CRM), policies, strict=False)))


def patterns() -> some.SearchStrategy[frozenset[str] | None]:
    return some.none() | some.frozensets(some.sampled_from(PATTERNS), min_size=1)


@given(some.lists(patterns(), min_size=1, max_size=3))
def test_a_region_is_allowed_exactly_where_every_scope_allows_it(lists: list[frozenset[str] | None]) -> None:
    """No list below can open what one above has closed, with patterns too."""
    found = merged(*(RoutingPolicy(allowed_regions=one) for one in lists))

    for region in REGIONS:
        expected = all(one is None or any(covers(part, region or "global") for part in one) for one in lists)
        assert found.allows_region(region) == expected


@given(some.lists(some.none() | some.frozensets(some.sampled_from("abc"), min_size=1), min_size=1, max_size=3))
def test_lists_of_tiers_and_models_only_narrow(lists: list[frozenset[str] | None]) -> None:
    """A name passes when every list that there is has it."""
    found = merged(*(RoutingPolicy(allowed_tiers=one, allowed_models=one) for one in lists))

    for name in "abcd":
        expected = all(one is None or name in one for one in lists)
        assert found.allows_tier(name) == found.allows_model(name) == expected


@pytest.mark.parametrize(
    ("levels", "asked", "granted"),
    [
        ((None, None), Priority.CRITICAL, Priority.DEFAULT),
        ((None, None), Priority.BATCH, Priority.BATCH),
        ((Priority.CRITICAL, None), Priority.CRITICAL, Priority.CRITICAL),
        ((Priority.CRITICAL, Priority.BATCH), Priority.CRITICAL, Priority.BATCH),
        ((Priority.BATCH, Priority.CRITICAL), Priority.DEFAULT, Priority.BATCH),
        ((None, Priority.CRITICAL), Priority.CRITICAL, Priority.DEFAULT),
    ],
)
def test_a_priority_is_granted_from_the_tenant_down(
    levels: tuple[Priority | None, ...], asked: Priority, granted: Priority
) -> None:
    """Critical takes the tenant's leave; a department can lower it and not take it."""
    found = merged(*(RoutingPolicy(highest_priority=one) for one in levels))

    assert found.granted(asked) is granted


def test_preferences_come_from_the_nearest_scope() -> None:
    """Whoever says nothing leaves what was said above."""
    found = merged(
        RoutingPolicy(allow_fallback=False, resend_unknown_outcome=False, auto=AutoRouter(is_enabled=True)),
        RoutingPolicy(allow_fallback=True),
        RoutingPolicy(auto=AutoRouter(is_enabled=False)),
    )

    assert found.may_fall_back()
    assert not found.may_fall_back(asked=False)
    assert not found.may_resend_unknown()
    assert found.policy.auto == AutoRouter(is_enabled=False)
    assert found.origins == {
        "allow_fallback": (SALES,),
        "resend_unknown_outcome": (ACME,),
        "auto": (CRM,),
    }


@pytest.mark.parametrize(("policy", "asked"), list(itertools.product((None, True, False), repeat=2)))
def test_a_call_may_forbid_to_be_sent_anew_and_not_allow_it(policy: bool | None, asked: bool | None) -> None:
    """Two charges for one answer take both words."""
    found = merged(RoutingPolicy(resend_unknown_outcome=policy))

    assert found.may_resend_unknown(asked) == (policy is not False and asked is not False)


def test_lists_tell_all_the_scopes_that_narrowed_them() -> None:
    """An error names the nearest, an explanation all."""
    kinds = RoutingPolicy(allowed_kinds=frozenset({UpstreamKind.VERTEX}))

    found = merged(kinds, RoutingPolicy(), kinds)

    assert found.origins["allowed_kinds"] == (ACME, CRM)
    assert found.scope_of("allowed_kinds") == CRM
    assert not found.allows_kind(UpstreamKind.GEMINI_API)


def test_rules_for_the_device_add_up_and_the_required_come_first() -> None:
    """A project cannot lose a rule of its tenant by one of its own."""
    found = merged(
        RoutingPolicy(on_device_rules=(OnDeviceRule(name="keep", labels={"data": "secret"}, is_required=True),)),
        RoutingPolicy(on_device_rules=(OnDeviceRule(name="offline", is_offline_only=True),)),
    )

    def rule(labels: dict[str, str], *, is_offline: bool) -> str:
        met = found.on_device_rule(tier="t", models=["m"], input_tokens=5, labels=labels, is_offline=is_offline)
        return met.name if met else ""

    assert rule({"data": "secret"}, is_offline=True) == "keep"
    assert rule({}, is_offline=True) == "offline"
    assert rule({}, is_offline=False) == ""
    assert found.rule_scopes == {"keep": ACME, "offline": SALES}


def test_the_nearest_department_with_a_weight_counts_in_the_queue() -> None:
    """The heaviest counts as any department of a tenant without weights: nothing is taken from other tenants."""
    found = merged(RoutingPolicy(department_weights={"sales": 5, "emea": 2}))

    assert found.queue_weight(("sales", "emea")) == 2 / 5
    assert found.queue_weight(("sales", "apac")) == 1
    assert found.queue_weight(("research",)) == 1 / 5
    assert merged(RoutingPolicy()).queue_weight(("research",)) == 1


def test_projects_that_say_nothing_share_what_stands_above_them() -> None:
    """Theirs is one policy, and so are the routes that are remembered by it; whoever says something has his own."""
    tenant = RoutingPolicy(allowed_tiers=frozenset("a"))
    policies = Policies({"tenants/acme": tenant, "tenants/acme/departments/hr": RoutingPolicy()})

    of_one, *others = [policies.effective("acme", (f"d{number}",), "crm") for number in range(1000)]

    assert all(other is of_one for other in others)
    assert policies.effective("acme", ("hr",), "crm") is not of_one
