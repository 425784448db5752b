"""What on-device use would have cost upstream: by which model, at which price, and when nobody can say."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from tollhouse_server.devices.avoided import Alternative, list_nanos
from tollhouse_server.devices.terms import Avoided, Receipt
from tollhouse_server.errors import ModelUnpriced
from tollhouse_server.names import DeviceName
from tollhouse_server.pricing.terms import ModelPrices, PriceBook, PriceList
from tollhouse_server.routing.models import Alias, TierChoice
from tollhouse_server.routing.policies import OnDeviceRule, RoutingPolicy

from tests.unit.routing.build import ACME, NOW, catalogue, model

LITE, PRO = 100_000_000, 2_000_000_000


def prices(name: str, nanos: int, **fields: Any) -> PriceList:
    return PriceList(
        model=name,
        effective_from=datetime(2020, 1, 1, tzinfo=UTC),
        source="test",
        nanos_per_million={"input_text": nanos, "output_text": 4 * nanos} | fields.pop("more", {}),
        **fields,
    )


def receipt(**fields: Any) -> Receipt:
    defaults: dict[str, Any] = {
        "device": DeviceName("acme", "phone"),
        "receipt_id": uuid4(),
        "sequence": 1,
        "started_at": NOW,
        "model": "gemini-nano-v3",
        "input_tokens": 1_000_000,
        "output_tokens": 0,
        "requests": 10,
        "task": "",
        "labels": {},
        "digest": b"",
    }
    return Receipt(**defaults | fields)


def avoided(*rules: OnDeviceRule, said: Receipt | None = None, **policy: Any) -> Avoided:
    known = catalogue(
        model("old", shutdown_at=NOW - timedelta(days=1)),
        model("lite"),
        model("pro"),
        model("unpriced"),
        tiers={
            "flash-lite": [TierChoice(model="old"), TierChoice(model="lite")],
            "pro": [TierChoice(model="lite", rank=1), TierChoice(model="pro", rank=0)],
        },
        aliases=(Alias(alias="best", model="pro"),),
        policies={ACME: RoutingPolicy(on_device_rules=rules, **policy)},
    )
    book = PriceBook(7, [prices("lite", LITE), prices("pro", PRO)])
    alternative = Alternative(catalogue=known, policy=known.policy("acme"), price_book=book, at=NOW)
    return alternative.avoided(said or receipt())


def test_without_a_rule_it_is_the_first_living_model_of_flash_lite() -> None:
    """The cheapest way upstream: nobody's savings look too large."""
    assert avoided() == Avoided(model="lite", nanos=LITE, price_version=7)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([OnDeviceRule(name="r", tiers=("pro",))], "pro"),
        ([OnDeviceRule(name="r", models=("best",), tiers=("flash-lite",))], "pro"),
        ([OnDeviceRule(name="r", tiers=("gone",))], "lite"),
        ([OnDeviceRule(name="r", models=("gone",))], "lite"),
        ([OnDeviceRule(name="r", tiers=("pro",), labels={"data": "health"})], "pro"),
        ([OnDeviceRule(name="r", tiers=("pro",), labels={"data": "other"})], "lite"),
        ([OnDeviceRule(name="r", tiers=("pro",), max_input_tokens=100_000)], "pro"),
        ([OnDeviceRule(name="r", tiers=("pro",), max_input_tokens=99_999)], "lite"),
        ([OnDeviceRule(name="a"), OnDeviceRule(name="b", tiers=("pro",))], "lite"),
        ([OnDeviceRule(name="a"), OnDeviceRule(name="b", tiers=("pro",), is_required=True)], "pro"),
    ],
)
def test_the_first_rule_that_the_use_meets_names_the_model(rules: list[OnDeviceRule], expected: str) -> None:
    """In the order in which calls meet rules; a request's tokens are the receipt's by the number of requests."""
    assert avoided(*rules, said=receipt(labels={"data": "health", "team": "ward"})).model == expected


def test_a_tier_is_what_the_policy_makes_of_it() -> None:
    """Who overrides a tier would have paid for the override."""
    assert avoided(tier_overrides={"flash-lite": (TierChoice(model="pro"),)}).model == "pro"


def test_what_has_no_price_is_not_known_and_not_zero() -> None:
    """The model is named all the same."""
    rule = OnDeviceRule(name="r", models=("unpriced",))

    assert avoided(rule) == Avoided(model="unpriced", nanos=None, price_version=7)


def test_each_direction_is_rounded_once_and_long_prices_are_for_long_requests() -> None:
    """A receipt of many short requests is no long one."""
    long = ModelPrices(
        version=1, terms=prices("m", 1_500_000, long_above_tokens=1_000, more={"input_text_long": 3_000_000})
    )

    assert list_nanos(long, receipt(input_tokens=1, output_tokens=1, requests=1)) == 2 + 6
    assert list_nanos(long, receipt(input_tokens=10_000, requests=10)) == 15_000
    assert list_nanos(long, receipt(input_tokens=10_001, requests=10)) == 30_003


def test_a_direction_without_a_price_matters_only_where_it_was_used() -> None:
    """Embedding models have no answers to price."""
    only_in = ModelPrices(
        version=1, terms=PriceList(model="m", effective_from=NOW, source="t", nanos_per_million={"input_text": 10**6})
    )

    assert list_nanos(only_in, receipt(input_tokens=5)) == 5
    with pytest.raises(ModelUnpriced):
        list_nanos(only_in, receipt(output_tokens=1))
