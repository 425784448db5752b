"""Prices and bounds for the tests of pricing."""

from datetime import UTC, datetime
from typing import Any

from tollhouse_server.pricing.book import packaged_prices
from tollhouse_server.pricing.ceiling import ModelBounds
from tollhouse_server.pricing.terms import ModelPrices, PriceBook, PriceList

NOW = datetime(2026, 11, 21, tzinfo=UTC)
BOUNDS = ModelBounds(input_token_limit=1_048_576, output_token_limit=65_536, images_per_answer=10, grounding_queries=20)
BOOK = PriceBook(7, packaged_prices().lists)


def prices_of(model: str, at: datetime = NOW) -> ModelPrices:
    """The packaged prices of a model."""
    return BOOK.terms(model, at)


def prices(nanos: dict[str, int], **fields: Any) -> ModelPrices:
    """Prices made up for a test."""
    terms = PriceList(model="made-up", effective_from=NOW, source="test", nanos_per_million=nanos, **fields)
    return ModelPrices(version=1, terms=terms)
