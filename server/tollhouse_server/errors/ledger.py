"""What the ledger refuses, or cannot say."""

from dataclasses import dataclass
from datetime import datetime

from tollhouse_server.errors.base import TollhouseError
from tollhouse_server.money import nanos_to_dollars


@dataclass(eq=False, kw_only=True)
class LimitWithoutRoom:
    """The limit that stops a call, as it stood at that moment.

    `selector` is `tiers/...` or `models/...`, empty where the limit holds for all.
    Amounts are in the unit of `metric`: nano-dollars for COST, else a count.
    """

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

    def state(self) -> str:
        """Say how full the limit is, and when it is empty again."""
        when = f"resets at {self.resets_at.isoformat()}" if self.resets_at else "does not reset by itself"
        return (
            f"held {self._said(self.held)}, settled {self._said(self.settled)}, "
            f"requested {self._said(self.requested)}; it {when}"
        )

    def name(self) -> str:
        """Say which limit it is."""
        return f"Limit {self.limit} ({self.metric} per {self.window}) of {self._said(self.amount)}"

    def _said(self, amount: int) -> str:
        """Return an amount as people say it: dollars for COST, else a count."""
        return f"${nanos_to_dollars(amount)}" if self.metric == "COST" else str(amount)


@dataclass(eq=False, kw_only=True)
class LimitExceeded(LimitWithoutRoom, TollhouseError):
    """`held + settled + requested` would pass `amount` on one limit; nothing was held anywhere."""

    reason = "LIMIT_EXCEEDED"

    def message(self) -> str:
        return f"{self.name()} would be exceeded: {self.state()}."


@dataclass(eq=False, kw_only=True)
class BudgetCutOff(LimitWithoutRoom, TollhouseError):
    """A limit had no room for more of a running stream: it was ended, and what it used is booked.

    `output_tokens` is what had come by then; `cost_nanos` is what is booked, with what may have been under way.
    """

    reason = "BUDGET_CUT_OFF"
    attempt_id: str
    input_tokens: int
    output_tokens: int
    cost_nanos: int

    def message(self) -> str:
        return (
            f"{self.name()} ended the stream after {self.output_tokens} output tokens: {self.state()}. "
            f"${nanos_to_dollars(self.cost_nanos)} is booked for it as attempt {self.attempt_id}."
        )


@dataclass(eq=False, kw_only=True)
class StoreUnavailable(TollhouseError):
    """PostgreSQL cannot be reached or did not answer in time; nothing was admitted unbooked."""

    reason = "STORE_UNAVAILABLE"
    detail: str = ""

    def message(self) -> str:
        cause = f" ({self.detail})" if self.detail else ""
        return f"The ledger's database is not available{cause}; nothing was sent or booked. Try again shortly."


@dataclass(eq=False, kw_only=True)
class StoreLostMidStream(TollhouseError):
    """The ledger did not answer while a stream ran; the stream was ended before it could pass what is held for it."""

    reason = "STORE_UNAVAILABLE"
    attempt_id: str
    output_tokens: int

    def message(self) -> str:
        return (
            "The ledger's database did not answer while the stream ran; it was ended after "
            f"{self.output_tokens} output tokens, which are booked as attempt {self.attempt_id} as soon as it is back. "
            "A repetition is a new call."
        )
