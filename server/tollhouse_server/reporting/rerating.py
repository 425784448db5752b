"""What usage would have cost at other prices or on another service tier: a report, never a change; pure.

Each line is quantity times price, rounded once, half to even. At prices of whole nano-dollars for a token, as Google's
are, that is the sum of what the calls would have cost each.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from tollhouse_server.errors import ModelUnpriced
from tollhouse_server.money import charge_nanos
from tollhouse_server.pricing.skus import LONG, RELAY_SURCHARGE, SKUS, Unit
from tollhouse_server.pricing.terms import STANDARD, STANDARD_PERMILLE, PriceBook, PriceList


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """Usage that was booked alike. `at` lies in the same span of every price as its calls.

    `service_tier` is what the answers reported, if they did; `input_tokens` a size on the same side of every threshold
    as its calls; `surcharge_per_million` what was charged on top of these calls.
    """

    model: str
    price_version: int
    at: datetime
    sku: str
    unit: str
    nanos_per_million: int
    quantity: int
    cost_nanos: int
    service_tier: str | None = None
    input_tokens: int = 0
    surcharge_per_million: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What to reckon with: a book, a service tier, the moment of its prices; None stands for each call's own."""

    book: PriceBook | None = None
    service_tier: str | None = None
    prices_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RatedLine:
    """Usage with its price then and now. Of a surcharge, the quantity is the rerated cost that it is charged on."""

    model: str
    sku: str
    service_tier: str
    unit: str
    booked_nanos_per_million: int
    rated_nanos_per_million: int
    surcharge_per_million: int
    quantity: int
    booked_nanos: int

    @property
    def rated_nanos(self) -> int:
        """Quantity times price, rounded once."""
        return charge_nanos(self.quantity, self.rated_nanos_per_million)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerating:
    """The lines by model and SKU; `notes` say what was reckoned in another way than asked."""

    lines: tuple[RatedLine, ...]
    notes: tuple[str, ...]

    @property
    def booked_nanos(self) -> int:
        """What the lines cost as booked."""
        return sum(line.booked_nanos for line in self.lines)

    @property
    def rated_nanos(self) -> int:
        """What they would have cost."""
        return sum(line.rated_nanos for line in self.lines)


def rerate(used: Sequence[Used], books: Mapping[int, PriceBook], target: Target) -> Rerating:
    """Reckon usage anew. `books` has every version that a call was booked with."""
    reckoning = _Reckoning(books, target)
    lines = _merged(reckoning.line(one) for one in used if one.sku != RELAY_SURCHARGE)
    surcharges = _surcharges(lines, [one for one in used if one.sku == RELAY_SURCHARGE])
    ordered = sorted([*lines, *surcharges], key=_order)
    return Rerating(lines=tuple(ordered), notes=tuple(sorted(reckoning.notes)))


def _order(line: RatedLine) -> tuple[str, str, str, int, int, int]:
    prices = (line.booked_nanos_per_million, line.rated_nanos_per_million, line.surcharge_per_million)
    return line.model, line.sku, line.service_tier, *prices


@dataclass(slots=True)
class _Reckoning:
    """Finds prices, and notes where it could not do as asked."""

    books: Mapping[int, PriceBook]
    target: Target
    notes: set[str] = field(default_factory=set)

    def line(self, used: Used) -> RatedLine:
        """Return the line of one group."""
        old = _terms(self.books[used.price_version], used.model, used.at)
        tier, is_long = _circumstances(used, old)
        new = _terms(self.target.book or self.books[used.price_version], used.model, self.target.prices_at or used.at)
        if new is None:
            self.notes.add(f"{used.model} has no price there; its cost is as it was booked.")
            nanos: int | None = None
        else:
            tier = self._tier(used, new, tier)
            nanos = _nanos(new, used.sku, tier, is_long=_is_long(used, old, new, is_long=is_long))
            if nanos is None:
                self.notes.add(f"{used.model} has no price of {used.sku} there; its cost is as it was booked.")
        return RatedLine(
            model=used.model,
            sku=used.sku,
            service_tier=tier,
            unit=used.unit,
            booked_nanos_per_million=used.nanos_per_million,
            rated_nanos_per_million=used.nanos_per_million if nanos is None else nanos,
            surcharge_per_million=used.surcharge_per_million,
            quantity=used.quantity,
            booked_nanos=used.cost_nanos,
        )

    def _tier(self, used: Used, new: PriceList, booked: str) -> str:
        """Return the service tier to reckon with: the one asked for where the model has it, else the call's own."""
        asked = self.target.service_tier
        if asked is None or asked == booked or SKUS[used.sku].unit is not Unit.TOKEN:
            return booked
        if asked != STANDARD and new.permille(used.sku, asked) is None:
            self.notes.add(f"{used.model} has no prices of the service tier {asked}; its calls stay on their own.")
            return booked
        return asked


def _terms(book: PriceBook, model: str, at: datetime) -> PriceList | None:
    try:
        return book.terms(model, at).terms
    except ModelUnpriced:
        return None


def _circumstances(used: Used, old: PriceList | None) -> tuple[str, bool]:
    """Return the service tier that a group was booked on, and whether as long prompts: those whose price is its own."""
    reported = used.service_tier or STANDARD
    if old is not None:
        for tier in dict.fromkeys((reported, STANDARD, *old.tier_permille)):
            for is_long in (False, True):
                if _nanos(old, used.sku, tier, is_long=is_long) == used.nanos_per_million:
                    return tier, is_long
    return reported, False


def _is_long(used: Used, old: PriceList | None, new: PriceList, *, is_long: bool) -> bool:
    """Tell whether the price of long prompts holds: as it was booked, unless long begins elsewhere now."""
    if new.long_above_tokens is None:
        return False
    if old is not None and old.long_above_tokens == new.long_above_tokens:
        return is_long or used.input_tokens > new.long_above_tokens
    return used.input_tokens > new.long_above_tokens


def _nanos(terms: PriceList, sku: str, tier: str, *, is_long: bool) -> int | None:
    prices = terms.nanos_per_million
    nanos = prices.get(sku + LONG, prices.get(sku)) if is_long else prices.get(sku)
    if nanos is None or SKUS[sku].unit is not Unit.TOKEN:
        return nanos
    permille = STANDARD_PERMILLE if tier in (STANDARD, "unspecified") else terms.permille(sku, tier)
    return None if permille is None else -(-nanos * permille // STANDARD_PERMILLE)


def _merged(lines: Iterable[RatedLine]) -> list[RatedLine]:
    """Add up the lines that are alike but for their quantity."""
    sums: dict[tuple[str, str, str, int, int, int], RatedLine] = {}
    for line in lines:
        before = sums.get(_order(line))
        sums[_order(line)] = line if before is None else _added(before, line)
    return list(sums.values())


def _added(one: RatedLine, other: RatedLine) -> RatedLine:
    return RatedLine(
        model=one.model,
        sku=one.sku,
        service_tier=one.service_tier,
        unit=one.unit,
        booked_nanos_per_million=one.booked_nanos_per_million,
        rated_nanos_per_million=one.rated_nanos_per_million,
        surcharge_per_million=one.surcharge_per_million,
        quantity=one.quantity + other.quantity,
        booked_nanos=one.booked_nanos + other.booked_nanos,
    )


def _surcharges(lines: Sequence[RatedLine], booked: Sequence[Used]) -> Iterator[RatedLine]:
    """Yield the surcharges, at their own rate, on what the calls would have cost."""
    for model, rate in sorted({(one.model, one.nanos_per_million) for one in booked}):
        mine = [one for one in booked if (one.model, one.nanos_per_million) == (model, rate)]
        charged = [one for one in lines if (one.model, one.surcharge_per_million) == (model, rate)]
        yield RatedLine(
            model=model,
            sku=RELAY_SURCHARGE,
            service_tier="",
            unit=mine[0].unit,
            booked_nanos_per_million=rate,
            rated_nanos_per_million=rate,
            surcharge_per_million=rate,
            quantity=sum(line.rated_nanos for line in charged),
            booked_nanos=sum(one.cost_nanos for one in mine),
        )
