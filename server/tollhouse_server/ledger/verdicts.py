"""The verdict on one reservation, given the counters of its limits: pure arithmetic, no waiting, no SQL."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from tollhouse_server.errors import LimitExceeded
from tollhouse_server.ledger.terms import (
    Amounts,
    CallTerms,
    CounterKey,
    Hold,
    LimitDefinition,
    Metric,
    Mode,
    Shrunk,
    Window,
)
from tollhouse_server.ledger.windows import counted_starts, window_end, window_start
from tollhouse_server.names import LimitName

_RETRY_WHEN_HELD_SECONDS = 2.0
"""A call that only calls in flight keep out is worth another try when they have ended."""


@dataclass(slots=True, eq=False)
class Counter:
    """A locked counter with what this tick has moved so far."""

    held: int = 0
    expected: int = 0
    settled: int = 0
    alert_at: int = 0
    held_moved: int = 0
    expected_moved: int = 0
    settled_moved: int = 0
    has_settled: bool = False

    @property
    def is_moved(self) -> bool:
        """Tell whether something has been moved that is not written yet."""
        return bool(self.held_moved or self.expected_moved or self.settled_moved)

    def move(self, *, held: int = 0, expected: int = 0, settled: int = 0) -> None:
        """Apply a movement; it is written at the end of the tick."""
        self.held += held
        self.expected += expected
        self.settled += settled
        self.held_moved += held
        self.expected_moved += expected
        self.settled_moved += settled
        self.has_settled = self.has_settled or settled > 0

    def take_moves(self) -> tuple[int, int, int]:
        """Return what has been moved since the last time, as (held, expected, settled)."""
        moves = (self.held_moved, self.expected_moved, self.settled_moved)
        self.held_moved = self.expected_moved = self.settled_moved = 0
        return moves


class AppliedLimit(NamedTuple):
    """A limit at the moment of a tick: the counter that a call is booked on, all that count, and the amount."""

    limit: LimitDefinition
    key: CounterKey
    counted: tuple[CounterKey, ...]
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """An admission: what is held, and how the call was made smaller if it was."""

    holds: tuple[Hold, ...]
    expected: Amounts
    shrunk: Shrunk | None = None
    clamped_by: str = ""


class _State(NamedTuple):
    """What a limit's counters come to."""

    held: int
    expected: int
    settled: int


def applied(limit: LimitDefinition, at: datetime, *, now: datetime) -> AppliedLimit:
    """Return the limit with the counters of a call that was reserved `at`, and the amount in force `now`."""
    start = window_start(limit.window, at, limit.calendar)
    keys = tuple(
        CounterKey(limit.tenant_id, limit.limit_id, int(one.timestamp())) for one in counted_starts(limit.window, start)
    )
    own = CounterKey(limit.tenant_id, limit.limit_id, int(start.timestamp()))
    return AppliedLimit(limit, own, keys, limit.amount_at(now))


def decide(
    terms: CallTerms,
    limits: Sequence[AppliedLimit],
    counters: Mapping[CounterKey, Counter],
    *,
    expected: Amounts,
    at: datetime,
) -> Verdict:
    """Hold the ceiling on every limit, or a smaller call's where the terms allow it, or raise and hold nothing.

    Raises:
        LimitExceeded: the first limit, the narrowest scope first, that the ceiling does not fit in.
    """
    refused = _first_without_room(terms.ceiling, limits, counters, expected=expected)
    if refused is None:
        return Verdict(holds=_hold(terms.ceiling, limits, counters, expected=expected), expected=expected)
    shrunk = _shrink(terms, limits, counters)
    if shrunk is not None:
        less = Amounts(*map(min, expected, shrunk.ceiling))
        if _first_without_room(shrunk.ceiling, limits, counters, expected=less) is None:
            holds = _hold(shrunk.ceiling, limits, counters, expected=less)
            return Verdict(holds=holds, expected=less, shrunk=shrunk, clamped_by=_name_of(refused.limit))
    raise _exceeded(refused, terms.ceiling, counters, expected=expected, at=at)


def _first_without_room(
    ceiling: Amounts,
    limits: Sequence[AppliedLimit],
    counters: Mapping[CounterKey, Counter],
    *,
    expected: Amounts,
) -> AppliedLimit | None:
    for one in limits:
        limit = one.limit
        amount = ceiling.held_for(limit.metric)
        if not amount or limit.mode is Mode.SOFT:
            continue
        state = _state(one, counters)
        if limit.mode is Mode.ELASTIC:
            probable = state.expected + state.settled + expected.held_for(limit.metric)
            if probable > one.amount or state.held + state.settled + amount > one.amount + limit.overshoot:
                return one
        elif state.held + state.settled + amount > one.amount:
            return one
    return None


def _state(one: AppliedLimit, counters: Mapping[CounterKey, Counter]) -> _State:
    if len(one.counted) == 1:
        counter = counters[one.key]
        return _State(counter.held, counter.expected, counter.settled)
    found = [counter for counter in map(counters.get, one.counted) if counter is not None]
    return _State(sum(c.held for c in found), sum(c.expected for c in found), sum(c.settled for c in found))


def _hold(
    ceiling: Amounts,
    limits: Iterable[AppliedLimit],
    counters: Mapping[CounterKey, Counter],
    *,
    expected: Amounts,
) -> tuple[Hold, ...]:
    holds = []
    for one in limits:
        metric = one.limit.metric
        amount = ceiling.held_for(metric)
        if amount:
            probable = expected.held_for(metric) if one.limit.mode is Mode.ELASTIC else 0
            counters[one.key].move(held=amount, expected=probable)
            holds.append(Hold(one.key, metric, amount, probable))
    return tuple(holds)


def _shrink(terms: CallTerms, limits: Iterable[AppliedLimit], counters: Mapping[CounterKey, Counter]) -> Shrunk | None:
    """Return the largest call that fits the worst-case room of the limits that its output decides."""
    if terms.shrink is None:
        return None
    rooms: dict[Metric, int] = {}
    for one in limits:
        limit = one.limit
        if limit.mode is not Mode.SOFT and limit.metric in {Metric.COST, Metric.OUTPUT_TOKENS}:
            state = _state(one, counters)
            bound = one.amount + (limit.overshoot if limit.mode is Mode.ELASTIC else 0)
            room = max(0, bound - state.held - state.settled)
            rooms[limit.metric] = min(rooms.get(limit.metric, room), room)
    return terms.shrink(rooms.get(Metric.COST), rooms.get(Metric.OUTPUT_TOKENS))


def top_up(
    holds: Sequence[Hold],
    more: Amounts,
    *,
    limits: Sequence[AppliedLimit],
    counters: Mapping[CounterKey, Counter],
    at: datetime,
) -> tuple[Hold, ...]:
    """Add `more` to holds of an attempt in flight, or raise and add nothing; `limits` are those on their counters.

    Raises:
        LimitExceeded: the first of the limits that `more` does not fit in.
    """
    # It is in flight already: more of it is not another call.
    counting = [one for one in limits if one.limit.metric is not Metric.CONCURRENCY]
    refused = _first_without_room(more, counting, counters, expected=more)
    if refused is not None:
        raise _exceeded(refused, more, counters, expected=more, at=at)
    grown = []
    for hold in holds:
        amount = more.of(hold.metric)
        expected = amount if hold.expected else 0
        counters[hold.key].move(held=amount, expected=expected)
        grown.append(Hold(hold.key, hold.metric, hold.amount + amount, hold.expected + expected))
    return tuple(grown)


def give_back(holds: Iterable[Hold], counters: Mapping[CounterKey, Counter]) -> None:
    """Take holds off again: nothing was used."""
    for hold in holds:
        counters[hold.key].move(held=-hold.amount, expected=-hold.expected)


def settle(holds: Iterable[Hold], actual: Amounts, counters: Mapping[CounterKey, Counter]) -> None:
    """Turn holds into what was really used, be it less or more."""
    for hold in holds:
        counters[hold.key].move(held=-hold.amount, expected=-hold.expected, settled=actual.of(hold.metric))


def correct(holds: Iterable[Hold], difference: Amounts, counters: Mapping[CounterKey, Counter]) -> None:
    """Correct what was settled by a difference; the holds themselves are gone already."""
    for hold in holds:
        counters[hold.key].move(settled=difference.of(hold.metric))


def _exceeded(
    one: AppliedLimit,
    ceiling: Amounts,
    counters: Mapping[CounterKey, Counter],
    *,
    expected: Amounts,
    at: datetime,
) -> LimitExceeded:
    limit, state = one.limit, _state(one, counters)
    requested, held = ceiling.held_for(limit.metric), state.held
    if limit.mode is Mode.ELASTIC and state.expected + state.settled + expected.held_for(limit.metric) > one.amount:
        requested, held = expected.held_for(limit.metric), state.expected
    resets_at = _frees_at(one, counters, requested=requested)
    return LimitExceeded(
        limit=_name_of(limit),
        scope=limit.scope,
        selector=limit.selector,
        metric=limit.metric,
        window=limit.window,
        amount=one.amount,
        held=held,
        settled=state.settled,
        requested=requested,
        resets_at=resets_at,
        retry_after_seconds=_retry_after_seconds(one, state, requested=requested, resets_at=resets_at, at=at),
    )


def _frees_at(one: AppliedLimit, counters: Mapping[CounterKey, Counter], *, requested: int) -> datetime | None:
    """Return when the window ends; of a rolling one, when enough of it has passed for what is asked."""
    limit = one.limit
    if limit.window is not Window.ROLLING_10_MINUTES:
        return window_end(limit.window, _moment(one.key), limit.calendar)
    left = _state(one, counters).settled + requested - one.amount
    ends = one.key
    for key in one.counted:
        if left <= 0:
            break
        counter = counters.get(key)
        if counter is not None and counter.settled:
            left, ends = left - counter.settled, key
    return window_end(limit.window, _moment(ends), limit.calendar)


def _retry_after_seconds(
    one: AppliedLimit, state: _State, *, requested: int, resets_at: datetime | None, at: datetime
) -> float | None:
    # What never fits is not worth a retry, however long the caller waits.
    if requested > one.amount:
        return None
    until_reset = None if resets_at is None else max(0.0, (resets_at - at).total_seconds())
    if state.settled + requested > one.amount:
        return until_reset
    return _RETRY_WHEN_HELD_SECONDS if until_reset is None else min(until_reset, _RETRY_WHEN_HELD_SECONDS)


def _moment(key: CounterKey) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=key.window_start)


def _name_of(limit: LimitDefinition) -> str:
    return str(LimitName(limit.tenant_id, limit.name))


def granted(terms: CallTerms, shrunk: Shrunk | None) -> CallTerms:
    """Return the terms as they were granted."""
    return terms if shrunk is None else replace(terms, ceiling=shrunk.ceiling)
