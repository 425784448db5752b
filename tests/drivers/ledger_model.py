"""The ledger as a specification: plain Python, one thing after the other, nothing to wait for, nothing that fails.

What the real one does with PostgreSQL, batches and several processes must come to the same. Windows do not end here.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple
from uuid import UUID

from tollhouse_server.ledger.terms import Amounts, CallTerms, Metric, Mode, RecordKind, Shares, Shrunk


@dataclass(slots=True, eq=False, kw_only=True)
class Limit:
    """A limit with what it has counted. `amount` is the one in force, `increased` what of it is temporary.

    `expected` counts only where the mode is ELASTIC.
    """

    name: str
    scope: str
    metric: Metric
    mode: Mode
    selector: str
    amount: int
    overshoot: int = 0
    thresholds: tuple[int, ...] = ()
    increased: int = 0
    is_rolling: bool = False
    is_deleted: bool = False
    held: int = 0
    expected: int = 0
    settled: int = 0
    alerts: Counter[tuple[str, int]] = field(default_factory=Counter)
    excuse: int = 0
    """How far a STRICT limit may be passed: settlements above their hold, and an amount that was lowered."""

    def applies_to(self, terms: CallTerms) -> bool:
        """Tell whether a call counts here: it is below the scope, of the tier or model, and has something to count."""
        return (
            not self.is_deleted
            and self.scope in terms.scope.limit_scopes()
            and self.selector in {"", f"tiers/{terms.tier}", f"models/{terms.model}"}
            and terms.ceiling.held_for(self.metric) > 0
        )

    def room(self) -> int:
        """Return how much more of the worst case fits."""
        return self.amount + (self.overshoot if self.mode is Mode.ELASTIC else 0) - self.held - self.settled

    def refuses(self, more: int, expected: int) -> bool:
        """Tell whether a call is kept out that may use `more` and will probably use `expected`."""
        if more == 0 or self.mode is Mode.SOFT:
            return False
        is_improbable = self.mode is Mode.ELASTIC and self.expected + self.settled + expected > self.amount
        return is_improbable or more > self.room()

    def raise_alerts(self) -> None:
        """Raise, once each, what has been reached; of a rolling window no counter holds what counts."""
        if self.is_rolling:
            return
        for threshold in self.thresholds:
            if self.settled > 0 and self.settled * 100 >= self.amount * threshold:
                self.alerts["THRESHOLD", threshold] = 1
        if self.settled > self.amount:
            self.alerts["PASSED", 0] = 1


def worth_a_retry(limit: Limit, terms: CallTerms, shares: Shares) -> str:
    """Return when a limit that refuses a call may admit it: nothing in flight any more, nothing counted, or never."""
    for when, settled in (("RELEASE", limit.settled), ("RESET", 0)):
        alone = LedgerModel(limits=[replace(limit, held=0, expected=0, settled=settled)])
        if alone.granted(terms, shares) is not None:
            return when
    return "NEVER"


class Held(NamedTuple):
    """What an attempt holds on a limit."""

    limit: Limit
    amount: int
    expected: int


@dataclass(slots=True)
class Attempt:
    """A call in flight: its worst case, and what it holds."""

    terms: CallTerms
    ceiling: Amounts
    holds: list[Held]


@dataclass(slots=True)
class LedgerModel:
    """All limits of one company, its attempts, records and request ids."""

    limits: list[Limit] = field(default_factory=list)
    attempts: dict[UUID, Attempt] = field(default_factory=dict)
    suspense: dict[UUID, tuple[Attempt, Amounts]] = field(default_factory=dict)
    records: Counter[tuple[UUID, RecordKind, Amounts]] = field(default_factory=Counter)
    became: dict[UUID, str] = field(default_factory=dict)
    request_ids: dict[UUID, CallTerms] = field(default_factory=dict)

    def refusing(self, terms: CallTerms, ceiling: Amounts, expected: Amounts) -> list[Limit]:
        """Return the limits that keep a call out, those of the narrowest scope first."""
        limits = [
            limit
            for limit in self.limits
            if limit.applies_to(terms)
            and limit.refuses(ceiling.held_for(limit.metric), expected.held_for(limit.metric))
        ]
        return sorted(limits, key=lambda limit: terms.scope.limit_scopes().index(limit.scope))

    def rooms(self, terms: CallTerms) -> tuple[int | None, int | None]:
        """Return the worst-case room in money and in output tokens, None where no limit counts it."""
        return self._room(terms, Metric.COST), self._room(terms, Metric.OUTPUT_TOKENS)

    def _room(self, terms: CallTerms, metric: Metric) -> int | None:
        binding = [limit for limit in self.limits if limit.applies_to(terms) and limit.mode is not Mode.SOFT]
        return min((max(0, limit.room()) for limit in binding if limit.metric is metric), default=None)

    def clamping(self, terms: CallTerms, smaller: Shrunk) -> list[Limit]:
        """Return the limits that would make the call just as small if each were the only one."""
        return [
            limit
            for limit in self.limits
            if terms.shrink is not None
            and limit.applies_to(terms)
            and limit.mode is not Mode.SOFT
            and limit.metric in {Metric.COST, Metric.OUTPUT_TOKENS}
            and terms.shrink(*LedgerModel(limits=[limit]).rooms(terms)) == smaller
        ]

    def granted(self, terms: CallTerms, shares: Shares) -> Amounts | None:
        """Return the ceiling that a call is admitted with: its own, a smaller one's, or none."""
        if not self.refusing(terms, terms.ceiling, shares.of(terms.ceiling)):
            return terms.ceiling
        smaller = terms.shrink(*self.rooms(terms)) if terms.shrink else None
        fits = smaller is not None and not self.refusing(terms, smaller.ceiling, shares.of(smaller.ceiling))
        return smaller.ceiling if smaller is not None and fits else None

    def repeats(self, terms: CallTerms) -> str | None:
        """Return what a repeated request id is told, None if the id is free."""
        claimed = self.request_ids.get(terms.request_id) if terms.first else None
        if claimed is None:
            return None
        if claimed.fingerprint != terms.fingerprint:
            return "REUSED"
        in_flight = any(attempt.terms.request_id == terms.request_id for attempt in self.attempts.values())
        return "DISPATCHED" if in_flight else self.became[claimed.attempt_id]

    def admit(self, terms: CallTerms, ceiling: Amounts, expected: Amounts) -> None:
        """Hold the ceiling on every limit that counts the call."""
        holds = [
            Held(
                limit,
                ceiling.held_for(limit.metric),
                expected.held_for(limit.metric) if limit.mode is Mode.ELASTIC else 0,
            )
            for limit in self.limits
            if limit.applies_to(terms) and ceiling.held_for(limit.metric)
        ]
        _move(holds, 1)
        self.attempts[terms.attempt_id] = Attempt(terms, ceiling, holds)
        if terms.first:
            self.request_ids[terms.request_id] = terms

    def top_up(self, attempt_id: UUID, more: Amounts) -> list[Limit]:
        """Let an attempt hold more on the limits that it holds on, or return those that have no room."""
        attempt = self.attempts[attempt_id]
        more_on = [
            Held(limit, more.of(limit.metric), more.of(limit.metric) if expected else 0)
            for limit, _, expected in attempt.holds
        ]
        full = [
            held.limit for held in more_on if not held.limit.is_deleted and held.limit.refuses(held.amount, held.amount)
        ]
        if not full:
            _move(more_on, 1)
            attempt.holds = [
                Held(old.limit, old.amount + new.amount, old.expected + new.expected)
                for old, new in zip(attempt.holds, more_on, strict=True)
            ]
            attempt.ceiling = attempt.ceiling.plus(more)
        return full

    def settle(self, attempt_id: UUID, kind: RecordKind, actual: Amounts) -> None:
        """End an attempt, or correct what was booked for one of unknown outcome; anything else has no effect."""
        if attempt_id in self.attempts:
            self._end(self.attempts.pop(attempt_id), kind, actual)
        elif attempt_id in self.suspense and kind is not RecordKind.SUSPENSE:
            attempt, booked = self.suspense.pop(attempt_id)
            self._book(attempt, RecordKind.ADJUSTMENT, actual.minus(booked))

    def _end(self, attempt: Attempt, kind: RecordKind, actual: Amounts) -> None:
        _move(attempt.holds, -1)
        for limit, amount, _ in attempt.holds:
            used = actual.of(limit.metric)
            limit.excuse += max(0, used - amount)
            if kind is RecordKind.SETTLED and used > amount:
                limit.alerts["ABOVE_HOLD", 0] += 1
        self._book(attempt, kind, actual)
        if kind is RecordKind.SUSPENSE:
            self.suspense[attempt.terms.attempt_id] = (attempt, actual)

    def _book(self, attempt: Attempt, kind: RecordKind, actual: Amounts) -> None:
        self._note(attempt, kind, actual)
        for limit, _, _ in attempt.holds:
            if actual.of(limit.metric) > 0:
                limit.raise_alerts()

    def _note(self, attempt: Attempt, kind: RecordKind, actual: Amounts) -> None:
        for limit, _, _ in attempt.holds:
            limit.settled += actual.of(limit.metric)
        self.records[attempt.terms.attempt_id, kind, actual] += 1
        # Whoever repeats a call of once unknown outcome learns that it is known by now, not how that was booked.
        self.became[attempt.terms.attempt_id] = "SETTLED" if kind is RecordKind.ADJUSTMENT else kind

    def resolve(self, attempt_id: UUID, outcome: Amounts) -> None:
        """Let an administrator say what an attempt of unknown outcome came to; alerts wait for the next settlement."""
        attempt, booked = self.suspense.pop(attempt_id)
        self._note(attempt, RecordKind.ADJUSTMENT, outcome.minus(booked))

    def suspend(self, attempt_ids: Iterable[UUID]) -> None:
        """Book attempts of the dead at their ceiling."""
        for attempt_id in list(attempt_ids):
            self.settle(attempt_id, RecordKind.SUSPENSE, self.attempts[attempt_id].ceiling)

    def change_amount(self, limit: Limit, amount: int) -> None:
        """Set the amount in force; what is counted stays counted."""
        limit.excuse += max(0, limit.amount - amount)
        limit.amount = amount


def _move(holds: Sequence[Held], sign: int) -> None:
    for limit, amount, expected in holds:
        limit.held += sign * amount
        limit.expected += sign * expected
