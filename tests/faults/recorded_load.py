"""A mixed load for budgets: the calls recorded with the real API, their worst case beside what they really used."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from tollhouse_server.errors import UsageMissing
from tollhouse_server.ledger.terms import Amounts
from tollhouse_server.pricing.book import packaged_prices
from tollhouse_server.pricing.ceiling import Ceiling, ModelBounds, ceiling
from tollhouse_server.pricing.price import price
from tollhouse_server.pricing.terms import ModelPrices, PriceBook
from tollhouse_server.pricing.usage import StreamUsage, Usage

from tests.recorded import RecordedExchange, recorded_exchanges

OUTPUT_BOUNDS = (512, 1024, 2048, 4096, 8192)
"""What callers set as maxOutputTokens; each recorded call takes one that its answer stays within."""

_BOUNDS = ModelBounds(
    input_token_limit=1_048_576, output_token_limit=65_536, images_per_answer=10, grounding_queries=20
)
_NOW = datetime(2026, 11, 21, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """A call as it asks to be admitted, and what it comes to."""

    model: str
    ceiling: Amounts
    actual: Amounts


def endless_load(seed: int) -> Iterator[RecordedCall]:
    """Yield recorded calls in random order for ever, each with a realistic bound on its output."""
    dice, exchanges = random.Random(seed), _answered()
    while True:
        exchange, usage, prices = dice.choice(exchanges)
        enough = [bound for bound in OUTPUT_BOUNDS if bound >= usage.output_tokens] or [65_536]
        yield _call(exchange, usage, prices, dice.choice(enough))


def _call(exchange: RecordedExchange, usage: Usage, prices: ModelPrices, max_output_tokens: int) -> RecordedCall:
    config = exchange.request.get("generationConfig") or {}
    request = {**exchange.request, "generationConfig": {**config, "maxOutputTokens": max_output_tokens}}
    most = _ceiling(prices, request, size=len(json.dumps(request).encode()))
    actual = Amounts(
        requests=1,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        images=usage.images,
        cost_nanos=price(prices, usage).cost_nanos,
    )
    worst = Amounts(
        requests=1,
        input_tokens=most.input_tokens,
        output_tokens=most.output_tokens,
        images=most.images,
        cost_nanos=most.cost_nanos,
    )
    return RecordedCall(prices.model, worst, actual)


def _ceiling(prices: ModelPrices, request: dict[str, Any], *, size: int) -> Ceiling:
    return ceiling(prices, _BOUNDS, request, request_bytes=size, output_cap_tokens=8192)


@cache
def _answered() -> list[tuple[RecordedExchange, Usage, ModelPrices]]:
    """Return the exchanges that generated something whose model has a price today."""
    book = PriceBook(1, packaged_prices().lists)
    priced = {one.model for one in book.lists()}
    found = []
    for exchange in recorded_exchanges():
        if exchange.status != 200 or not exchange.operation.lower().endswith("generatecontent"):
            continue
        meter = StreamUsage()
        for chunk in exchange.responses:
            meter.add(chunk)
        try:
            usage = meter.usage()
        except UsageMissing:
            continue
        model = exchange.model if exchange.model in priced else "gemini-2.5-flash"
        found.append((exchange, usage, book.terms(model, _NOW)))
    return found
