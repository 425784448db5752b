"""Finds the list price that would explain what Google billed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from tollhouse_server.money import UNITS_PER_PRICE, charge_nanos, nanos_to_dollars
from tollhouse_server.pricing.price import tier_permille
from tollhouse_server.pricing.terms import STANDARD, STANDARD_PERMILLE, ModelPrices, PriceBook
from tollhouse_server.reconciliation.dates import google_day


@dataclass(frozen=True, slots=True, kw_only=True)
class _ListPrice:
    model: str
    sku: str
    tier: str
    since: datetime
    nanos_per_million: int

    def __str__(self) -> str:
        return f"{self.sku} of {self.model} from {google_day(self.since)} on, {self.tier}"


def explain_price(
    prices: PriceBook,
    *,
    models: Sequence[str],
    sku: str,
    is_same: Callable[[str], bool],
    billed_nanos: int,
    booked_nanos: int,
    quantity: int,
    bound_nanos: int,
) -> str:
    """Return a sentence with the price that the bill implies, what was booked, and the list price that it would be.

    Of several, one of `sku` itself comes before those of others that are billed as the same.
    """
    billed_at, booked_at = (_dollars(nanos * UNITS_PER_PRICE // quantity) for nanos in (billed_nanos, booked_nanos))
    found = [
        one
        for one in _list_prices(prices, models)
        if abs(charge_nanos(quantity, one.nanos_per_million) - billed_nanos) <= bound_nanos
        and is_same(one.sku.removesuffix("_long"))
    ]
    found.sort(key=lambda one: (one.sku != sku, one.tier != STANDARD, one.model, one.since, one.sku))
    said = f"is the list price of {found[0]}" if found else "is no list price of the price book"
    return f"Billed at {billed_at} a million, booked at {booked_at}; {billed_at} {said}."


def _dollars(nanos: int) -> str:
    return f"${nanos_to_dollars(nanos)}"


def _list_prices(prices: PriceBook, models: Sequence[str]) -> Iterator[_ListPrice]:
    for model in models:
        for chain in prices.history(model):
            for sku, nanos in chain.terms.nanos_per_million.items():
                for tier in (STANDARD, *chain.terms.tier_permille):
                    yield _of_tier(chain, sku, nanos, tier)


def _of_tier(chain: ModelPrices, sku: str, nanos: int, tier: str) -> _ListPrice:
    permille = tier_permille(chain, tier, is_cached=sku.startswith("cached")) or STANDARD_PERMILLE
    return _ListPrice(
        model=chain.model,
        sku=sku,
        tier=tier,
        since=chain.terms.effective_from,
        nanos_per_million=-(-nanos * permille // STANDARD_PERMILLE),
    )
