"""A month of a tenant as statements are made from it: read once, for the tenant and all of its departments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from tollhouse_server.chargeback.returns import Alternative
from tollhouse_server.chargeback.statement import DisplayCurrency, Entry, UsageFact
from tollhouse_server.reporting.detail_store import LabelCost
from tollhouse_server.reporting.periods import Period


class Cell(NamedTuple):
    """Sums of one department, project, tier and model over the month, and what it cost on each of its days."""

    department_path: tuple[str, ...]
    project: str
    tier: str
    model: str
    daily_nanos: Mapping[date, int]
    calls: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    thoughts_tokens: int
    images: int
    cost_nanos: int
    suspense_calls: int
    suspense_nanos: int


class DayCell(NamedTuple):
    """Sums of one day of one department, with nothing below it. With every project, tier and model they were a lot."""

    day: date
    department_path: tuple[str, ...]
    calls: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    thoughts_tokens: int
    images: int
    cost_nanos: int
    suspense_calls: int
    suspense_nanos: int


MEASURES = DayCell._fields[2:]
"""The members that are sums; cells have the same."""


class SkuCell(NamedTuple):
    """Priced lines of one department, project, tier, model and SKU, added up over the month."""

    department_path: tuple[str, ...]
    project: str
    tier: str
    model: str
    sku: str
    calls: int
    quantity: int
    cost_nanos: int


class DailyCost(NamedTuple):
    """What one department, with nothing below it, has cost on one day."""

    day: date
    department_path: tuple[str, ...]
    cost_nanos: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedPart:
    """What limits have refused to one department, with nothing below it, about the moment `at`."""

    tenant: str
    department_path: tuple[str, ...]
    at: datetime
    calls: int
    ceiling_nanos: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Department:
    """A department as it is now."""

    display_name: str
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MoneyLimit:
    """A limit of money for the month. `scope` is a resource name, `selector` `tiers/...`, `models/...` or empty."""

    name: str
    scope: str
    selector: str
    amount_nanos: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """What one department has saved upstream, in nano-dollars."""

    department_path: tuple[str, ...]
    cache_nanos: int
    batch_nanos: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Month:
    """Which month is meant: its name, its period, and whether it begins on another day than the first.

    Its days are those of its own time zone: that of the tenant may have changed since the month was previewed.
    """

    name: str
    period: Period
    time_zone: str
    is_fiscal: bool

    @property
    def zone(self) -> ZoneInfo:
        """Its time zone."""
        return ZoneInfo(self.time_zone)

    @property
    def first_day(self) -> date:
        """Its first day."""
        return self.period.start.astimezone(self.zone).date()

    @property
    def last_day(self) -> date:
        """Its last day: that of its last moment, wherever the clocks are set in it."""
        return (self.period.end - timedelta(microseconds=1)).astimezone(self.zone).date()


@dataclass(frozen=True, slots=True, kw_only=True)
class MonthBooks:
    """Everything that statements of a tenant's month are made from, as of `read_at`; `cells` and `days` add up alike.

    `daily` is what the days before today have cost, also those of earlier months; of a month that is over, nothing.
    """

    tenant: str
    display_name: str
    month: Month
    read_at: datetime
    cells: Sequence[Cell]
    days: Sequence[DayCell]
    skus: Sequence[SkuCell]
    entries: Sequence[Entry] = ()
    labels: Sequence[LabelCost] = ()
    saved: Sequence[Saved] = ()
    avoided_nanos: Mapping[tuple[str, ...], int] = field(default_factory=dict)
    price_versions: Mapping[tuple[str, ...], frozenset[int]] = field(default_factory=dict)
    limits: Sequence[MoneyLimit] = ()
    departments: Mapping[str, Department] = field(default_factory=dict)
    currency: DisplayCurrency | None = None
    daily: Sequence[DailyCost] = ()
    refused: Sequence[RefusedPart] = ()
    alternatives: Sequence[Alternative] = ()

    def facts(self) -> tuple[UsageFact, ...]:
        """Return what rules and shared costs reckon with."""
        return tuple(
            UsageFact(
                department_path=cell.department_path,
                project=cell.project,
                tier=cell.tier,
                model=cell.model,
                calls=cell.calls,
                cost_nanos=cell.cost_nanos,
                daily_nanos=cell.daily_nanos,
                tokens=cell.input_tokens + cell.output_tokens,
            )
            for cell in self.cells
        )
