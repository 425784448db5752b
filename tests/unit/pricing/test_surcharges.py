"""What an upstream address costs on top: exact, dated, a line of its own, and inside the ceiling."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tollhouse_server.errors import ModelUnpriced
from tollhouse_server.pricing.ceiling import ceiling, ceiling_of_embedding
from tollhouse_server.pricing.price import price
from tollhouse_server.pricing.price_file import import_prices, merge_surcharges
from tollhouse_server.pricing.terms import ModelPrices, PriceBook, Surcharge
from tollhouse_server.pricing.usage import Tokens, Usage

from .builders import BOOK, BOUNDS, NOW, prices, prices_of
from .test_ceiling import CAP, size_of, text_request
from .test_price import price_lists, usages
from .test_price_file import GOOD, file_of, violations_of

RELAY = "gemini_api-relay"
shares = st.integers(0, 10_000_000)


def surcharge(per_million: int, day: int = 1, endpoint: str = RELAY) -> Surcharge:
    return Surcharge(endpoint=endpoint, effective_from=datetime(2026, 11, day, tzinfo=UTC), per_million=per_million)


def book(*surcharges: Surcharge) -> PriceBook:
    return PriceBook(7, BOOK.lists(), surcharges)


def in_file(**changes: Any) -> str:
    entry = {"endpoint": RELAY, "percent": "7.5", "effective_from": "2026-11-01"} | changes
    return file_of(GOOD, surcharges=[entry])


@given(price_lists(), usages(), shares)
def test_a_surcharge_is_one_line_on_the_sum_of_the_others(terms: ModelPrices, usage: Usage, share: int) -> None:
    """The other lines stay as they are, and the sum of all lines is the cost."""
    plain = price(terms, usage)

    priced = price(replace(terms, surcharge_per_million=share), usage)

    assert priced.surcharge_nanos == round(Fraction(plain.cost_nanos * share, 1_000_000))
    assert priced.lines[: len(plain.lines)] == plain.lines
    assert (
        priced.cost_nanos == sum(line.cost_nanos for line in priced.lines) == plain.cost_nanos + priced.surcharge_nanos
    )


@given(
    price_lists(),
    shares,
    st.text(max_size=200),
    st.integers(1, 70_000),
    st.integers(1, 8),
    st.floats(0, 1),
    st.sampled_from([None, "priority"]),
)
def test_no_answer_costs_more_than_its_ceiling_with_any_surcharge(
    terms: ModelPrices, share: int, text: str, most: int, candidates: int, used: float, tier: str | None
) -> None:
    """The way to the model is part of the worst case."""
    dear = replace(terms, surcharge_per_million=share)
    config = {"maxOutputTokens": most, "candidateCount": candidates, "responseModalities": ["TEXT"]}
    request = text_request(text, generationConfig=config, **({"serviceTier": tier} if tier else {}))
    held = ceiling(dear, BOUNDS, request, request_bytes=size_of(request), output_cap_tokens=CAP)
    clamped = held.with_output(max(1, int(used * held.max_output_tokens))) or held
    output = clamped.max_output_tokens * candidates

    usage = Usage(prompt=Tokens(text=len(text.encode())), candidates=Tokens(text=output), service_tier=tier)

    assert price(dear, usage).cost_nanos <= clamped.cost_nanos <= held.cost_nanos


@given(price_lists(), shares, st.text(max_size=200))
def test_an_embedding_stays_below_its_ceiling_with_any_surcharge(terms: ModelPrices, share: int, text: str) -> None:
    """What has no output is bounded the same way."""
    dear = replace(terms, surcharge_per_million=share)
    request = text_request(text)

    held = ceiling_of_embedding(dear, request, request_bytes=size_of(request))

    assert price(dear, Usage(prompt=Tokens(text=len(text.encode())))).cost_nanos <= held.cost_nanos


def test_a_relays_surcharge_on_a_known_call() -> None:
    """7.5 per cent on a call of 0.00159 dollars."""
    terms = book(surcharge(75_000)).terms("gemini-3.8-flash", NOW, endpoint=RELAY)

    priced = price(terms, Usage(prompt=Tokens(text=120), candidates=Tokens(text=400)))

    line = priced.lines[-1]
    assert (line.sku, line.unit, line.quantity, line.nanos_per_million) == (
        "relay_surcharge",
        "nanos",
        1_590_000,
        75_000,
    )
    assert (line.cost_nanos, priced.cost_nanos) == (119_250, 1_709_250)


def test_half_a_nano_dollar_rounds_to_even() -> None:
    """Half of 1, 3 and 5 nano-dollars is 0, 2 and 2."""
    terms = replace(prices({"input_text": 1_000_000, "output_text": 1_000_000}), surcharge_per_million=500_000)

    charged = [price(terms, Usage(prompt=Tokens(text=tokens))).surcharge_nanos for tokens in (1, 3, 5)]

    assert charged == [0, 2, 2]


def test_a_surcharge_holds_for_its_address_from_its_date_on() -> None:
    """Other addresses, and earlier calls, pay the list price; 0 per cent ends it."""
    dated = book(surcharge(50_000, day=10), surcharge(80_000, day=20), surcharge(0, day=25))
    moments = [datetime(2026, 11, day, tzinfo=UTC) for day in (10, 20, 25)]

    def at(moment: datetime, endpoint: str = RELAY) -> int:
        return dated.terms("gemini-3.8-flash", moment, endpoint=endpoint).surcharge_per_million

    assert at(moments[0] - timedelta(microseconds=1)) == 0
    assert [at(moment) for moment in moments] == [50_000, 80_000, 0]
    assert at(moments[0], "gemini_api") == at(moments[0], "") == 0
    assert dated.terms("gemini-3.8-flash", moments[0], endpoint="vertex") == prices_of("gemini-3.8-flash")


def test_a_file_states_surcharges_exactly() -> None:
    """Per cent are decimals of up to four places, read without a float."""
    parsed = import_prices(in_file(percent="7.1234", source="contract 12"))

    assert parsed.surcharges == (
        Surcharge(
            endpoint=RELAY,
            effective_from=datetime(2026, 11, 1, tzinfo=UTC),
            per_million=71_234,
            source="contract 12",
        ),
    )


def test_a_file_may_hold_surcharges_alone() -> None:
    """The price lists of the book stay as they are then."""
    text = '[[surcharges]]\nendpoint = "vertex"\npercent = "3"\neffective_from = 2026-12-01\n'

    parsed = import_prices(text)

    assert (parsed.lists, [one.per_million for one in parsed.surcharges]) == ((), [30_000])


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"percent": "7.12345"}, "percent"),
        ({"percent": "-1"}, "percent"),
        ({"percent": "1000.1"}, "percent"),
        ({"percent": True}, "percent"),
        ({"percent": None}, "percent"),
        ({"endpoint": "https://relay.example"}, "endpoint"),
        ({"endpoint": None}, "endpoint"),
        ({"effective_from": "soon"}, "effective_from"),
        ({"source": " "}, "source"),
        ({"per_cent": "1"}, "per_cent"),
    ],
)
def test_a_wrong_surcharge_is_refused_by_name(changes: dict[str, Any], path: str) -> None:
    """A misspelt surcharge must not be ignored."""
    assert f"surcharges[0].{path}" in violations_of(in_file(**changes))


def test_two_surcharges_for_one_moment_are_refused() -> None:
    """Nobody could say which of them holds."""
    entry = {"endpoint": RELAY, "percent": "1", "effective_from": "2026-11-01"}

    violations = violations_of(file_of(GOOD, surcharges=[entry, {**entry, "effective_from": "2026-11-01T00:00:00Z"}]))

    assert violations == {"surcharges[1]": "repeats the address and date of surcharges[0]"}


def test_a_file_replaces_an_addresss_surcharges_from_its_first_date_on() -> None:
    """What an address cost before stays, and so do other addresses."""
    current = [surcharge(1, day=1), surcharge(2, day=10), surcharge(3, day=1, endpoint="vertex")]

    merged = merge_surcharges(current, [surcharge(9, day=5)])

    assert merged == (surcharge(1, day=1), surcharge(9, day=5), surcharge(3, day=1, endpoint="vertex"))


def test_a_model_of_ones_own_is_free_only_where_its_price_says_so() -> None:
    """A price of zero is stated; without one the model is refused."""
    free = '[[prices]]\nmodel = "gemma-local"\neffective_from = 2026-01-01\nsource = "own machines"\n'
    own = PriceBook(1, import_prices(free + 'input = "0"\noutput = "0"\n').lists, [surcharge(500_000)])
    request = text_request("hello")

    terms = own.terms("gemma-local", NOW, endpoint=RELAY)
    held = ceiling(terms, BOUNDS, request, request_bytes=size_of(request), output_cap_tokens=CAP)

    assert held.cost_nanos == 0
    assert price(terms, Usage(prompt=Tokens(text=5), candidates=Tokens(text=7))).cost_nanos == 0
    with pytest.raises(ModelUnpriced):
        own.terms("gemma-unpriced", NOW)
    assert "prices[0]" in violations_of(free)
