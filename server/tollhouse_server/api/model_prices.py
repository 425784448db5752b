"""A model's prices on the wire."""

from collections.abc import Iterator

from tollhouse.v1 import catalog_pb2 as pb

from tollhouse_server.api.values import timestamp
from tollhouse_server.pricing.price import tier_permille
from tollhouse_server.pricing.skus import CACHED, LONG, SKUS, Unit
from tollhouse_server.pricing.terms import STANDARD, STANDARD_PERMILLE, ModelPrices


def model_prices(prices: ModelPrices) -> Iterator[pb.ModelPrice]:
    """Yield every price as a call is charged by it: under the SKU of its receipt, for each service tier."""
    terms = prices.terms
    for name, nanos in terms.nanos_per_million.items():
        sku = name.removesuffix(LONG)
        for service_tier in (STANDARD, *terms.tier_permille) if SKUS[name].unit is Unit.TOKEN else (STANDARD,):
            factor = tier_permille(prices, service_tier, is_cached=sku.startswith(CACHED))
            yield pb.ModelPrice(
                sku=sku,
                unit=SKUS[name].unit,
                nanos_per_million_units=-(-nanos * (factor or STANDARD_PERMILLE) // STANDARD_PERMILLE),
                above_prompt_tokens=(terms.long_above_tokens or 0) if name.endswith(LONG) else 0,
                service_tier=service_tier,
                effective_from=timestamp(terms.effective_from),
                effective_until=timestamp(prices.effective_until),
            )
