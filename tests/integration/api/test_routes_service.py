"""GenerationService.ResolveRoute over a catalogue and a price book in memory."""

from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from tollhouse.v1 import content_pb2
from tollhouse.v1 import generation_pb2 as pb
from tollhouse_server.api.services.routes_service import RouteService
from tollhouse_server.chargeback.labels import LiveBoundLabels
from tollhouse_server.errors import InvalidRequest, ModelUnknown, TierAutoOff
from tollhouse_server.names import ProjectName
from tollhouse_server.pricing.terms import PriceBook, PriceList
from tollhouse_server.routing.models import Capability, TierChoice
from tollhouse_server.routing.policies import AutoRouter, OnDeviceRule, RoutingPolicy
from tollhouse_server.routing.priorities import Priority
from tollhouse_server.tenancy.project_paths import ProjectPaths
from tollhouse_server.upstream.protocol import UpstreamKind

from tests.integration.api.callers import ROBOT, by
from tests.unit.routing.build import ACME, account, catalogue, model, vertex

BOOK = PriceBook(
    3,
    [
        PriceList(
            model="m",
            effective_from=datetime(2020, 1, 1, tzinfo=UTC),
            source="test",
            nanos_per_million={
                "input_text": 1_000_000_000,
                "output_text": 2_000_000_000,
                "thoughts": 2_000_000_000,
            },
        )
    ],
)
TIERS = {"flash": [TierChoice(model="m"), TierChoice(model="n", rank=1, weight=4)]}
ACCOUNTS = (account("a"), vertex("v", "europe-west4"))
OTHER = "tenants/acme/departments/sales/projects/crm"


class Paths:
    """Knows one project."""

    async def path_of(self, project: ProjectName) -> tuple[str, ...]:
        return ("head", project.department)


def service(
    policies: dict[str, RoutingPolicy] | None = None, keyless: Collection[str] = (), **retiring: Any
) -> RouteService:
    models = (model("m", **retiring), model("n", Capability.THINKING), model("unpriced"))
    found = catalogue(*models, tiers=TIERS, accounts=ACCOUNTS, policies=policies, keyless=keyless)
    return RouteService(
        catalogue=lambda: found,
        price_book=lambda: BOOK,
        project_paths=cast(ProjectPaths, Paths()),
        labels=LiveBoundLabels(cast(Any, None)),
        output_cap_tokens=500,
    )


async def ask(served: RouteService, **fields: Any) -> pb.ResolveRouteResponse:
    return await served.resolve_route(pb.ResolveRouteRequest(**fields), by())


def call(**fields: Any) -> pb.GenerateContentRequest:
    turn = content_pb2.Content(role="user", parts=[content_pb2.Part(text="hello")])
    return pb.GenerateContentRequest(contents=[turn], **fields)


async def test_the_targets_come_in_order_with_prices_of_the_first_and_reasons_for_the_rest() -> None:
    """What a call would do is told without one."""
    vertex_only = RoutingPolicy(allowed_kinds=frozenset({UpstreamKind.VERTEX}))

    answer = await ask(service({ACME: vertex_only}), tier="flash")

    assert answer.verdict == pb.ROUTE_VERDICT_UPSTREAM
    assert [(one.model, one.account, one.region, one.rank, one.weight) for one in answer.targets] == [
        ("m", "v", "europe-west4", 0, 1),
        ("n", "v", "europe-west4", 1, 1),
    ]
    assert [(one.model, one.account, one.reason) for one in answer.left_out] == [
        ("m", "a", pb.LEFT_OUT_REASON_KIND_NOT_ALLOWED),
        ("n", "a", pb.LEFT_OUT_REASON_KIND_NOT_ALLOWED),
    ]
    assert answer.left_out[0].kind == pb.UPSTREAM_KIND_GEMINI_API
    assert [(one.field, list(one.scopes)) for one in answer.policy_origins] == [("allowed_kinds", [ACME])]
    assert {one.sku for one in answer.prices} == {"input_text", "output_text", "thoughts"}
    assert not answer.HasField("cost_ceiling")


async def test_a_call_is_priced_at_its_worst() -> None:
    """With the server's cap where the call names none: a hundred tokens, which is all that the model gives."""
    answer = await ask(service(), call=call(tier="flash"))

    assert answer.output_tokens_ceiling == 100
    least = answer.input_tokens_ceiling * 1_000 + 100 * 2_000
    assert least <= answer.cost_ceiling.nanos < least + 100


async def test_a_refusal_is_an_answer_with_its_reason() -> None:
    """What would stop the call is what is asked for."""
    none = RoutingPolicy(allowed_regions=frozenset({"asia-*"}))

    answer = await ask(service({ACME: none}), tier="flash")

    assert answer.verdict == pb.ROUTE_VERDICT_REFUSED
    assert answer.refusal_reason == "REGION_NOT_ALLOWED"
    assert answer.refusal_message.startswith("tenants/acme does not allow region")
    assert not answer.targets
    assert len(answer.left_out) == 4


async def test_what_does_not_exist_is_an_error() -> None:
    """There is nothing to explain."""
    with pytest.raises(ModelUnknown):
        await ask(service(), tier="gold")
    with pytest.raises(TierAutoOff):
        await ask(service(), tier="auto")


async def test_the_device_answers_where_a_rule_or_the_call_says_so() -> None:
    """A device that cannot is sent upstream, unless the rule is required."""
    rules = (
        OnDeviceRule(name="short", max_input_tokens=10),
        OnDeviceRule(name="secret", labels={"data": "secret"}, is_required=True),
    )
    served = service({ACME: RoutingPolicy(on_device_rules=rules)})
    cannot = pb.RoutingOptions(on_device=pb.ON_DEVICE_FORBIDDEN)

    short = await ask(served, call=call(tier="flash"))
    long = await ask(served, tier="flash", input_tokens=11)
    sent = await ask(served, call=call(tier="flash", routing=cannot))
    kept = await ask(served, tier="flash", input_tokens=11, labels={"data": "secret"}, routing=cannot)
    own = await ask(service(), tier="flash", routing=pb.RoutingOptions(on_device=pb.ON_DEVICE_REQUIRED))

    assert (short.verdict, short.on_device_rule) == (pb.ROUTE_VERDICT_ON_DEVICE, "short")
    assert long.verdict == sent.verdict == pb.ROUTE_VERDICT_UPSTREAM
    assert (kept.verdict, kept.refusal_reason) == (pb.ROUTE_VERDICT_REFUSED, "ON_DEVICE_ONLY")
    assert own.verdict == pb.ROUTE_VERDICT_ON_DEVICE


async def test_tier_auto_explains_its_choice() -> None:
    """Features, points and thresholds are in the answer."""
    router = AutoRouter(is_enabled=True, thresholds=({"tier": "flash", "min_score": 0},))  # type: ignore[arg-type]

    answer = await ask(service({ACME: RoutingPolicy(auto=router)}), call=call(tier="auto"))

    assert (answer.tier, answer.tier_choice.tier) == ("flash", "flash")
    assert [(one.tier, one.min_score) for one in answer.tier_choice.thresholds] == [("flash", 0)]
    assert "code_percent" in {one.name for one in answer.tier_choice.features}


async def test_the_project_that_would_pay_says_whose_policy_holds() -> None:
    """That of the call before that of the request, and without either the credential's own."""
    policies = {
        "tenants/acme/departments/head": RoutingPolicy(resend_unknown_outcome=False),
        "tenants/acme/departments/research": RoutingPolicy(highest_priority=Priority.BATCH),
    }
    served = service(policies)

    other = await ask(served, tier="flash", parent=OTHER)
    of_call = await ask(served, call=call(tier="flash", parent=OTHER))
    own = await ask(served, tier="flash")

    assert not other.resend_unknown_outcome
    assert not of_call.resend_unknown_outcome
    assert own.resend_unknown_outcome
    assert (other.priority, own.priority) == (pb.PRIORITY_DEFAULT, pb.PRIORITY_BATCH)


async def test_a_model_that_ends_soon_is_named_with_what_comes_after() -> None:
    """Thirty days before."""
    end = datetime.now(UTC) + timedelta(days=3)

    answer = await ask(service(shutdown_at=end, successor="n"), tier="flash")

    assert [(one.model, one.successor) for one in answer.retiring] == [("m", "n")]
    assert answer.retiring[0].shutdown_time.ToDatetime(tzinfo=UTC) == end


async def test_a_model_without_a_price_is_explained_without_one() -> None:
    """That it cannot be called is the price book's to say."""
    answer = await ask(service(), model="unpriced")

    assert answer.verdict == pb.ROUTE_VERDICT_UPSTREAM
    assert not answer.prices


async def test_accounts_of_another_environment_are_not_told_of() -> None:
    """The credential's environment counts."""
    found = catalogue(model("m"), accounts=(account("live-one", environment="live"), account("any")))
    served = RouteService(
        catalogue=lambda: found,
        price_book=lambda: BOOK,
        project_paths=cast(ProjectPaths, Paths()),
        labels=LiveBoundLabels(cast(Any, None)),
        output_cap_tokens=5,
    )
    request = pb.ResolveRouteRequest(model="m")

    as_test = await served.resolve_route(request, by(replace(ROBOT, environment="test")))

    assert [one.account for one in as_test.targets] == ["any"]
    assert not as_test.left_out
    assert [one.account for one in (await ask(served, model="m")).targets] == ["any", "live-one"]


async def test_an_account_without_a_key_is_no_target() -> None:
    """It is told why, as calls are refused for it."""
    answer = await ask(service(keyless={"v"}), tier="flash")
    nowhere = await ask(service(keyless={"a", "v"}), tier="flash")

    assert {one.account for one in answer.targets} == {"a"}
    assert ("v", pb.LEFT_OUT_REASON_NO_ACCOUNT, "the account has no active key") in [
        (one.account, one.reason, one.detail) for one in answer.left_out
    ]
    assert (nowhere.verdict, nowhere.refusal_reason) == (pb.ROUTE_VERDICT_REFUSED, "NO_UPSTREAM_KEY")
    assert {one.account for one in nowhere.left_out} == {"a", "v"}


async def test_a_model_that_is_no_target_for_want_of_keys_is_not_announced_as_retiring() -> None:
    """The call cannot use it."""
    soon = datetime.now(UTC) + timedelta(days=9)
    served = service(keyless={"v"}, upstreams=(UpstreamKind.VERTEX,), shutdown_at=soon)

    answer = await ask(served, tier="flash")

    assert {one.model for one in answer.targets} == {"n"}
    assert not answer.retiring


async def test_a_body_that_no_call_may_have_is_refused_here_too() -> None:
    """A bound below one would be refused when it is called."""
    config = content_pb2.GenerationConfig(max_output_tokens=0)

    with pytest.raises(InvalidRequest, match="max_output_tokens"):
        await ask(service(), call=call(generation_config=config), tier="flash")
