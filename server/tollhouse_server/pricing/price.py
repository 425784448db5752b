"""Usage times prices: lines that are each rounded once, and their sum."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tollhouse_server.errors import ModelUnpriced
from tollhouse_server.money import charge_nanos
from tollhouse_server.pricing.skus import (
    CACHED,
    CACHED_SKUS,
    GROUNDING_PROMPT,
    GROUNDING_QUERY,
    INPUT,
    INPUT_SKUS,
    OUTPUT_IMAGE,
    OUTPUT_SKUS,
    RELAY_SURCHARGE,
    SKUS,
    THOUGHTS,
    TOKEN_SKUS,
    Unit,
)
from tollhouse_server.pricing.terms import STANDARD, STANDARD_PERMILLE, ModelPrices
from tollhouse_server.pricing.usage import Usage

BATCH = "batch"
OUTPUT_PREFIXES = (*OUTPUT_SKUS.values(), THOUGHTS)
# As plain text: to read the value of an enum's member costs as much as the sum that it stands in.
_INPUTS = tuple((modality.value, sku, CACHED_SKUS[modality]) for modality, sku in INPUT_SKUS.items())
_OUTPUTS = tuple((modality.value, sku) for modality, sku in OUTPUT_SKUS.items())


@dataclass(slots=True, kw_only=True)
class Line:
    """One line of a charge: `cost_nanos` is `quantity` x `nanos_per_million`, rounded once, half to even.

    Nobody changes one. It is not frozen because that makes it three times as dear, and every call makes some.
    """

    sku: str
    quantity: int
    unit: Unit
    nanos_per_million: int
    cost_nanos: int


class Priced(NamedTuple):
    """What a call costs: the sum of its lines. `flags` name every place where the dear side was taken.

    `surcharge_nanos` is the part of the cost that is not the upstream's list price.
    """

    cost_nanos: int
    lines: tuple[Line, ...]
    price_version: int
    service_tier: str
    flags: tuple[str, ...] = ()

    @property
    def surcharge_nanos(self) -> int:
        """Return what the way to the upstream has added."""
        # It is on the sum of the others, so that it stands last.
        last = self.lines[-1] if self.lines else None
        return last.cost_nanos if last is not None and last.sku == RELAY_SURCHARGE else 0


def price(prices: ModelPrices, usage: Usage, service_tier: str | None = None) -> Priced:
    """Price what a call used.

    The service tier that the answer reports holds (a priority call may be served as a standard one), else the one
    given; a batch is known only to its sender, so "batch" is never overruled. Tokens of a kind that the model has no
    price for are charged at the model's dearest price of that direction (where it has none, of any) and flagged: a
    call that was answered is never free for lack of a price.

    Raises:
        ModelUnpriced: the list has no price of tokens at all.
    """
    tier = BATCH if service_tier == BATCH else usage.service_tier or service_tier or STANDARD
    flags = list(usage.flags)
    tariff = _tariff(prices, tier, is_long=_is_long(prices, usage))
    lines = [tariff.line(sku, quantity, flags) for sku, quantity in _quantities(tariff, usage, flags).items()]
    if prices.surcharge_per_million:
        lines += _surcharge(prices.surcharge_per_million, sum(line.cost_nanos for line in lines))
    return Priced(
        cost_nanos=sum([line.cost_nanos for line in lines]),
        lines=tuple(lines),
        price_version=prices.version,
        service_tier=tier,
        flags=tuple(dict.fromkeys(flags)) if flags else (),
    )


def tier_permille(prices: ModelPrices, tier: str, *, is_cached: bool = False) -> int | None:
    """Return a service tier's factor on token prices in thousandths, None for a tier without one."""
    if tier in {STANDARD, "unspecified"}:
        return STANDARD_PERMILLE
    factor = prices.terms.tier_permille.get(tier)
    return prices.terms.cached_tier_permille.get(tier, factor) if is_cached else factor


def dearest_permille(prices: ModelPrices) -> int:
    """Return the highest factor of any service tier: what an unknown one is charged at."""
    factors = (*prices.terms.tier_permille.values(), *prices.terms.cached_tier_permille.values())
    return max((STANDARD_PERMILLE, *factors))


class _Tariff:
    """A model's prices at one service tier, for short calls or for long ones. What it is asked for it remembers."""

    __slots__ = ("_rates", "is_long", "prices", "tier")

    def __init__(self, prices: ModelPrices, tier: str, *, is_long: bool) -> None:
        self.prices = prices
        self.tier = tier
        self.is_long = is_long
        self._rates: dict[str, tuple[Unit, int, str]] = {}

    def sku(self, name: str | None, fallback_prefixes: tuple[str, ...], flags: list[str]) -> str:
        """Return `name` if it has a price, else the dearest SKU of the same direction, flagged."""
        if name is not None and self.has(name):
            return name
        dearest = self.prices.dearest(fallback_prefixes, is_long=self.is_long)
        dearest = dearest or self.prices.dearest(TOKEN_SKUS, is_long=self.is_long)
        if dearest is None:
            raise ModelUnpriced(model=self.prices.model, sku=name or fallback_prefixes[0])
        flags.append(f"{name or 'unknown'}_charged_as_{dearest}")
        return dearest

    def has(self, sku: str) -> bool:
        """Tell whether a SKU has a price."""
        return sku in self._rates or self.prices.nanos(sku, is_long=self.is_long) is not None

    def line(self, sku: str, quantity: int, flags: list[str]) -> Line:
        """Return the line for `quantity` units of a priced SKU."""
        rate = self._rates.get(sku)
        if rate is None:
            rate = self._rates[sku] = self._rate(sku)
        unit, nanos, flag = rate
        if flag:
            flags.append(flag)
        return Line(
            sku=sku, quantity=quantity, unit=unit, nanos_per_million=nanos, cost_nanos=charge_nanos(quantity, nanos)
        )

    def _rate(self, sku: str) -> tuple[Unit, int, str]:
        """Return a SKU's unit, what a million of it costs at this service tier, and the flag if the tier has none."""
        nanos = self.prices.nanos(sku, is_long=self.is_long) or 0
        unit = SKUS[sku].unit
        if unit is not Unit.TOKEN:
            return unit, nanos, ""
        factor = tier_permille(self.prices, self.tier, is_cached=sku.startswith(CACHED))
        flag = "" if factor is not None else f"service_tier_{self.tier}_unpriced"
        permille = dearest_permille(self.prices) if factor is None else factor
        return unit, -(-nanos * permille // STANDARD_PERMILLE), flag


def _tariff(prices: ModelPrices, tier: str, *, is_long: bool) -> _Tariff:
    found: _Tariff | None = prices.worked_out.get((tier, is_long))
    if found is None:
        found = _Tariff(prices, tier, is_long=is_long)
        # What callers and upstreams make up must not fill the memory.
        if prices.knows_tier(tier):
            prices.worked_out[tier, is_long] = found
    return found


def _surcharge(per_million: int, list_nanos: int) -> list[Line]:
    """Return the line of a surcharge on the sum of the others: money times a share, rounded once like any line."""
    if not list_nanos:
        return []
    return [
        Line(
            sku=RELAY_SURCHARGE,
            quantity=list_nanos,
            unit=Unit.NANOS,
            nanos_per_million=per_million,
            cost_nanos=charge_nanos(list_nanos, per_million),
        )
    ]


def _is_long(prices: ModelPrices, usage: Usage) -> bool:
    above = prices.terms.long_above_tokens
    return above is not None and usage.input_tokens > above


def _quantities(tariff: _Tariff, usage: Usage, flags: list[str]) -> dict[str, int]:
    quantities: dict[str, int] = {}
    for sku, quantity in _input_quantities(tariff, usage, flags):
        quantities[sku] = quantities.get(sku, 0) + quantity
    for sku, quantity in _output_quantities(tariff, usage, flags):
        quantities[sku] = quantities.get(sku, 0) + quantity
    if usage.grounding_queries:
        sku, quantity = _grounding(tariff, usage.grounding_queries, flags)
        quantities[sku] = quantities.get(sku, 0) + quantity
    return {sku: quantity for sku, quantity in quantities.items() if quantity}


def _input_quantities(tariff: _Tariff, usage: Usage, flags: list[str]) -> Iterator[tuple[str, int]]:
    sent, tool_use = usage.prompt, usage.tool_use
    for modality, sku, cached_sku in _INPUTS:
        cached = getattr(usage.cached, modality)
        fresh = getattr(sent, modality) - cached + getattr(tool_use, modality)
        if cached and not tariff.has(cached_sku):
            # The model has no cached price: no discount that nobody stated.
            fresh, cached = fresh + cached, 0
        if fresh:
            yield tariff.sku(sku, (INPUT,), flags), fresh
        if cached:
            yield cached_sku, cached
    if other := sent.other + tool_use.other:
        yield tariff.sku(None, (INPUT,), flags), other


def _output_quantities(tariff: _Tariff, usage: Usage, flags: list[str]) -> Iterator[tuple[str, int]]:
    candidates = usage.candidates
    for modality, sku in _OUTPUTS:
        if tokens := getattr(candidates, modality):
            yield tariff.sku(sku, OUTPUT_PREFIXES, flags), tokens
    if other := candidates.video + candidates.document + candidates.other:
        yield tariff.sku(None, OUTPUT_PREFIXES, flags), other
    if usage.thoughts_tokens:
        yield tariff.sku(THOUGHTS, OUTPUT_PREFIXES, flags), usage.thoughts_tokens
    sizes = tariff.prices.terms.tokens_per_image
    if usage.images and sizes and not candidates.total:
        # Images were delivered and no tokens reported for them: charged at their published size.
        flags.append("images_without_tokens")
        yield tariff.sku(OUTPUT_IMAGE, OUTPUT_PREFIXES, flags), usage.images * max(sizes.values())


def _grounding(tariff: _Tariff, queries: int, flags: list[str]) -> tuple[str, int]:
    """Return what searches are charged as: by query, or once for the prompt (the 2.5 models)."""
    if tariff.has(GROUNDING_PROMPT) and not tariff.has(GROUNDING_QUERY):
        return GROUNDING_PROMPT, 1
    return tariff.sku(GROUNDING_QUERY, (GROUNDING_QUERY,), flags), queries
