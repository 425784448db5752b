"""Both books side by side: what was booked and what is billed, under the same keys."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final

from tollhouse_server.reconciliation.sku_map import SkuMap, Target
from tollhouse_server.reconciliation.use_store import BilledUse, BookedUse
from tollhouse_server.reconciliation.variances import LineKey

TAX: Final = "tax"
ROUNDING: Final = "rounding_error"
ADJUSTMENT: Final = "adjustment"


@dataclass(slots=True, kw_only=True)
class Side:
    """What both books have for one key, while it is added up. Money of the bill is unrounded until all lines are in."""

    booked_nanos: int = 0
    booked_quantity: int = 0
    calls: int = 0
    billed: Decimal = Decimal(0)
    credits: Decimal = Decimal(0)
    free: Decimal = Decimal(0)
    doubled: Decimal = Decimal(0)
    adjusted: Decimal = Decimal(0)
    quantity: Decimal = Decimal(0)
    paid_quantity: Decimal = Decimal(0)
    doubled_quantity: Decimal = Decimal(0)
    lines: int = 0
    google_skus: set[str] = field(default_factory=set)
    currencies: set[str] = field(default_factory=set)
    is_unknown: bool = False

    def book(self, use: BookedUse) -> None:
        """Add what the ledger has."""
        self.booked_nanos += use.cost_nanos
        self.booked_quantity += use.quantity
        self.calls += use.calls

    def bill(self, use: BilledUse) -> None:
        """Add lines of the bill."""
        self.billed += use.cost_nanos
        self.credits += use.credits_nanos
        self.free += use.free_nanos
        self.lines += use.lines
        self.google_skus.add(f"{use.sku} ({use.sku_id})")
        self.currencies.add(use.currency)
        if use.cost_type == ADJUSTMENT:
            self.adjusted += use.cost_nanos
        else:
            self.quantity += use.quantity
            self.paid_quantity += use.paid_quantity
            self.doubled += use.doubled_nanos
            self.doubled_quantity += use.doubled_quantity

    @property
    def billed_nanos(self) -> int:
        """Return what is billed, without credits."""
        return whole(self.billed)

    @property
    def quantity_excess(self) -> int:
        """Return how much more Google counts than the ledger, lines that are there twice taken once."""
        return whole(self.quantity - self.doubled_quantity) - self.booked_quantity

    @property
    def excess_nanos(self) -> int:
        """Return how much more Google bills than the ledger booked, credits left aside."""
        return self.billed_nanos - self.booked_nanos


@dataclass(slots=True, kw_only=True)
class Sides:
    """All keys, with the Google projects that each of the books knows in the month."""

    by_key: dict[LineKey, Side] = field(default_factory=dict)
    booked_projects: set[str] = field(default_factory=set)
    billed_projects: set[str] = field(default_factory=set)
    newest_export: datetime | None = None

    def at(self, key: LineKey) -> Side:
        """Return the side of a key."""
        return self.by_key.setdefault(key, Side())


def whole(amount: Decimal) -> int:
    """Return an unrounded amount as an integer, rounded once, half to even."""
    return int(amount.to_integral_value(ROUND_HALF_EVEN))


def lay_side_by_side(
    booked: Iterable[BookedUse], billed: Iterable[BilledUse], sku_map: SkuMap, *, month: tuple[date, date]
) -> Sides:
    """Return both books under the same keys; projects are those of the days from `month[0]` to before `month[1]`."""
    sides = Sides()
    for use in booked:
        key = LineKey(day=use.day, project=use.project, model=sku_map.folded(use.model), sku=sku_map.folded(use.sku))
        sides.at(key).book(use)
        if month[0] <= use.day < month[1]:
            sides.booked_projects.add(use.project)
    for line in billed:
        _bill(sides, line, sku_map, month)
    return sides


def _bill(sides: Sides, use: BilledUse, sku_map: SkuMap, month: tuple[date, date]) -> None:
    sides.newest_export = max(sides.newest_export or use.newest_export, use.newest_export)
    target = sku_map.target(service_id=use.service_id, service=use.service, sku_id=use.sku_id, sku=use.sku, day=use.day)
    if use.cost_type in (TAX, ROUNDING):
        # They stand for the whole invoice; whose they are, nobody can say.
        target = Target(sku=use.cost_type)
    elif target is not None and target.ignored:
        return
    elif month[0] <= use.day < month[1]:
        sides.billed_projects.add(use.project)
    found = target or Target(sku=use.sku_id)
    side = sides.at(LineKey(day=use.day, project=use.project, model=found.model, sku=found.sku))
    side.bill(use)
    side.is_unknown = side.is_unknown or target is None
