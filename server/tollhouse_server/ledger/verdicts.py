"""The verdict on one reservation, given the counters of its limits: pure arithmetic, no waiting, no SQL."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import NamedTuple, TypeAlias

from tollhouse_server.errors import LimitExceeded
from tollhouse_server.ledger.rows import hold_prefix
from tollhouse_server.ledger.terms import (
    EVERYTHING,
    WHOLE,
    Amounts,
    CallTerms,
    CounterKey,
    Hold,
    LimitDefinition,
    Metric,
    Mode,
    Shares,
    Shrunk,
    Window,
)
from tollhouse_server.ledger.windows import counted_starts, moment, window_end, window_start
from tollhouse_server.names import LimitName

_RETRY_WHEN_HELD_SECONDS = 2.0
"""A call that only calls in flight keep out is worth another try when they have ended."""

UNBOUNDED = 2**63 - 1
"""More than PostgreSQL's bigint can count."""

_Shrink: TypeAlias = Callable[[int | None, int | None], Shrunk | None]


@dataclass(slots=True, eq=False)
class Counter:
    """A locked counter: as it is with what this tick has done so far, and as it was read."""

    held: int = 0
    expected: int = 0
    settled: int = 0
    alert_at: int = 0
    held_before: int = 0
    expected_before: int = 0
    settled_before: int = 0

    @classmethod
    def found(cls, held: int, expected: int, settled: int, alert_at: int) -> "Counter":
        """Return a counter as it was read."""
        return cls(held, expected, settled, alert_at, held, expected, settled)

    @property
    def is_moved(self) -> bool:
        """Tell whether this tick has moved something."""
        return (
            self.held != self.held_before
            or self.settled != self.settled_before
            or self.expected != self.expected_before
        )

    @property
    def reaches_alert(self) -> bool:
        """Tell whether this tick has settled so much that an alert may be due."""
        return self.settled > self.settled_before and self.settled >= self.alert_at

    def moves(self) -> tuple[int, int, int]:
        """Return what this tick has moved, as (held, expected, settled)."""
        return (self.held - self.held_before, self.expected - self.expected_before, self.settled - self.settled_before)


class AppliedLimit(NamedTuple):
    """A limit at the moment of a tick.

    `key` is the counter that a call is booked on, `counted` all that count. The calls in flight at their worst must fit
    in `bound`, what they will probably use in `amount`; the two differ for ELASTIC. `is_plain`: STRICT, and one counter
    counts. `position` is the metric's, `prefix` the JSON of a hold up to its amounts.
    """

    limit: LimitDefinition
    key: CounterKey
    counted: tuple[CounterKey, ...]
    amount: int
    bound: int
    metric: Metric
    position: int
    is_plain: bool
    is_elastic: bool
    prefix: str

    @property
    def bounds(self) -> tuple[int, int]:
        """Return the most that may be held and settled at the worst, and expected and settled."""
        if self.limit.mode is Mode.SOFT:
            return (UNBOUNDED, UNBOUNDED)
        return (self.bound, self.amount if self.is_elastic else UNBOUNDED)


class Verdict(NamedTuple):
    """An admission: what is held, and how the call was made smaller if it was."""

    holds: tuple[Hold, ...]
    holds_text: str
    shrunk: Shrunk | None = None
    clamped_by: str = ""


class _Held(NamedTuple):
    """What was held, as it is and as JSON."""

    holds: tuple[Hold, ...]
    text: str


class _Room(NamedTuple):
    """What a limit still has room for at its worst."""

    left: int
    limit: LimitDefinition


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
    key = CounterKey(limit.tenant_id, limit.limit_id, int(start.timestamp()))
    amount = limit.amount_at(now)
    return AppliedLimit(
        limit=limit,
        key=key,
        counted=keys,
        amount=amount,
        bound=amount + limit.overshoot if limit.mode is Mode.ELASTIC else amount,
        metric=limit.metric,
        position=limit.metric.position,
        is_plain=limit.mode is Mode.STRICT and len(keys) == 1,
        is_elastic=limit.mode is Mode.ELASTIC,
        prefix=hold_prefix(key, limit.metric),
    )


def decide(
    terms: CallTerms,
    limits: Sequence[AppliedLimit],
    counters: Mapping[CounterKey, Counter],
    *,
    shares: Shares,
    at: datetime,
) -> Verdict:
    """Hold the ceiling on every limit, or a smaller call's where the terms allow it, or raise and hold nothing.

    Raises:
        LimitExceeded: the first limit, the narrowest scope first, that the ceiling does not fit in.
    """
    held = _hold(terms.ceiling, limits, counters, shares=shares)
    if not isinstance(held, AppliedLimit):
        return Verdict(holds=held.holds, holds_text=held.text)
    rooms = _rooms(limits, counters) if terms.shrink is not None else {}
    shrunk = _shrunk(terms.shrink, rooms)
    if shrunk is not None:
        smaller = _hold(shrunk.ceiling, limits, counters, shares=shares)
        if not isinstance(smaller, AppliedLimit):
            clamped_by = _clamped_by(terms.shrink, rooms, shrunk)
            return Verdict(holds=smaller.holds, holds_text=smaller.text, shrunk=shrunk, clamped_by=clamped_by)
    raise _exceeded(held, terms.ceiling, counters, shares=shares, at=at, shrink=terms.shrink)


def _hold(
    ceiling: Amounts, limits: Iterable[AppliedLimit], counters: Mapping[CounterKey, Counter], *, shares: Shares
) -> _Held | AppliedLimit:
    """Hold a ceiling on every limit; or hold nothing, and return the first limit that it does not fit in."""
    holds: list[Hold] = []
    texts = []
    for one in limits:
        position, counter = one.position, counters[one.key]
        amount = ceiling[position] if position >= 0 else 1
        # Nearly all limits are plain: the arithmetic is written out because it runs for every limit of every call.
        if (
            counter.held + counter.settled + amount > one.amount
            if one.is_plain
            else not _has_room(one, counters, amount, shares)
        ):
            give_back(holds, counters)
            return one
        probable = _probable(one, amount, shares) if one.is_elastic else 0
        counter.held += amount
        counter.expected += probable
        holds.append(Hold(one.key, one.metric, amount, probable))
        texts.append(f"{one.prefix}{amount},{probable}]")
    return _Held(tuple(holds), f"[{','.join(texts)}]")


def _has_room(one: AppliedLimit, counters: Mapping[CounterKey, Counter], amount: int, shares: Shares) -> bool:
    if one.limit.mode is Mode.SOFT:
        return True
    state = _state(one, counters)
    if one.is_elastic and state.expected + state.settled + _probable(one, amount, shares) > one.amount:
        return False
    return state.held + state.settled + amount <= one.bound


def _probable(one: AppliedLimit, amount: int, shares: Shares) -> int:
    """Return what a call of this worst case will probably use of an elastic limit."""
    return -(-amount * shares[one.position] // WHOLE)


def _state(one: AppliedLimit, counters: Mapping[CounterKey, Counter]) -> _State:
    found = [counter for counter in map(counters.get, one.counted) if counter is not None]
    return _State(sum(c.held for c in found), sum(c.expected for c in found), sum(c.settled for c in found))


def _rooms(limits: Iterable[AppliedLimit], counters: Mapping[CounterKey, Counter]) -> dict[Metric, _Room]:
    """Return the smallest worst-case room for each metric that a call can be made smaller in."""
    rooms: dict[Metric, _Room] = {}
    for one in limits:
        limit = one.limit
        if limit.mode is not Mode.SOFT and limit.metric in {Metric.COST, Metric.OUTPUT_TOKENS}:
            state = _state(one, counters)
            room = max(0, one.bound - state.held - state.settled)
            if limit.metric not in rooms or room < rooms[limit.metric].left:
                rooms[limit.metric] = _Room(room, limit)
    return rooms


def _shrunk(shrink: _Shrink | None, rooms: Mapping[Metric, _Room]) -> Shrunk | None:
    """Return the largest call that fits in all these rooms."""
    if shrink is None:
        return None
    cost, tokens = rooms.get(Metric.COST), rooms.get(Metric.OUTPUT_TOKENS)
    return shrink(cost and cost.left, tokens and tokens.left)


def _clamped_by(shrink: _Shrink | None, rooms: Mapping[Metric, _Room], shrunk: Shrunk) -> str:
    """Return the limit whose room alone makes the call as small as all rooms together do."""
    deciding = (room for metric, room in rooms.items() if _shrunk(shrink, {metric: room}) == shrunk)
    return next((_name_of(room.limit) for room in deciding), "")


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
    # It is in flight already: more of it is not another call, and what it does not add to cannot be in its way.
    counting = [one for one in limits if more.of(one.metric)]
    refused = next((one for one in counting if not _has_room(one, counters, more.of(one.metric), EVERYTHING)), None)
    if refused is not None:
        raise _exceeded(refused, more, counters, shares=EVERYTHING, at=at)
    grown = []
    for hold in holds:
        amount = more.of(hold.metric)
        expected = amount if hold.expected else 0
        counter = counters[hold.key]
        counter.held += amount
        counter.expected += expected
        grown.append(Hold(hold.key, hold.metric, hold.amount + amount, hold.expected + expected))
    return tuple(grown)


def give_back(holds: Iterable[Hold], counters: Mapping[CounterKey, Counter]) -> None:
    """Take holds off again: nothing was used."""
    for key, _, amount, expected in holds:
        counter = counters[key]
        counter.held -= amount
        counter.expected -= expected


def settle(holds: Iterable[Hold], actual: Amounts, counters: Mapping[CounterKey, Counter]) -> None:
    """Turn holds into what was really used, be it less or more."""
    give_back(holds, counters)
    correct(holds, actual, counters)


def correct(holds: Iterable[Hold], difference: Amounts, counters: Mapping[CounterKey, Counter]) -> None:
    """Correct what was settled by a difference; the holds themselves are gone already."""
    for key, metric, _, _ in holds:
        counters[key].settled += difference.of(metric)


def _exceeded(
    one: AppliedLimit,
    ceiling: Amounts,
    counters: Mapping[CounterKey, Counter],
    *,
    shares: Shares,
    at: datetime,
    shrink: _Shrink | None = None,
) -> LimitExceeded:
    limit, state = one.limit, _state(one, counters)
    requested, held = _measured(one, ceiling.held_for(limit.metric), state, shares)
    fits = partial(_fits_beside, one, ceiling, shares, shrink)
    resets_at = _frees_at(one, counters, state.settled, fits)
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
        retry_after_seconds=_retry_after_seconds(
            state.settled, fits, None if resets_at is None else max(0.0, (resets_at - at).total_seconds())
        ),
    )


def _measured(one: AppliedLimit, worst: int, state: _State, shares: Shares) -> tuple[int, int]:
    """Return what was too much, as (requested, held): the worst case, or what is expected where the worst would fit."""
    if one.is_elastic and state.held + state.settled + worst <= one.bound:
        return _probable(one, worst, shares), state.expected
    return worst, state.held


def _fits_beside(one: AppliedLimit, ceiling: Amounts, shares: Shares, shrink: _Shrink | None, settled: int) -> bool:
    """Tell whether the call, whole or made smaller, fits beside so much that is settled, with nothing in flight."""
    if _is_within(one, ceiling, shares, settled):
        return True
    if one.metric not in {Metric.COST, Metric.OUTPUT_TOKENS}:
        return False
    shrunk = _shrunk(shrink, {one.metric: _Room(max(0, one.bound - settled), one.limit)})
    return shrunk is not None and _is_within(one, shrunk.ceiling, shares, settled)


def _is_within(one: AppliedLimit, ceiling: Amounts, shares: Shares, settled: int) -> bool:
    worst = ceiling.held_for(one.metric)
    is_probable = not one.is_elastic or settled + _probable(one, worst, shares) <= one.amount
    return is_probable and settled + worst <= one.bound


def _frees_at(
    one: AppliedLimit, counters: Mapping[CounterKey, Counter], settled: int, fits: Callable[[int], bool]
) -> datetime | None:
    """Return when the window ends; of a rolling one, when enough of it has passed for what is asked."""
    limit = one.limit
    if limit.window is not Window.ROLLING_10_MINUTES:
        return window_end(limit.window, moment(one.key.window_start), limit.calendar)
    ends = one.key
    for key in one.counted:
        if fits(settled):
            break
        counter = counters.get(key)
        if counter is not None and counter.settled:
            settled, ends = settled - counter.settled, key
    return window_end(limit.window, moment(ends.window_start), limit.calendar)


def _retry_after_seconds(settled: int, fits: Callable[[int], bool], seconds_to_reset: float | None) -> float | None:
    # What never fits is not worth a retry, however long the caller waits.
    if not fits(0):
        return None
    if not fits(settled):
        return seconds_to_reset
    return _RETRY_WHEN_HELD_SECONDS if seconds_to_reset is None else min(seconds_to_reset, _RETRY_WHEN_HELD_SECONDS)


def _name_of(limit: LimitDefinition) -> str:
    return str(LimitName(limit.tenant_id, limit.name))


def granted(terms: CallTerms, shrunk: Shrunk | None) -> CallTerms:
    """Return the terms as they were granted."""
    return terms if shrunk is None else terms._replace(ceiling=shrunk.ceiling)
