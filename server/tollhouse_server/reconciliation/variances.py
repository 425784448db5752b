"""A line in which Google's bill is not what the ledger booked, and what may have made it so."""

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

from tollhouse_server.names import BillVarianceName


class Reason(StrEnum):
    """What makes a line differ. Those in EXPLAINED explain it: their amount needs nobody to accept it."""

    PROJECT_NOT_IN_LEDGER = "PROJECT_NOT_IN_LEDGER"
    """The bill has a Google project that no account of Tollhouse has used in the month."""

    PROJECT_NOT_IN_BILL = "PROJECT_NOT_IN_BILL"
    """The ledger has use of a Google project that the bill does not name."""

    PRICE_MISMATCH = "PRICE_MISMATCH"
    """The quantity is the same, the price another."""

    DOUBLE_LINE = "DOUBLE_LINE"
    """The bill has a line twice, and is right without the second."""

    LATE_USAGE = "LATE_USAGE"
    """What is missing here is too much on a neighbouring day."""

    ROUNDING = "ROUNDING"
    """No more than what rounding each line can make, or a line that Google bills for it."""

    CREDITS = "CREDITS"
    """Google has given credits, which the ledger does not book."""

    FREE_TIER = "FREE_TIER"
    """Google has not charged use that is free up to a quantity."""

    UNKNOWN_SKU = "UNKNOWN_SKU"
    """No rule says what the SKU is."""

    CURRENCY = "CURRENCY"
    """The bill is in another currency, and its rate makes the difference."""

    SUSPENSE = "SUSPENSE"
    """Calls whose outcome is unknown are booked at what was expected of them."""

    TAX = "TAX"
    """Tax, which the ledger does not book."""

    ADJUSTMENT = "ADJUSTMENT"
    """Google has corrected the bill by a line of its own."""

    QUANTITY_MISMATCH = "QUANTITY_MISMATCH"
    """Google counted another quantity than the ledger, and nothing says why."""


EXPLAINED = frozenset(
    {Reason.LATE_USAGE, Reason.ROUNDING, Reason.CREDITS, Reason.FREE_TIER, Reason.CURRENCY, Reason.SUSPENSE, Reason.TAX}
)
"""Reasons that nobody has to accept: they are as they should be. What the others name blocks a close above a bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One reason, what of the difference it makes up, and a sentence for people, in English."""

    reason: Reason
    amount_nanos: int
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineKey:
    """What lines are matched by. `model` and `sku` are those of the price book, or Google's SKU id where none is known.

    `day` is one of US Pacific time.
    """

    day: date
    project: str
    model: str
    sku: str

    @property
    def series(self) -> tuple[str, str, str]:
        """Return all but the day."""
        return self.project, self.model, self.sku


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One line of both books. `billed_nanos` is without credits; quantities are in the units of the price book.

    `concerns_all` is true where no tenant is known to have used the Google project in the month.
    """

    key: LineKey
    google_sku: str = ""
    booked_nanos: int = 0
    billed_nanos: int = 0
    credits_nanos: int = 0
    booked_quantity: int = 0
    billed_quantity: int = 0
    findings: tuple[Finding, ...] = ()
    concerns_all: bool = False

    @property
    def variance_nanos(self) -> int:
        """Return how much more Google charges, credits taken off, than the ledger booked."""
        return self.billed_nanos + self.credits_nanos - self.booked_nanos

    @property
    def unexplained_nanos(self) -> int:
        """Return what of the difference no reason explains as it should be."""
        explained = sum(one.amount_nanos for one in self.findings if one.reason in EXPLAINED)
        return self.variance_nanos - explained


@dataclass(frozen=True, slots=True, kw_only=True)
class Variance:
    """A difference as it is kept, and what was decided on it; `state` is OPEN, ACCEPTED or GONE.

    It is GONE when a later reconciliation has found no difference any more. `accepted_nanos` is what was accepted of it
    so far, in `acceptance_count` steps.
    """

    variance_id: str
    month: str
    line: Compared
    unexplained_nanos: int
    accepted_nanos: int
    acceptance_count: int
    is_blocking: bool
    state: str
    accepted_by: str
    acceptance_reason: str
    accepted_at: datetime | None
    version: int

    @property
    def name(self) -> str:
        """Return the resource name."""
        return str(BillVarianceName(self.variance_id))

    @property
    def open_nanos(self) -> int:
        """Return what is left of the difference to be accepted."""
        return self.line.variance_nanos - self.accepted_nanos
