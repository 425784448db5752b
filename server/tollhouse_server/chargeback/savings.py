"""What cached tokens and cheaper service tiers have saved, against the list price of the same use without them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tollhouse_server.chargeback.cells import Saved
from tollhouse_server.money import charge_nanos
from tollhouse_server.pricing.price import tier_permille
from tollhouse_server.pricing.skus import CACHED_SKUS, INPUT_SKUS
from tollhouse_server.pricing.terms import STANDARD, STANDARD_PERMILLE, ModelPrices, PriceBook
from tollhouse_server.reporting.detail_store import PricedQuantity
from tollhouse_server.reporting.periods import Period

_UNCACHED = {CACHED_SKUS[modality]: INPUT_SKUS[modality] for modality in CACHED_SKUS}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """The circumstances under which a price was the price of a unit."""

    prices: ModelPrices
    is_long: bool
    permille: int


def savings(
    quantities: Iterable[PricedQuantity], price_books: Mapping[int, PriceBook], period: Period
) -> tuple[Saved, ...]:
    """Return by department what was saved; `price_books` are those of the quantities' versions.

    A cached token is held against an uncached one of the same tier, and the uncached one of a cheaper tier against the
    standard one: so the two never count the same dollar. Each quantity's saving is rounded once, half to even.
    """
    cache: dict[tuple[str, ...], int] = {}
    batch: dict[tuple[str, ...], int] = {}
    for one in quantities:
        by_cache, by_tier = _saved(one, price_books.get(one.price_version), period)
        cache[one.department_path] = cache.get(one.department_path, 0) + by_cache
        batch[one.department_path] = batch.get(one.department_path, 0) + by_tier
    return tuple(
        Saved(department_path=path, cache_nanos=cache[path], batch_nanos=batch[path])
        for path in sorted(cache)
        if cache[path] or batch[path]
    )


def _saved(one: PricedQuantity, book: PriceBook | None, period: Period) -> tuple[int, int]:
    found = None if book is None or not one.sku else _circumstances(one, _price_lists(book, one.model, period))
    if found is None:
        return 0, 0
    sku = _UNCACHED.get(one.sku, one.sku)
    standard = found.prices.nanos(sku, is_long=found.is_long)
    if standard is None:
        return 0, 0
    permille = found.permille
    if sku != one.sku:
        # The factor of cached tokens may be another one than that of the tokens they are held against.
        permille = _factor_of_uncached(one, found)
    unit = _at(standard, permille)
    by_cache = charge_nanos(one.quantity, unit - one.nanos_per_million) if sku != one.sku else 0
    by_tier = charge_nanos(one.quantity, standard - unit) if permille < STANDARD_PERMILLE else 0
    return by_cache, by_tier


def _price_lists(book: PriceBook, model: str, period: Period) -> Sequence[ModelPrices]:
    """Return the lists that held at some moment of the period, the newest first."""
    return [
        prices
        for prices in reversed(book.history(model))
        if prices.terms.effective_from < period.end
        and (prices.effective_until is None or prices.effective_until > period.start)
    ]


def _circumstances(one: PricedQuantity, lists: Sequence[ModelPrices]) -> _Found | None:
    """Return under which circumstances a unit has the price that it had; None where the book does not know."""
    is_cached = one.sku in _UNCACHED
    for prices in lists:
        for is_long in (False, True):
            base = prices.nanos(one.sku, is_long=is_long)
            for tier in _tiers(one, prices):
                permille = tier_permille(prices, tier, is_cached=is_cached)
                if base is not None and permille is not None and _at(base, permille) == one.nanos_per_million:
                    return _Found(prices=prices, is_long=is_long, permille=permille)
    return None


def _tiers(one: PricedQuantity, prices: ModelPrices) -> Iterator[str]:
    """Yield the tiers that may have served, the likeliest first: what a batch was is known only to its sender."""
    yield one.service_tier or STANDARD
    yield from (tier for tier in sorted(prices.terms.tier_permille) if tier != one.service_tier)


def _factor_of_uncached(one: PricedQuantity, found: _Found) -> int:
    for tier in _tiers(one, found.prices):
        if tier_permille(found.prices, tier, is_cached=True) == found.permille:
            return tier_permille(found.prices, tier) or STANDARD_PERMILLE
    return STANDARD_PERMILLE


def _at(nanos: int, permille: int) -> int:
    return -(-nanos * permille // STANDARD_PERMILLE)
