"""Usage times prices: lines that are each rounded once, and their sum."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

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
    Modality,
    Unit,
)
from tollhouse_server.pricing.terms import STANDARD, STANDARD_PERMILLE, ModelPrices
from tollhouse_server.pricing.usage import Usage

BATCH = "batch"
OUTPUT_PREFIXES = (*OUTPUT_SKUS.values(), THOUGHTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a charge: `cost_nanos` is `quantity` x `nanos_per_million`, rounded once, half to even."""

    sku: str
    quantity: int
    unit: Unit
    nanos_per_million: int
    cost_nanos: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Priced:
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
        return sum(line.cost_nanos for line in self.lines if line.sku == RELAY_SURCHARGE)


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
    bill = _Bill(prices, _is_long(prices, usage), tier, flags)
    quantities: dict[str, int] = {}
    for sku, quantity in _quantities(bill, usage):
        if quantity:
            quantities[sku] = quantities.get(sku, 0) + quantity
    lines = tuple(bill.line(sku, quantity) for sku, quantity in quantities.items())
    lines += _surcharge(prices.surcharge_per_million, sum(line.cost_nanos for line in lines))
    return Priced(
        cost_nanos=sum(line.cost_nanos for line in lines),
        lines=lines,
        price_version=prices.version,
        service_tier=tier,
        flags=tuple(dict.fromkeys(flags)),
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


@dataclass(frozen=True, slots=True)
class _Bill:
    """The circumstances of one call that decide which price holds."""

    prices: ModelPrices
    is_long: bool
    tier: str
    flags: list[str]

    def sku(self, name: str | None, fallback_prefixes: tuple[str, ...]) -> str:
        """Return `name` if it has a price, else the dearest SKU of the same direction, flagged."""
        if name is not None and self.prices.nanos(name, is_long=self.is_long) is not None:
            return name
        dearest = self.prices.dearest(fallback_prefixes, is_long=self.is_long)
        dearest = dearest or self.prices.dearest(TOKEN_SKUS, is_long=self.is_long)
        if dearest is None:
            raise ModelUnpriced(model=self.prices.model, sku=name or fallback_prefixes[0])
        self.flags.append(f"{name or 'unknown'}_charged_as_{dearest}")
        return dearest

    def line(self, sku: str, quantity: int) -> Line:
        """Return the line for `quantity` units of a priced SKU."""
        nanos = self.prices.nanos(sku, is_long=self.is_long) or 0
        unit = SKUS[sku].unit
        if unit is Unit.TOKEN:
            nanos = -(-nanos * self._permille(sku) // STANDARD_PERMILLE)
        return Line(
            sku=sku, quantity=quantity, unit=unit, nanos_per_million=nanos, cost_nanos=charge_nanos(quantity, nanos)
        )

    def _permille(self, sku: str) -> int:
        factor = tier_permille(self.prices, self.tier, is_cached=sku.startswith(CACHED))
        if factor is None:
            self.flags.append(f"service_tier_{self.tier}_unpriced")
            return dearest_permille(self.prices)
        return factor


def _surcharge(per_million: int, list_nanos: int) -> tuple[Line, ...]:
    """Return the line of a surcharge on the sum of the others: money times a share, rounded once like any line."""
    if not per_million or not list_nanos:
        return ()
    return (
        Line(
            sku=RELAY_SURCHARGE,
            quantity=list_nanos,
            unit=Unit.NANOS,
            nanos_per_million=per_million,
            cost_nanos=charge_nanos(list_nanos, per_million),
        ),
    )


def _is_long(prices: ModelPrices, usage: Usage) -> bool:
    above = prices.terms.long_above_tokens
    return above is not None and usage.input_tokens > above


def _quantities(bill: _Bill, usage: Usage) -> Iterator[tuple[str, int]]:
    yield from _input_quantities(bill, usage)
    yield from _output_quantities(bill, usage)
    if usage.grounding_queries:
        yield _grounding(bill, usage.grounding_queries)


def _input_quantities(bill: _Bill, usage: Usage) -> Iterator[tuple[str, int]]:
    for modality, sku in INPUT_SKUS.items():
        cached = getattr(usage.cached, modality.value)
        fresh = getattr(usage.prompt, modality.value) - cached + getattr(usage.tool_use, modality.value)
        if cached and bill.prices.nanos(CACHED_SKUS[modality], is_long=bill.is_long) is None:
            # The model has no cached price: no discount that nobody stated.
            fresh, cached = fresh + cached, 0
        if fresh:
            yield bill.sku(sku, (INPUT,)), fresh
        if cached:
            yield CACHED_SKUS[modality], cached
    other = usage.prompt.other + usage.tool_use.other
    if other:
        yield bill.sku(None, (INPUT,)), other


def _output_quantities(bill: _Bill, usage: Usage) -> Iterator[tuple[str, int]]:
    candidates = usage.candidates
    by_modality: Mapping[Modality, int] = {
        Modality.TEXT: candidates.text,
        Modality.IMAGE: candidates.image,
        Modality.AUDIO: candidates.audio,
    }
    for modality, tokens in by_modality.items():
        if tokens:
            yield bill.sku(OUTPUT_SKUS[modality], OUTPUT_PREFIXES), tokens
    other = candidates.video + candidates.document + candidates.other
    if other:
        yield bill.sku(None, OUTPUT_PREFIXES), other
    if usage.thoughts_tokens:
        yield bill.sku(THOUGHTS, OUTPUT_PREFIXES), usage.thoughts_tokens
    if usage.images and not candidates.total and bill.prices.terms.tokens_per_image:
        # Images were delivered and no tokens reported for them: charged at their published size.
        bill.flags.append("images_without_tokens")
        most = max(bill.prices.terms.tokens_per_image.values())
        yield bill.sku(OUTPUT_IMAGE, OUTPUT_PREFIXES), usage.images * most


def _grounding(bill: _Bill, queries: int) -> tuple[str, int]:
    """Return what searches are charged as: by query, or once for the prompt (the 2.5 models)."""
    if bill.prices.nanos(GROUNDING_PROMPT) is not None and bill.prices.nanos(GROUNDING_QUERY) is None:
        return GROUNDING_PROMPT, 1
    return bill.sku(GROUNDING_QUERY, (GROUNDING_QUERY,)), queries
