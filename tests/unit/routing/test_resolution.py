"""Ranks, weights, what a policy and a request leave out, and why."""

from datetime import timedelta
from typing import Any

import pytest
from tollhouse_server.errors import (
    InvalidRequest,
    ModelNotAllowed,
    ModelShutDown,
    NoUpstreamKey,
    OnDeviceOnly,
    RegionNotAllowed,
    TierAutoOff,
)
from tollhouse_server.routing.models import Alias, Capability, TierChoice
from tollhouse_server.routing.policies import AutoRouter, OnDeviceRule, RoutingPolicy
from tollhouse_server.routing.route import OnDevice, Reason, Route
from tollhouse_server.upstream.protocol import UpstreamKind

from tests.unit.routing.build import ACME, CRM, NOW, SALES, account, catalogue, model, request, text_of, vertex

AUDIO = {"contents": [{"parts": [{"text": "what is said?"}, {"inlineData": {"mimeType": "audio/wav", "data": "AA"}}]}]}


def places(route: Route) -> list[tuple[str, str, int, int]]:
    return [(one.model, one.account_id, one.rank, one.weight) for one in route.targets]


def reasons(route: Route) -> list[tuple[str, str, Reason]]:
    return [(one.model, one.account_id, one.reason) for one in route.left_out]


# --- ranks and weights ------------------------------------------------------------------------------------------------


def test_choices_without_a_rank_are_asked_one_after_the_other() -> None:
    """The order of a tier is its ranks, as it was before there were any."""
    found = catalogue(model("m"), model("n"), tiers={"t": [TierChoice(model="n"), TierChoice(model="m")]})

    assert places(found.resolve(request(tier="t"))) == [("n", "a", 0, 1), ("m", "a", 1, 1)]


def test_choices_of_one_rank_share_by_weight_however_many_accounts_each_has() -> None:
    """Three parts for m over two accounts and one part for n over one: 3, 3 and 2 of eight."""
    choices = [TierChoice(model="m", rank=0, weight=3), TierChoice(model="n", account_id="b", rank=0)]
    accounts = (account("a"), account("b"))
    found = catalogue(model("m"), model("n"), tiers={"t": choices}, accounts=accounts)

    assert places(found.resolve(request(tier="t"))) == [("m", "a", 0, 3), ("m", "b", 0, 3), ("n", "b", 0, 2)]


def test_a_named_model_has_all_its_accounts_in_one_rank() -> None:
    """Head-room chooses among them, not their names."""
    found = catalogue(model("m"), accounts=(account("a"), vertex("v", "europe-west4")))

    assert places(found.resolve(request(model="m"))) == [("m", "a", 0, 1), ("m", "v", 0, 1)]


def test_a_place_that_two_choices_name_is_asked_once_at_the_lower_rank() -> None:
    """Twice the same account and model would be a retry in disguise."""
    choices = [TierChoice(model="m", account_id="b"), TierChoice(model="m")]
    found = catalogue(model("m"), tiers={"t": choices}, accounts=(account("a"), account("b")))

    assert places(found.resolve(request(tier="t"))) == [("m", "b", 0, 1), ("m", "a", 1, 1)]


def test_without_fallback_the_choices_of_the_first_rank_remain() -> None:
    """Those that share the traffic are all first choices."""
    choices = [TierChoice(model="m", rank=0), TierChoice(model="n", rank=0), TierChoice(model="o", rank=1)]
    found = catalogue(model("m"), model("n"), model("o"), tiers={"t": choices})

    route = found.resolve(request(tier="t", allow_fallback=False))

    assert [one.model for one in route.targets] == ["m", "n"]
    assert reasons(route) == [("o", "", Reason.FALLBACK)]


# --- whose accounts ---------------------------------------------------------------------------------------------------


def test_an_account_of_a_tenant_or_environment_serves_no_other_and_is_not_told_of() -> None:
    """Its very name is nobody else's business."""
    accounts = (account("own", tenant_id="acme"), account("other", tenant_id="rival"), account("t", environment="test"))
    found = catalogue(model("m"), accounts=accounts)

    route = found.resolve(request(model="m"))

    assert [one.account_id for one in route.targets] == ["own"]
    assert route.left_out == ()
    with pytest.raises(NoUpstreamKey):
        found.resolve(request(model="m", tenant_id="third"))
    assert [one.account_id for one in found.resolve(request(model="m", tenant_id="rival")).targets] == ["other"]


# --- dates ------------------------------------------------------------------------------------------------------------


def test_a_route_that_was_found_before_a_shutdown_does_not_outlive_it() -> None:
    """What is remembered ends with the next date that matters, in both directions."""
    later = NOW + timedelta(days=90)
    choices = [TierChoice(model="m"), TierChoice(model="n")]
    found = catalogue(model("m", shutdown_at=later, successor="n"), model("n"), tiers={"t": choices})

    first = found.resolve(request(tier="t"))
    near = found.resolve(request(tier="t", at=later - timedelta(days=30)))
    after = found.resolve(request(tier="t", at=later))
    again = found.resolve(request(tier="t"))

    assert [one.model for one in first.targets] == ["m", "n"]
    assert first.retiring == again.retiring == ()
    assert [(one.model, one.successor) for one in near.retiring] == [("m", "n")]
    assert [one.model for one in after.targets] == ["n"]
    assert reasons(after) == [("m", "", Reason.SHUT_DOWN)]


def test_the_catalogue_may_name_the_day_of_notice() -> None:
    """Thirty days before the end is only what holds where it says nothing."""
    fields: dict[str, Any] = {"shutdown_at": NOW + timedelta(days=90), "notice_at": NOW}
    found = catalogue(model("m", **fields))

    assert len(found.resolve(request(model="m")).retiring) == 1
    assert found.resolve(request(model="m", at=NOW - timedelta(seconds=1))).retiring == ()


def test_a_successor_is_named_and_never_used_by_itself() -> None:
    """Another model is another answer and another price."""
    found = catalogue(model("m", shutdown_at=NOW, successor="n"), model("n"))

    with pytest.raises(ModelShutDown, match="use n"):
        found.resolve(request(model="m"))


# --- what a request needs ---------------------------------------------------------------------------------------------


def test_a_model_that_lacks_what_the_request_needs_is_left_out() -> None:
    """The next one of the tier answers instead, before anything is held."""
    choices = [TierChoice(model="m"), TierChoice(model="n")]
    found = catalogue(model("m"), model("n", Capability.AUDIO_INPUT), tiers={"t": choices})

    route = found.resolve(request(tier="t", body=AUDIO))

    assert [one.model for one in route.targets] == ["n"]
    assert reasons(route) == [("m", "", Reason.CAPABILITY)]
    assert "contents[0].parts[1].inline_data" in route.left_out[0].detail


def test_the_error_names_the_field_and_the_models_that_could() -> None:
    """A caller reads what to change: the field, or the name of the model."""
    found = catalogue(model("m"), model("able", Capability.AUDIO_INPUT), tiers={"t": [TierChoice(model="m")]})

    with pytest.raises(InvalidRequest) as refused:
        found.resolve(request(tier="t", body=AUDIO))

    assert refused.value.violations[0].path == "contents[0].parts[1].inline_data"
    assert refused.value.violations[0].description.endswith("it could be served by: able")


def test_a_prompt_that_is_certainly_too_large_goes_to_a_model_that_takes_it() -> None:
    """Only what no tokenizer could make smaller counts as too large."""
    large = model("large", bounds=model("x").bounds.__class__(input_token_limit=10_000, output_token_limit=1))
    found = catalogue(model("m"), large, tiers={"t": [TierChoice(model="m"), TierChoice(model="large")]})

    fits = found.resolve(request(tier="t", body=text_of("x" * 32_000)))
    too_large = found.resolve(request(tier="t", body=text_of("x" * 33_000)))

    assert [one.model for one in fits.targets] == ["m", "large"]
    assert [one.model for one in too_large.targets] == ["large"]
    with pytest.raises(InvalidRequest, match="contents: needs at least 1031 input tokens"):
        found.resolve(request(model="m", body=text_of("x" * 33_000)))


# --- policies ---------------------------------------------------------------------------------------------------------


def test_allowed_tiers_hold_for_the_models_behind_them_too() -> None:
    """Nobody gets around the list by the model's own name."""
    tiers = {"t": [TierChoice(model="m")], "dear": [TierChoice(model="n")]}
    policies = {ACME: RoutingPolicy(allowed_tiers=frozenset({"t"}))}
    found = catalogue(model("m"), model("n"), tiers=tiers, policies=policies)

    assert found.resolve(request(model="m")).tier == "t"
    for named in ({"tier": "dear"}, {"model": "n"}):
        with pytest.raises(ModelNotAllowed, match=r"tenants/acme does not allow .*; it allows: tiers t") as refused:
            found.resolve(request(**named))
        assert refused.value.scope == ACME
    assert found.resolve(request(model="n", tenant_id="free")).tier == "dear"


def test_a_model_outside_the_list_is_left_out_of_its_tier() -> None:
    """Only when none is left does the tier refuse."""
    tiers = {"t": [TierChoice(model="m"), TierChoice(model="n")]}
    found = catalogue(
        model("m"), model("n"), tiers=tiers, policies={CRM: RoutingPolicy(allowed_models=frozenset({"n"}))}
    )

    route = found.resolve(request(tier="t"))

    assert [one.model for one in route.targets] == ["n"]
    assert reasons(route) == [("m", "", Reason.MODEL_NOT_ALLOWED)]
    with pytest.raises(ModelNotAllowed, match="it allows: models n"):
        found.resolve(request(model="m"))


def test_a_company_that_must_know_where_its_data_is_gets_no_developer_api() -> None:
    """Kinds and regions narrow the accounts; without any left the error says which list it was."""
    accounts = (account("a"), vertex("eu", "europe-west4"), vertex("us", "us-east1"))
    europe = RoutingPolicy(allowed_kinds=frozenset({UpstreamKind.VERTEX}), allowed_regions=frozenset({"europe-*"}))
    found = catalogue(model("m"), accounts=accounts, policies={ACME: europe})

    route = found.resolve(request(model="m"))

    assert [one.account_id for one in route.targets] == ["eu"]
    assert reasons(route) == [("m", "a", Reason.KIND_NOT_ALLOWED), ("m", "us", Reason.REGION_NOT_ALLOWED)]
    with pytest.raises(RegionNotAllowed, match=r"does not allow region us-east1; it allows: regions europe-\*"):
        found.resolve(request(model="m", region="us-east1"))
    with pytest.raises(RegionNotAllowed, match="does not allow upstream gemini_api; it allows: kinds vertex"):
        found.resolve(request(model="m", kinds=frozenset({UpstreamKind.GEMINI_API})))


@pytest.mark.parametrize(
    ("regions", "served"), [({"global"}, ["a"]), ({"europe-*"}, []), ({"global", "e*"}, ["a", "v"])]
)
def test_accounts_without_a_region_are_global(regions: set[str], served: list[str]) -> None:
    """They serve only whose policy has "global", or no list."""
    policies = {ACME: RoutingPolicy(allowed_regions=frozenset(regions))}
    accounts = (account("a"), vertex("v", "e1"))
    found = catalogue(model("m"), accounts=accounts, policies=policies)

    if served:
        assert [one.account_id for one in found.resolve(request(model="m")).targets] == served
    else:
        with pytest.raises(RegionNotAllowed):
            found.resolve(request(model="m"))


def test_the_call_itself_may_ask_for_kinds_and_regions() -> None:
    """What it asks for and nobody has is no upstream, as ever."""
    found = catalogue(model("m"), accounts=(account("a"), vertex("v", "europe-west4")))

    route = found.resolve(request(model="m", kinds=frozenset({UpstreamKind.VERTEX})))

    assert [one.account_id for one in route.targets] == ["v"]
    assert reasons(route) == [("m", "a", Reason.KIND_NOT_ASKED)]
    with pytest.raises(NoUpstreamKey):
        found.resolve(request(model="m", region="us-east1"))


def test_the_nearest_scope_says_what_stands_behind_a_tier_and_whether_it_falls_back() -> None:
    """A department's own models do not touch the others'."""
    tiers = {"t": [TierChoice(model="m")]}
    policies = {
        ACME: RoutingPolicy(allow_fallback=False),
        SALES: RoutingPolicy(tier_overrides={"t": (TierChoice(model="n"), TierChoice(model="m"))}),
        CRM: RoutingPolicy(allow_fallback=True),
    }
    found = catalogue(model("m"), model("n"), tiers=tiers, policies=policies)

    assert [one.model for one in found.resolve(request(tier="t")).targets] == ["n", "m"]
    assert [one.model for one in found.resolve(request(tier="t", project_id="erp")).targets] == ["n"]
    assert [one.model for one in found.resolve(request(tier="t", department_path=(), project_id="")).targets] == ["m"]


def test_two_tenants_never_share_a_remembered_route() -> None:
    """The same question under another policy is another question."""
    policies = {ACME: RoutingPolicy(allowed_models=frozenset({"n"}))}
    found = catalogue(
        model("m"), model("n"), tiers={"t": [TierChoice(model="m"), TierChoice(model="n")]}, policies=policies
    )

    first = found.resolve(request(tier="t", tenant_id="free"))
    second = found.resolve(request(tier="t"))

    assert [one.model for one in first.targets] == ["m", "n"]
    assert [one.model for one in second.targets] == ["n"]
    assert found.resolve(request(tier="t")) is second


# --- on the device ----------------------------------------------------------------------------------------------------


def test_a_required_rule_keeps_data_from_every_cloud_model() -> None:
    """Others only advise: a call that comes all the same is served."""
    rules = (
        OnDeviceRule(name="short", max_input_tokens=10),
        OnDeviceRule(name="health", labels={"data_class": "health"}, is_required=True),
    )
    found = catalogue(model("m"), policies={ACME: RoutingPolicy(on_device_rules=rules)})

    assert found.resolve(request(model="m", body=text_of("hello"))).targets
    assert found.explain(request(model="m", body=text_of("hello"))).rule == rules[0]
    assert found.explain(request(model="m", body=text_of("hello " * 50))).rule is None
    with pytest.raises(OnDeviceOnly, match="Rule health of tenants/acme"):
        found.resolve(request(model="m", labels={"data_class": "health"}, on_device=OnDevice.FORBIDDEN))


def test_a_call_that_must_stay_on_the_device_is_never_sent() -> None:
    """Its own word suffices."""
    with pytest.raises(OnDeviceOnly, match="do not send the call"):
        catalogue(model("m")).resolve(request(model="m", on_device=OnDevice.REQUIRED))


# --- tier auto --------------------------------------------------------------------------------------------------------


def auto_catalogue(**policy: Any) -> Any:
    tiers = {name: [TierChoice(model=name)] for name in ("flash-lite", "flash", "pro")}
    models = (model("flash-lite"), model("flash"), model("pro", Capability.AUDIO_INPUT))
    fields = {"auto": AutoRouter(is_enabled=True)} | policy
    return catalogue(*models, tiers=tiers, policies={ACME: RoutingPolicy(**fields)})


def test_tier_auto_is_off_unless_the_policy_switches_it_on() -> None:
    """Nobody's calls move to other models by an update of Tollhouse."""
    for found in (catalogue(model("m")), auto_catalogue(auto=AutoRouter(is_enabled=False))):
        with pytest.raises(TierAutoOff, match="is off here"):
            found.resolve(request(tier="auto", body=text_of("hello")))


def test_tier_auto_books_under_the_tier_that_it_chose_and_says_why() -> None:
    """The explanation travels with the route."""
    route = auto_catalogue().resolve(request(tier="auto", body=text_of("hello")))

    assert (route.tier, route.targets[0].model) == ("flash-lite", "flash-lite")
    assert route.choice is not None
    assert (route.choice.tier, route.choice.score) == ("flash-lite", 0)


def test_tier_auto_goes_up_to_a_tier_that_can_serve_and_is_allowed() -> None:
    """An easy question about a recording needs a model that hears."""
    assert auto_catalogue().resolve(request(tier="auto", body=AUDIO)).tier == "pro"
    allowed = auto_catalogue(allowed_tiers=frozenset({"flash"}))
    assert allowed.resolve(request(tier="auto", body=text_of("hello"))).tier == "flash"


def test_an_alias_that_has_ended_is_refused_by_name() -> None:
    """Aliases are not left out in silence."""
    found = catalogue(model("m"), aliases=(Alias(alias="old", model="m", shutdown_at=NOW),))

    with pytest.raises(ModelShutDown, match=r"old was shut down .*; use m\."):
        found.resolve(request(model="old"))
