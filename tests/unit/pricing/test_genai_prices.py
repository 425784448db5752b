"""Recorded traffic, decoded and priced by `genai-prices` and by us: equal, or explained one by one."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from genai_prices.data import providers
from tollhouse_server.pricing.price import price
from tollhouse_server.pricing.public_prices import lists_of
from tollhouse_server.pricing.terms import ModelPrices, PriceBook
from tollhouse_server.pricing.usage import StreamUsage, Usage, from_embed, from_generate_body

from tests.recorded import RecordedExchange, recorded_exchanges

from .builders import BOOK, prices_of

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
GOOGLE = next(provider for provider in providers if provider.id == "google")

_PROMPT_SEARCHED = "genai-prices reads no searches from an answer; on 2.5 a searched prompt costs $0.035"
_SEARCHED = "genai-prices reads no searches from an answer; on 3.x each costs $0.014"
_FLEX = "the answer was served on flex, at half price, of which genai-prices has no prices"
DIFFERENCES = {
    67: (35_000_000, _PROMPT_SEARCHED),
    68: (35_000_000, _PROMPT_SEARCHED),
    91: (-79_250, _FLEX),
    92: (-152_750, _FLEX),
    94: (14_000_000, _SEARCHED),
    215: (14_000_000, _SEARCHED),
    216: (14_000_000, _SEARCHED),
    218: (14_000_000, _SEARCHED),
    221: (14_000_000, _SEARCHED),
}
"""By the exchange's place in the file: our cost less theirs in nano-dollars, and why."""

PUBLISHED_IMAGES = [
    ("gemini-2.5-flash-image", "1K", 1290, "0.0387"),
    ("gemini-3-pro-image", "1K", 1120, "0.1344"),
    ("gemini-3-pro-image", "2K", 1120, "0.1344"),
    ("gemini-3-pro-image", "4K", 2000, "0.24"),
    ("gemini-nano-banana-2.1", "1K", 1120, "0.0336"),
    ("gemini-3.1-flash-lite-image", "1K", 1120, "0.0336"),
]
"""Model, size, tokens of one image, dollars for it. Google rounds some for print: $0.039, $0.134."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One recorded exchange as both read it."""

    place: int
    ours: Usage
    theirs: Any
    cost_nanos: int
    their_nanos: Decimal


def public_model(model: str) -> Any:
    """What genai-prices says of a model."""
    found = GOOGLE.find_model(model)
    assert found is not None, model
    return found


def terms_of(model: str) -> ModelPrices:
    """The packaged prices, or for models gone from the book what genai-prices says of them, mapped to ours."""
    if BOOK.history(model):
        return prices_of(model)
    lists, _ = lists_of(model, public_model(model), (), source="genai-prices")
    return PriceBook(1, lists).terms(model, NOON)


def usage_of(exchange: RecordedExchange) -> Usage:
    """Our reading."""
    if "mbed" in exchange.operation:
        return from_embed(exchange.responses[0])
    stream = StreamUsage()
    for chunk in exchange.responses:
        stream.add(chunk)
    return stream.usage()


def pairs() -> Iterator[Pair]:
    """Yield every answer that reports usage, read and priced by both."""
    for place, exchange in enumerate(recorded_exchanges()):
        reports = [one for one in exchange.responses if one.get("usageMetadata")]
        if exchange.status != 200 or exchange.operation == "countTokens" or not reports:
            continue
        model = public_model(exchange.model)
        try:
            _, theirs = GOOGLE.extract_usage(reports[-1])
        except ValueError:
            # A blocked prompt on Vertex reports no count: they read no usage, we that it used none.
            assert price(terms_of(exchange.model), usage_of(exchange)).cost_nanos == 0
            continue
        ours = usage_of(exchange)
        their_cost = model.calc_price(theirs, GOOGLE, genai_request_timestamp=NOON).total_price
        yield Pair(place, ours, theirs, price(terms_of(exchange.model), ours).cost_nanos, their_cost * 10**9)


def test_recorded_traffic_costs_what_genai_prices_says_or_the_difference_is_explained() -> None:
    """Searches and flex are all that it leaves out; everything else is the same to the nano-dollar."""
    read = list(pairs())

    differing = {one.place: one.cost_nanos - one.their_nanos for one in read if one.cost_nanos != one.their_nanos}
    assert len(read) == 213
    assert differing == {place: nanos for place, (nanos, _) in DIFFERENCES.items()}


def test_recorded_usage_is_decoded_as_genai_prices_decodes_it() -> None:
    """Tokens in, out, cached and thought, of every answer."""
    for one in pairs():
        counts = (one.ours.input_tokens, one.ours.output_tokens, one.ours.cached.total, one.ours.thoughts_tokens)
        theirs = [
            getattr(one.theirs, f"{name}_tokens") for name in ("input", "output", "cache_read", "output_reasoning")
        ]
        assert list(counts) == [int(count) for count in theirs], one.place


@pytest.mark.parametrize(("model", "size", "tokens", "dollars"), PUBLISHED_IMAGES)
def test_published_prices_of_images_come_out_exactly(model: str, size: str, tokens: int, dollars: str) -> None:
    """An answer of one image, counted as Google counts it, costs what Google publishes, and what genai-prices says."""
    details = [{"modality": "IMAGE", "tokenCount": tokens}]
    metadata = {"promptTokenCount": 0, "candidatesTokenCount": tokens, "candidatesTokensDetails": details}
    body = {"modelVersion": model, "usageMetadata": metadata | {"totalTokenCount": tokens}}

    priced = price(prices_of(model), from_generate_body(body))

    _, usage = GOOGLE.extract_usage(body)
    theirs = public_model(model).calc_price(usage, GOOGLE, genai_request_timestamp=NOON)
    assert prices_of(model).terms.tokens_per_image[size] == tokens
    assert priced.cost_nanos == int(Decimal(dollars) * 10**9) == theirs.total_price * 10**9
