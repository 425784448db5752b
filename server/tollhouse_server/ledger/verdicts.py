"""The verdict on one reservation, given the counters of its limits: pure arithmetic, no waiting, no SQL."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from tollhouse_server.errors import LimitExceeded
from tollhouse_server.ledger.terms import Amounts, CallTerms, CounterKey, Hold, LimitDefinition
from tollhouse_server.ledger.windows import window_end, window_start
from tollhouse_server.names import LimitName

KeyedLimit: TypeAlias = tuple[LimitDefinition, CounterKey]
"""A limit, and the counter that it has at the moment of the tick."""


@dataclass(slots=True)
class Counter:
    """A locked counter with what this tick has moved so far."""

    held: int
    settled: int
    held_moved: int = 0
    settled_moved: int = 0

    def move(self, *, held: int = 0, settled: int = 0) -> None:
        """Apply a movement; it is written at the end of the tick."""
        self.held += held
        self.settled += settled
        self.held_moved += held
        self.settled_moved += settled


def applicable(terms: CallTerms, definitions: Iterable[LimitDefinition]) -> list[LimitDefinition]:
    """Return the limits that count something of this call: selector matches and the ceiling is not zero."""
    names = ("", f"tiers/{terms.tier}", f"models/{terms.model}")
    return [limit for limit in definitions if limit.selector in names and terms.ceiling.of(limit.metric) > 0]


def counter_key(limit: LimitDefinition, at: datetime) -> CounterKey:
    """Return the key of the counter that `limit` has at the moment `at`."""
    return (limit.tenant_id, limit.limit_id, window_start(limit.window, at, limit.calendar))


def hold_all(
    terms: CallTerms, limits: Iterable[KeyedLimit], counters: dict[CounterKey, Counter], at: datetime
) -> tuple[Hold, ...]:
    """Hold the ceiling on every limit, or raise and hold nothing.

    Raises:
        LimitExceeded: the first limit, the narrowest scope first, that the ceiling does not fit in.
    """
    holds = []
    for limit, key in limits:
        amount = terms.ceiling.of(limit.metric)
        counter = counters[key]
        if counter.held + counter.settled + amount > limit.amount:
            raise _exceeded(limit, counter, amount, key[2], at)
        holds.append(Hold(limit_id=limit.limit_id, window_start=key[2], metric=limit.metric, amount=amount))
    for hold in holds:
        counters[(terms.scope.tenant_id, hold.limit_id, hold.window_start)].move(held=hold.amount)
    return tuple(holds)


def give_back(tenant_id: str, holds: Iterable[Hold], counters: dict[CounterKey, Counter]) -> None:
    """Take holds off again: nothing was used."""
    for hold in holds:
        counters[(tenant_id, hold.limit_id, hold.window_start)].move(held=-hold.amount)


def settle(tenant_id: str, holds: Iterable[Hold], actual: Amounts, counters: dict[CounterKey, Counter]) -> None:
    """Turn holds into what was really used, be it less or more."""
    for hold in holds:
        counter = counters[(tenant_id, hold.limit_id, hold.window_start)]
        counter.move(held=-hold.amount, settled=actual.of(hold.metric))


def correct(tenant_id: str, holds: Iterable[Hold], difference: Amounts, counters: dict[CounterKey, Counter]) -> None:
    """Correct what was settled by a difference; the holds themselves are gone already."""
    for hold in holds:
        counters[(tenant_id, hold.limit_id, hold.window_start)].move(settled=difference.of(hold.metric))


def _exceeded(limit: LimitDefinition, counter: Counter, requested: int, start: datetime, at: datetime) -> LimitExceeded:
    resets_at = window_end(limit.window, start, limit.calendar)
    # What never fits is not worth a retry, however long the caller waits.
    can_fit_later = resets_at is not None and requested <= limit.amount
    retry_after = (resets_at - at).total_seconds() if can_fit_later and resets_at is not None else None
    return LimitExceeded(
        limit=str(LimitName(limit.tenant_id, limit.name)),
        scope=limit.scope,
        selector=limit.selector,
        metric=limit.metric,
        window=limit.window,
        amount=limit.amount,
        held=counter.held,
        settled=counter.settled,
        requested=requested,
        resets_at=resets_at,
        retry_after_seconds=retry_after,
    )
