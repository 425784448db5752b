"""What the ledger refuses, or cannot say."""

from dataclasses import dataclass
from datetime import datetime

from tollhouse_server.errors.base import TollhouseError
from tollhouse_server.money import nanos_to_dollars


@dataclass(eq=False, kw_only=True)
class LimitExceeded(TollhouseError):
    """`held + settled + requested` would pass `amount` on one limit; nothing was held anywhere.

    `selector` is `tiers/...` or `models/...`, empty where the limit holds for all.
    Amounts are in the unit of `metric`: nano-dollars for COST, else a count.
    """

    reason = "LIMIT_EXCEEDED"
    limit: str
    scope: str
    selector: str
    metric: str
    window: str
    amount: int
    held: int
    settled: int
    requested: int
    resets_at: datetime | None
    retry_after_seconds: float | None

    def message(self) -> str:
        when = f"resets at {self.resets_at.isoformat()}" if self.resets_at else "does not reset by itself"
        return (
            f"Limit {self.limit} ({self.metric} per {self.window}) of {self._said(self.amount)} would be exceeded: "
            f"held {self._said(self.held)}, settled {self._said(self.settled)}, "
            f"requested {self._said(self.requested)}; it {when}."
        )

    def _said(self, amount: int) -> str:
        """Return an amount as people say it: dollars for COST, else a count."""
        return f"${nanos_to_dollars(amount)}" if self.metric == "COST" else str(amount)


@dataclass(eq=False, kw_only=True)
class StoreUnavailable(TollhouseError):
    """PostgreSQL cannot be reached or did not answer in time; nothing was admitted unbooked."""

    reason = "STORE_UNAVAILABLE"
    detail: str = ""

    def message(self) -> str:
        cause = f" ({self.detail})" if self.detail else ""
        return f"The ledger's database is not available{cause}; nothing was sent or booked. Try again shortly."
