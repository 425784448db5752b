"""The price book in memory: immutable, versioned, effective-dated."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from tollhouse_server.errors import ModelUnpriced
from tollhouse_server.money import UNITS_PER_PRICE
from tollhouse_server.pricing.skus import CACHED, LONG

STANDARD = "standard"
STANDARD_PERMILLE = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceList:
    """Everything that one model costs from `effective_from` on, until its next list takes over.

    Prices are nano-dollars per million units. A factor of a service tier is in thousandths of the standard price and
    holds for tokens only. `tokens_per_image` is by image size ("1K", "2K", "4K").
    """

    model: str
    effective_from: datetime
    source: str
    nanos_per_million: Mapping[str, int]
    long_above_tokens: int | None = None
    tokens_per_image: Mapping[str, int] = field(default_factory=dict)
    tier_permille: Mapping[str, int] = field(default_factory=dict)
    cached_tier_permille: Mapping[str, int] = field(default_factory=dict)

    def permille(self, sku: str, tier: str) -> int | None:
        """Return a service tier's factor on the price of a token SKU in thousandths, None for a tier without one."""
        factor = self.tier_permille.get(tier)
        return self.cached_tier_permille.get(tier, factor) if sku.startswith(CACHED) else factor


@dataclass(frozen=True, slots=True, kw_only=True)
class Surcharge:
    """What calls through one upstream address cost on top, from `effective_from` on until its next surcharge.

    `per_million` is a share of the list price in millionths: 75,000 is 7.5 per cent, 0 ends a surcharge. `endpoint` is
    the address's name in settings.
    """

    endpoint: str
    effective_from: datetime
    per_million: int
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPrices:
    """One model's price list as a version of the price book states it; holds until `effective_until`, exclusive.

    `surcharge_per_million` is what the way to the model adds to every call, in millionths of its cost. `whole_tiers`
    are the service tiers at which one unit of anything costs whole nano-dollars, so that rounding never changes a sum.
    `worked_out` is what calls are priced by, kept by whoever works it out, so that no call pays for it twice.
    """

    version: int
    terms: PriceList
    effective_until: datetime | None = None
    surcharge_per_million: int = 0
    whole_tiers: frozenset[str] = field(init=False)
    worked_out: dict[Any, Any] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        terms = self.terms
        factors = {STANDARD: {STANDARD_PERMILLE}}
        for tier in terms.tier_permille.keys() | terms.cached_tier_permille.keys():
            factors[tier] = {
                terms.tier_permille.get(tier, STANDARD_PERMILLE),
                terms.cached_tier_permille.get(tier, STANDARD_PERMILLE),
                STANDARD_PERMILLE,
            }
        whole = frozenset(tier for tier, permilles in factors.items() if _is_whole(terms, permilles))
        object.__setattr__(self, "whole_tiers", whole)

    @property
    def model(self) -> str:
        """The model that is priced."""
        return self.terms.model

    def knows_tier(self, tier: str) -> bool:
        """Tell whether a service tier has a price; callers and upstreams may name any other."""
        return tier == STANDARD or tier in self.terms.tier_permille

    def nanos(self, sku: str, *, is_long: bool = False) -> int | None:
        """Return the nano-dollars per million units of `sku`, or None where it has no price."""
        prices = self.terms.nanos_per_million
        if is_long:
            long_nanos = prices.get(sku + LONG)
            if long_nanos is not None:
                return long_nanos
        return prices.get(sku)

    def dearest(self, prefixes: tuple[str, ...], *, is_long: bool = False) -> str | None:
        """Return the dearest priced SKU whose name starts with one of `prefixes`, or None."""
        names = [n for n in self.terms.nanos_per_million if n.startswith(prefixes) and not n.endswith(LONG)]
        return max(names, key=lambda name: (self.nanos(name, is_long=is_long) or 0, name), default=None)


def _is_whole(terms: PriceList, permilles: set[int]) -> bool:
    whole = UNITS_PER_PRICE * STANDARD_PERMILLE
    return not any(nanos * permille % whole for nanos in terms.nanos_per_million.values() for permille in permilles)


class PriceBook:
    """One version of the price book: immutable, complete, safe to share between tasks."""

    def __init__(self, version: int, lists: Iterable[PriceList], surcharges: Iterable[Surcharge] = ()) -> None:
        self.version = version
        by_model: dict[str, list[PriceList]] = {}
        for price_list in sorted(lists, key=lambda one: (one.model, one.effective_from)):
            by_model.setdefault(price_list.model, []).append(price_list)
        self._prices = {model: _chain(version, chain) for model, chain in by_model.items()}
        self._starts = {model: [p.terms.effective_from for p in prices] for model, prices in self._prices.items()}
        self._surcharges: dict[str, list[Surcharge]] = {}
        for surcharge in sorted(surcharges, key=lambda one: (one.endpoint, one.effective_from)):
            self._surcharges.setdefault(surcharge.endpoint, []).append(surcharge)
        # Made once: a call must not pay for the making of its prices.
        self._surcharged = {
            per_million: {model: _surcharged(chain, per_million) for model, chain in self._prices.items()}
            for per_million in {one.per_million for one in self.surcharges()} - {0}
        }

    def terms(self, model: str, at: datetime, *, endpoint: str = "") -> ModelPrices:
        """Return what `model` costs at the moment `at` (with a time zone), through the upstream address `endpoint`.

        Raises:
            ModelUnpriced: the book has no price of this model for that moment; it is refused, never free.
        """
        index = bisect_right(self._starts.get(model, []), at)
        if index == 0:
            raise ModelUnpriced(model=model, sku="any use")
        per_million = self.surcharge_per_million(endpoint, at)
        prices = self._surcharged[per_million] if per_million else self._prices
        return prices[model][index - 1]

    def surcharge_per_million(self, endpoint: str, at: datetime) -> int:
        """Return what an upstream address costs on top at a moment, in millionths; 0 where nothing was stated."""
        found = self._surcharges.get(endpoint)
        if found is None:
            return 0
        index = bisect_right(found, at, key=lambda one: one.effective_from)
        return found[index - 1].per_million if index else 0

    def lists(self) -> tuple[PriceList, ...]:
        """Return every price list, by model and date."""
        return tuple(prices.terms for chain in self._prices.values() for prices in chain)

    def surcharges(self) -> tuple[Surcharge, ...]:
        """Return every surcharge, by address and date."""
        return tuple(one for chain in self._surcharges.values() for one in chain)

    def history(self, model: str) -> tuple[ModelPrices, ...]:
        """Return all price lists of one model in the order of their dates; empty when it has none."""
        return self._prices.get(model, ())


def _chain(version: int, lists: list[PriceList]) -> tuple[ModelPrices, ...]:
    ends = [one.effective_from for one in lists[1:]]
    return tuple(
        ModelPrices(version=version, terms=one, effective_until=end)
        for one, end in zip(lists, [*ends, None], strict=True)
    )


def _surcharged(chain: tuple[ModelPrices, ...], per_million: int) -> tuple[ModelPrices, ...]:
    return tuple(replace(prices, surcharge_per_million=per_million) for prices in chain)
