"""Usage times prices, to the nano-dollar."""

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tollhouse_server.errors import ModelUnpriced
from tollhouse_server.pricing.price import price
from tollhouse_server.pricing.skus import LONG, TOKEN_SKUS
from tollhouse_server.pricing.terms import ModelPrices
from tollhouse_server.pricing.usage import Tokens, Usage

from .builders import NOW, prices, prices_of

MODALITIES = ("text", "image", "video", "audio", "document")
counts = st.integers(0, 2_000_000)
tokens = st.builds(Tokens, **dict.fromkeys(MODALITIES, counts))


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    prompt = draw(tokens)
    cached = Tokens(**{name: draw(st.integers(0, getattr(prompt, name))) for name in MODALITIES})
    return Usage(
        prompt=prompt,
        cached=cached,
        tool_use=draw(tokens),
        candidates=Tokens(text=draw(counts), image=draw(counts), audio=draw(counts)),
        thoughts_tokens=draw(counts),
        grounding_queries=draw(st.integers(0, 50)),
    )


@st.composite
def price_lists(draw: st.DrawFn) -> ModelPrices:
    """Whole lists, where long and fresh input are never cheaper than short and cached."""
    nanos = {sku: draw(st.integers(0, 10**11)) for sku in TOKEN_SKUS}
    for sku in TOKEN_SKUS:
        if sku.startswith("cached"):
            nanos[sku] = min(nanos[sku], nanos[sku.replace("cached", "input")])
    nanos |= {sku + LONG: 2 * value for sku, value in nanos.items()}
    nanos["grounding_query"] = draw(st.integers(0, 10**14))
    return prices(nanos, long_above_tokens=draw(st.integers(1, 4_000_000)))


def exact_cost(terms: ModelPrices, usage: Usage) -> list[Fraction]:
    """The same lines computed another way: in fractions, straight from the definition of each SKU."""
    nanos = terms.terms.nanos_per_million
    is_long = usage.prompt.total + usage.tool_use.total > (terms.terms.long_above_tokens or 10**18)
    used: dict[str, int] = {"thoughts": usage.thoughts_tokens}
    for name in MODALITIES:
        cached = getattr(usage.cached, name)
        used[f"input_{name}"] = getattr(usage.prompt, name) - cached + getattr(usage.tool_use, name)
        used[f"cached_{name}"] = cached
    for name in ("text", "image", "audio"):
        used[f"output_{name}"] = getattr(usage.candidates, name)
    lines = [Fraction(n * nanos[sku + LONG if is_long else sku], 1_000_000) for sku, n in used.items()]
    return [*lines, Fraction(usage.grounding_queries * nanos["grounding_query"], 1_000_000)]


@given(price_lists(), usages())
def test_the_cost_is_the_sum_of_lines_that_are_each_rounded_once(terms: ModelPrices, usage: Usage) -> None:
    """Lines equal exact arithmetic rounded half to even, and nothing is added or lost between them."""
    priced = price(terms, usage)

    assert priced.cost_nanos == sum(line.cost_nanos for line in priced.lines)
    assert priced.cost_nanos == sum(round(exact) for exact in exact_cost(terms, usage))
    assert priced.cost_nanos >= 0
    assert priced.flags == ()


@given(price_lists(), usages(), st.sampled_from(MODALITIES), st.integers(1, 1_000_000))
def test_more_tokens_never_cost_less(terms: ModelPrices, usage: Usage, modality: str, more: int) -> None:
    """The cost grows with the prompt and with the answer."""
    longer = replace(usage.prompt, **{modality: getattr(usage.prompt, modality) + more})

    cost = price(terms, usage).cost_nanos

    assert price(terms, replace(usage, prompt=longer)).cost_nanos >= cost
    assert price(terms, replace(usage, thoughts_tokens=usage.thoughts_tokens + more)).cost_nanos >= cost


def test_a_known_call_costs_what_the_price_page_says() -> None:
    """1,000 prompt tokens, 600 of them cached, 200 answered and 300 thought, on 3.8 Flash."""
    usage = Usage(prompt=Tokens(text=1_000), cached=Tokens(text=600), candidates=Tokens(text=200), thoughts_tokens=300)

    priced = price(prices_of("gemini-3.8-flash"), usage)

    assert [(line.sku, line.quantity, line.cost_nanos) for line in priced.lines] == [
        ("input_text", 400, 300_000),
        ("cached_text", 600, 45_000),
        ("output_text", 200, 750_000),
        ("thoughts", 300, 1_125_000),
    ]
    assert (priced.cost_nanos, priced.price_version) == (2_220_000, 7)


def test_usage_of_zero_costs_zero() -> None:
    """Nothing used, nothing charged, and no line."""
    priced = price(prices_of("gemini-2.5-pro"), Usage())

    assert (priced.cost_nanos, priced.lines) == (0, ())


def test_cached_tokens_are_charged_once_at_the_cached_price() -> None:
    """Neither twice (as prompt and as cache) nor at the full price nor not at all."""
    usage = Usage(prompt=Tokens(text=1_000_000), cached=Tokens(text=1_000_000))

    assert price(prices_of("gemini-2.5-flash"), usage).cost_nanos == 30_000_000


def test_cached_tokens_without_a_cached_price_cost_as_much_as_fresh_ones() -> None:
    """A model whose price list has no cached price gives no discount."""
    usage = Usage(prompt=Tokens(text=1_000_000), cached=Tokens(text=500_000))

    assert price(prices_of("gemini-3-pro-image"), usage).cost_nanos == 2_000_000_000


def test_an_image_costs_what_is_published_for_it() -> None:
    """Image tokens have their own price: $0.0387, $0.1344, $0.24 and $0.0336 an image."""
    published = {
        ("gemini-2.5-flash-image", 1_290): 38_700_000,
        ("gemini-3-pro-image", 1_120): 134_400_000,
        ("gemini-3-pro-image", 2_000): 240_000_000,
        ("gemini-nano-banana-2.1", 1_120): 33_600_000,
    }

    charged = {
        key: price(prices_of(key[0]), Usage(candidates=Tokens(image=key[1]), images=1)).cost_nanos for key in published
    }

    assert charged == published


def test_images_without_any_reported_token_are_charged_at_their_published_size() -> None:
    """An image that was delivered is never free."""
    priced = price(prices_of("gemini-3-pro-image"), Usage(images=2))

    assert priced.cost_nanos == 480_000_000
    assert "images_without_tokens" in priced.flags


@pytest.mark.parametrize(
    ("model", "prompt", "cost_nanos"),
    [
        ("gemini-2.5-pro", 200_000, 250_000_000 + 10_000_000),
        ("gemini-2.5-pro", 200_001, 500_002_500 + 15_000_000),
        ("gemini-3.1-pro-preview", 200_001, 800_004_000 + 18_000_000),
    ],
)
def test_a_long_prompt_reprices_the_whole_request(model: str, prompt: int, cost_nanos: int) -> None:
    """Above the threshold, input and output change price from the first token on; at it, nothing does."""
    usage = Usage(prompt=Tokens(text=prompt), candidates=Tokens(text=1_000))

    assert price(prices_of(model), usage).cost_nanos == cost_nanos


def test_audio_has_its_own_price() -> None:
    """2.5 Flash: $1.00 for audio beside $0.30 for text."""
    usage = Usage(prompt=Tokens(text=1_000_000, audio=1_000_000))

    assert price(prices_of("gemini-2.5-flash"), usage).cost_nanos == 1_300_000_000


@pytest.mark.parametrize(
    ("tier", "cost_nanos"), [("standard", 1_500_000_000), ("flex", 750_000_000), ("priority", 2_700_000_000)]
)
def test_service_tiers_have_their_factor(tier: str, cost_nanos: int) -> None:
    """Flex is half, priority 1.8 of the standard price."""
    usage = Usage(prompt=Tokens(text=1_000_000), service_tier=tier)

    assert price(prices_of("gemini-3.5-flash"), usage).cost_nanos == cost_nanos


def test_a_batch_is_half_price_and_not_free() -> None:
    """Batch halves fresh input and output; cached input stays at its price; the reported tier does not overrule it."""
    usage = Usage(
        prompt=Tokens(text=2_000_000),
        cached=Tokens(text=1_000_000),
        candidates=Tokens(text=1_000_000),
        service_tier="standard",
    )

    priced = price(prices_of("gemini-3.5-flash"), usage, "batch")

    assert [line.cost_nanos for line in priced.lines] == [750_000_000, 150_000_000, 4_500_000_000]


def test_the_tier_that_served_holds_over_the_one_asked_for() -> None:
    """A priority call that Google served as a standard one costs the standard price."""
    usage = Usage(prompt=Tokens(text=1_000_000), service_tier="standard")

    assert price(prices_of("gemini-3.5-flash"), usage, "priority").cost_nanos == 1_500_000_000


def test_an_unknown_service_tier_is_charged_at_the_dearest_factor() -> None:
    """A tier that Google invents tomorrow is flagged, and never cheaper than the dearest known."""
    priced = price(prices_of("gemini-3.5-flash"), Usage(prompt=Tokens(text=1_000_000), service_tier="ultra-fast"))

    assert priced.cost_nanos == 2_700_000_000
    assert priced.flags == ("service_tier_ultra-fast_unpriced",)


def test_searches_are_charged_by_query_or_by_prompt() -> None:
    """$14 per 1,000 queries on 3.x, $35 per 1,000 grounded prompts on 2.5."""
    usage = Usage(grounding_queries=3)

    assert price(prices_of("gemini-3.8-flash"), usage).cost_nanos == 42_000_000
    assert price(prices_of("gemini-2.5-pro"), usage).cost_nanos == 35_000_000


def test_tokens_of_an_unpriced_kind_are_charged_at_the_dearest_price_of_their_direction() -> None:
    """An answer is never free for lack of a price."""
    terms = prices_of("gemini-embedding-2")

    priced = price(terms, Usage(prompt=Tokens(other=1_000_000)))

    assert priced.cost_nanos == 12_000_000_000
    assert priced.flags == ("unknown_charged_as_input_video",)


def test_a_direction_without_any_price_is_charged_at_the_models_dearest() -> None:
    """An embedding that reports output tokens is charged all the same; a list without token prices is refused."""
    usage = Usage(candidates=Tokens(text=1_000_000))

    priced = price(prices_of("gemini-embedding-001"), usage)

    assert (priced.cost_nanos, priced.flags) == (150_000_000, ("output_text_charged_as_input_text",))
    with pytest.raises(ModelUnpriced):
        price(prices_of("veo-3.1-generate-preview"), usage)


def test_prices_change_on_their_dates() -> None:
    """Argon doubles at midnight Pacific of 2026-12-01, the Flash models on 2027-01-01."""
    usage = Usage(prompt=Tokens(text=1_000_000))
    last = NOW.replace(month=12, day=1, hour=7, minute=59, second=59)

    before = price(prices_of("gemini-4-argon", last), usage).cost_nanos
    after = price(prices_of("gemini-4-argon", last.replace(hour=8)), usage).cost_nanos

    assert (before, after) == (2_000_000_000, 4_000_000_000)
    for model in ("gemini-3.6-flash", "gemini-3.7-flash", "gemini-3.8-flash"):
        later = NOW.replace(year=2027, month=1, day=1, hour=8)
        assert price(prices_of(model, later), usage).cost_nanos == 2 * price(prices_of(model), usage).cost_nanos


def test_a_model_without_a_price_is_refused_and_not_free() -> None:
    """Unknown models, and known ones before their first price, are unpriced."""
    with pytest.raises(ModelUnpriced):
        prices_of("gemini-9-neon")
    with pytest.raises(ModelUnpriced):
        prices_of("gemini-2.5-pro", NOW.replace(year=2021))


def test_made_up_service_tiers_are_not_remembered() -> None:
    """Callers and upstreams may name any tier; what is worked out for it is forgotten, the known ones' is kept."""
    terms = prices({"input_text": 1_000_000})

    charged = {price(terms, Usage(prompt=Tokens(text=5)), f"tier-{number}").cost_nanos for number in range(100)}
    price(terms, Usage(prompt=Tokens(text=5)))

    assert charged == {5}
    assert len(terms.worked_out) == 1
