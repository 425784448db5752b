"""What a statement says: one month of a tenant or department as numbers and reasons, before any format or language.

Money is integer nano-dollars. Cost is what the ledger booked, at Google's list price; a charge is cost plus the entries
that rules, shared costs, credits and corrections add to it, each with its reason. Everything adds up exactly:

- the sum of `lines` is `totals.cost_nanos`;
- `totals.charge_nanos` is `totals.cost_nanos` plus the sum of `entries`;
- each breakdown adds up to the totals, in cost and in charge.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum

from tollhouse_server.names import Scope
from tollhouse_server.reporting.periods import Period
from tollhouse_server.reporting.sums import Dimension


class PeriodState(StrEnum):
    """How far a month is: it runs, it is over and can still be corrected, or it is locked for good."""

    OPEN = "OPEN"
    PREVIEW = "PREVIEW"
    CLOSED = "CLOSED"


class EntryKind(StrEnum):
    """Why something is added to the cost, or taken from it."""

    RATE = "RATE"
    """A mark-up or discount on usage."""

    SHARED = "SHARED"
    """A part of a shared cost."""

    ADJUSTMENT = "ADJUSTMENT"
    """A credit or correction, also of an earlier month."""

    TRUE_UP = "TRUE_UP"
    """What a reconciliation with Google's bill has found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """What was used and what it cost. Tokens as in `reporting.sums.Sums`."""

    calls: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    thoughts_tokens: int = 0
    images: int = 0
    cost_nanos: int = 0
    suspense_calls: int = 0
    suspense_nanos: int = 0
    charge_nanos: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageLine:
    """Cost of one SKU of one model, tier, project and department, at list price. Names are resource names."""

    department: str
    project: str
    tier: str
    model: str
    sku: str
    unit: str
    quantity: int
    calls: int
    cost_nanos: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageFact:
    """Cost of one department, project, tier and model: what rules and shared costs reckon with.

    Departments, project, tier and model are ids. `cost_nanos` is the sum of `daily_nanos`, `tokens` are input and
    output together.
    """

    department_path: tuple[str, ...]
    project: str
    tier: str
    model: str
    calls: int
    cost_nanos: int
    daily_nanos: Mapping[date, int]
    tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One signed addition to the cost: `amount_nanos`, with the rule that made it and what it was reckoned from.

    `department` and `project` are resource names, `tier` and `model` ids; all are empty where the entry is of none.
    `rule` is the resource name of what says so; `reason` is a sentence for people, in English or as its author wrote
    it. `for_month` is an earlier month that is corrected, `YYYY-MM`.
    """

    kind: EntryKind
    amount_nanos: int
    rule: str
    reason: str
    department: str = ""
    project: str = ""
    tier: str = ""
    model: str = ""
    basis_nanos: int | None = None
    for_month: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One value of a breakdown: a resource name, an id, a day (`YYYY-MM-DD`), or `key=value` of a label."""

    key: str
    amounts: Amounts


@dataclass(frozen=True, slots=True, kw_only=True)
class Savings:
    """What was not spent, against the list price of the same use without the saving."""

    cache_nanos: int = 0
    batch_nanos: int = 0
    on_device_nanos: int = 0

    @property
    def total_nanos(self) -> int:
        """Everything together."""
        return self.cache_nanos + self.batch_nanos + self.on_device_nanos


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusals:
    """Spend that limits have kept from happening: calls that were refused, and what they would have held."""

    calls: int = 0
    ceiling_nanos: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetUse:
    """A money limit and what the month used of it."""

    limit: str
    scope: str
    display_name: str
    amount_nanos: int
    used_nanos: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What the month is expected to cost when it ends, with a band of `confidence_percent`, and what to set aside.

    First at list price, then as it will be charged. Statements before there was the latter have zeros there.
    """

    expected_nanos: int
    low_nanos: int
    high_nanos: int
    confidence_percent: int
    reserve_percent: int
    recommended_nanos: int
    expected_charge_nanos: int = 0
    low_charge_nanos: int = 0
    high_charge_nanos: int = 0
    recommended_charge_nanos: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Return:
    """Return on investment against a stated alternative: so much for each unit of work."""

    unit: str
    units: int
    alternative_nanos: int
    actual_nanos: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DisplayCurrency:
    """A currency to show amounts in beside dollars: millionths of a unit for one dollar, with the date of the rate."""

    code: str
    per_dollar_millionths: int
    dated: date
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """What closed a statement: its digest (SHA-256 of the canonical JSON, hexadecimal), signed in Vault's transit.

    All statements of a month are signed together: `signature` (Base64) is over a tree of `tree_size` leaves, and
    `path` (hexadecimal) leads from the one at `leaf_index` to its root, as with receipts. A leaf is the digest, the
    moment and the closer, each in a line; of months that were closed before these were signed, the digest alone.
    """

    sha256: str
    signature: str
    key_version: int
    closed_at: datetime
    closed_by: str
    tree_size: int = 1
    leaf_index: int = 0
    path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A month of a tenant or of a department with everything below it; see the module's sums."""

    scope: Scope
    display_name: str
    month: str
    period: Period
    time_zone: str
    is_fiscal: bool
    state: PeriodState
    generated_at: datetime
    totals: Amounts
    lines: tuple[UsageLine, ...]
    entries: tuple[Entry, ...]
    breakdowns: Mapping[Dimension, tuple[Part, ...]] = field(default_factory=dict)
    labels: tuple[Part, ...] = ()
    savings: Savings = field(default_factory=Savings)
    refusals: Refusals = field(default_factory=Refusals)
    budgets: tuple[BudgetUse, ...] = ()
    forecast: Forecast | None = None
    returns: tuple[Return, ...] = ()
    currency: DisplayCurrency | None = None
    price_versions: tuple[int, ...] = ()
    department_names: Mapping[str, str] = field(default_factory=dict)
    seal: Seal | None = None
