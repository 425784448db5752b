"""Breakers: a target that keeps failing is left alone for a while, and tried with a few calls before it is trusted.

One breaker per (account, region, model) and process. Nothing here waits or takes locks: a process's event loop is the
only caller. What an operator orders stands above what a breaker has seen.
"""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import NamedTuple

from tollhouse_server.traffic.outcome_window import OutcomeWindow
from tollhouse_server.traffic.verdicts import Verdict

_SILENT_SHARE = 0.001
"""Of its share, what a target gets that does not answer; all of it, where there is no other."""
_SHARE_AFTER_FAILURE = 0.5
_MOST_HALVINGS = 10
_LEAST_SILENCE_SECONDS = 1.0
_SILENCE_OF_CALLS = 3.0
_SILENCE_OF_ANSWERS = 20.0
"""A target with calls under way is silent when none has ended well for three times as long as they take, or for so
long that twenty should have."""

_SAME_MOMENT_SECONDS = 0.25
"""By how much a caller may measure from before `begin`. No call begins so shortly before a breaker turns half-open."""


class BreakerKey(NamedTuple):
    """What one breaker watches; in an order, an empty region or model stands for all of them."""

    account_id: str
    region: str
    model: str


class State(IntEnum):
    """What a breaker does with calls; the numbers are those of the metric."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Forced(StrEnum):
    """What an operator can order."""

    OPEN = "OPEN"
    CLOSED = "CLOSED"


class Cause(StrEnum):
    """Why a breaker changed."""

    FIRST_CALL = "first_call"
    FAILURE_RATIO = "failure_ratio"
    FAILURES_IN_A_ROW = "failures_in_a_row"
    PROBE_FAILED = "probe_failed"
    DELAY_OVER = "delay_over"
    PROBES_SUCCEEDED = "probes_succeeded"
    ORDER = "order"
    IDLE = "idle"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """When breakers open, for how long, and what closes them."""

    bucket_seconds: float = 5.0
    buckets: int = 6
    minimum_calls: int = 20
    """Calls in the window below which the ratio says nothing; as many failures in a row open whatever went before."""
    failure_ratio: float = 0.5
    failures_in_a_row: int = 5
    """Enough to open while there are fewer calls in the window than `minimum_calls`, or no call has succeeded for..."""
    failing_seconds: float = 1.0
    """... so long. In much traffic a few failures may be those of one moment."""
    delay_seconds: float = 5.0
    delay_growth: float = 2.0
    longest_delay_seconds: float = 120.0
    jitter: float = 0.25
    """A delay is shortened by up to this part of it, so that the probes of many processes do not come together."""
    healthy_seconds: float = 300.0
    """After so long closed, the next delay is the first one again."""
    probes: int = 2
    """Calls that a half-open breaker lets out at a time."""
    probes_to_close: int = 2
    probe_seconds: float = 30.0
    """After so long without a word from a probe its place is free."""
    idle_seconds: float = 3600.0
    """A breaker without a call for so long is forgotten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerChange:
    """What happened to a breaker; `before` is None for one just made, `after` for one forgotten.

    `calls` and `failures` are those of the window that led to it.
    """

    key: BreakerKey
    before: State | None
    after: State | None
    forced: Forced | None
    cause: Cause
    delay_seconds: float = 0.0
    calls: int = 0
    failures: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSnapshot:
    """A breaker as this process sees it: the outcomes are those of the rolling window."""

    key: BreakerKey
    state: State
    forced: Forced | None
    calls: int
    failures: int
    mean_seconds: float
    changed_seconds_ago: float
    seconds_until_probe: float | None


class _Breaker:
    """What is remembered of one key."""

    __slots__ = (
        "answered_at",
        "changed_at",
        "delay_seconds",
        "in_flight",
        "probes",
        "retry_at",
        "run",
        "state",
        "successes",
        "touched_at",
        "waited_since",
        "window",
    )

    def __init__(self, window: OutcomeWindow, now: float) -> None:
        self.state = State.CLOSED
        self.window = window
        self.run = 0
        self.successes = 0
        self.probes: list[float] = []
        self.delay_seconds = 0.0
        self.retry_at = 0.0
        self.changed_at = now
        self.touched_at = now
        self.in_flight = 0
        self.answered_at = now
        self.waited_since = now
        """Since when calls are under way and none has ended well."""


class Breakers:
    """The breakers of one process. Every method is a few microseconds and takes no lock."""

    def __init__(
        self,
        *,
        policy: BreakerPolicy | None = None,
        on_change: Callable[[BreakerChange], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Start with every breaker closed; `on_change` is told of each change, `chance` returns 0 to 1."""
        self._policy = policy or BreakerPolicy()
        self._on_change = on_change or _tell_nobody
        self._clock = clock
        self._chance = chance
        self._breakers: dict[BreakerKey, _Breaker] = {}
        self._orders: Mapping[BreakerKey, Forced] = {}

    def admits(self, key: BreakerKey) -> bool:
        """Say whether a call may go there now; takes nothing."""
        return self.seconds_until_probe(key) == 0.0

    def seconds_until_probe(self, key: BreakerKey) -> float | None:
        """Return in how many seconds a call may go there: 0 for now, None for as long as an order holds it open."""
        if self._orders and (forced := self._forced(key)) is not None:
            return 0.0 if forced is Forced.CLOSED else None
        breaker = self._breakers.get(key)
        if breaker is None or breaker.state is State.CLOSED:
            return 0.0
        now = self._clock()
        if breaker.state is State.OPEN:
            return max(0.0, breaker.retry_at - now)
        self._expire_probes(breaker, now)
        if len(breaker.probes) < self._policy.probes:
            return 0.0
        return breaker.probes[0] + self._policy.probe_seconds - now

    def standing(self, key: BreakerKey) -> float:
        """Return which part of its share of the calls a target should get while others can take them, more than 0.

        A breaker opens on evidence, which has its price in failed attempts. This costs nothing, so a hint is enough: a
        failure that no success has followed, or silence. Where there is no other target it changes nothing.
        """
        breaker = self._breakers.get(key)
        if breaker is None or (self._orders and self._forced(key) is not None):
            return 1.0
        if breaker.in_flight and self._is_silent(breaker, self._clock()):
            return _SILENT_SHARE
        return _SHARE_AFTER_FAILURE ** min(breaker.run, _MOST_HALVINGS) if breaker.run else 1.0

    def begin(self, key: BreakerKey) -> None:
        """Note that a call which was admitted goes out; takes a probe's place unless the breaker is closed."""
        now = self._clock()
        breaker = self._breakers.get(key) or self._make(key, now)
        breaker.touched_at = now
        if not breaker.in_flight:
            breaker.waited_since = now
        breaker.in_flight += 1
        if breaker.state is State.CLOSED or self._forced(key) is not None:
            return
        if breaker.state is State.OPEN:
            if now < breaker.retry_at:
                return
            breaker.successes = 0
            breaker.probes.clear()
            self._change(key, breaker, State.HALF_OPEN, Cause.DELAY_OVER)
        breaker.probes.append(now)

    def record(self, key: BreakerKey, verdict: Verdict, seconds: float) -> None:
        """Note how a call ended, `seconds` after its `begin`.

        A call that began before the breaker last changed says nothing about the time since, and counts for nothing.
        """
        now = self._clock()
        breaker = self._breakers.get(key)
        if breaker is None:
            return
        breaker.in_flight = max(0, breaker.in_flight - 1)
        if verdict is Verdict.SUCCESS:
            breaker.waited_since = now
        if now - seconds < breaker.changed_at - _SAME_MOMENT_SECONDS:
            return
        breaker.touched_at = now
        if breaker.state is State.HALF_OPEN and breaker.probes and seconds <= self._policy.probe_seconds:
            breaker.probes.pop(0)
        if verdict is Verdict.IGNORED:
            return
        failed = verdict is Verdict.FAILURE
        breaker.window.add(now, failed=failed, seconds=seconds)
        breaker.run = breaker.run + 1 if failed else 0
        if not failed:
            breaker.answered_at = now
        if self._forced(key) is None:
            self._judge(key, breaker, failed=failed)

    def order(self, orders: Mapping[BreakerKey, Forced]) -> None:
        """Put these orders in force instead of all earlier ones; of several that fit a key the most exact counts."""
        before = {key: self._forced(key) for key in self._breakers}
        self._orders = dict(orders)
        for key, forced in before.items():
            if self._forced(key) is not forced:
                breaker = self._breakers[key]
                self._tell(key, effective(breaker.state, forced), breaker, Cause.ORDER)

    def snapshot(self) -> list[BreakerSnapshot]:
        """Return every breaker that has had a call within `idle_seconds`, and forget the others."""
        now = self._clock()
        for key in [key for key, one in self._breakers.items() if now - one.touched_at > self._policy.idle_seconds]:
            self._forget(key)
        return [self._seen(key, breaker, now) for key, breaker in self._breakers.items()]

    def _seen(self, key: BreakerKey, breaker: _Breaker, now: float) -> BreakerSnapshot:
        outcomes = breaker.window.sums(now)
        forced = self._forced(key)
        return BreakerSnapshot(
            key=key,
            state=effective(breaker.state, forced),
            forced=forced,
            calls=outcomes.calls,
            failures=outcomes.failures,
            mean_seconds=outcomes.seconds / outcomes.calls if outcomes.calls else 0.0,
            changed_seconds_ago=now - breaker.changed_at,
            seconds_until_probe=self.seconds_until_probe(key),
        )

    def _judge(self, key: BreakerKey, breaker: _Breaker, *, failed: bool) -> None:
        if breaker.state is State.HALF_OPEN:
            if failed:
                self._open(key, breaker, Cause.PROBE_FAILED)
                return
            breaker.successes += 1
            if breaker.successes >= self._policy.probes_to_close:
                self._change(key, breaker, State.CLOSED, Cause.PROBES_SUCCEEDED)
        elif breaker.state is State.CLOSED and failed and (cause := self._cause_to_open(breaker)):
            self._open(key, breaker, cause)

    def _cause_to_open(self, breaker: _Breaker) -> Cause | None:
        policy, window = self._policy, breaker.window
        thin = window.calls < policy.minimum_calls
        lasts = self._clock() - breaker.answered_at >= policy.failing_seconds
        if breaker.run >= (policy.failures_in_a_row if thin or lasts else policy.minimum_calls):
            return Cause.FAILURES_IN_A_ROW
        if not thin and window.failures >= window.calls * policy.failure_ratio:
            return Cause.FAILURE_RATIO
        return None

    def _is_silent(self, breaker: _Breaker, now: float) -> bool:
        """Tell whether none of the calls under way has ended well for too long."""
        silence_seconds = now - breaker.waited_since
        if silence_seconds < _LEAST_SILENCE_SECONDS:
            return False
        seen, policy = breaker.window.sums(now), self._policy
        answers = seen.calls - seen.failures
        if not answers:
            return silence_seconds >= policy.delay_seconds
        usual_seconds = seen.seconds / seen.calls
        apart_seconds = policy.bucket_seconds * policy.buckets / answers
        return silence_seconds >= min(usual_seconds * _SILENCE_OF_CALLS, apart_seconds * _SILENCE_OF_ANSWERS)

    def _open(self, key: BreakerKey, breaker: _Breaker, cause: Cause) -> None:
        policy, now = self._policy, self._clock()
        recovered = breaker.state is State.CLOSED and now - breaker.changed_at >= policy.healthy_seconds
        if recovered or not breaker.delay_seconds:
            breaker.delay_seconds = policy.delay_seconds
        else:
            breaker.delay_seconds = min(policy.longest_delay_seconds, breaker.delay_seconds * policy.delay_growth)
        breaker.retry_at = now + breaker.delay_seconds * (1.0 - policy.jitter * self._chance())
        self._change(key, breaker, State.OPEN, cause)

    def _change(self, key: BreakerKey, breaker: _Breaker, state: State, cause: Cause) -> None:
        now = self._clock()
        before, breaker.state, breaker.changed_at, breaker.waited_since = breaker.state, state, now, now
        self._tell(key, before, breaker, cause)
        # What made it open must not make it open again once it is closed.
        breaker.run = 0
        breaker.window.clear()

    def _tell(self, key: BreakerKey, before: State | None, breaker: _Breaker, cause: Cause) -> None:
        forced = self._forced(key)
        after = effective(breaker.state, forced)
        change = BreakerChange(
            key=key,
            before=before,
            after=after,
            forced=forced,
            cause=cause,
            delay_seconds=breaker.retry_at - breaker.changed_at if after is State.OPEN and forced is None else 0.0,
            calls=breaker.window.calls,
            failures=breaker.window.failures,
        )
        self._on_change(change)

    def _make(self, key: BreakerKey, now: float) -> _Breaker:
        policy = self._policy
        window = OutcomeWindow(bucket_seconds=policy.bucket_seconds, buckets=policy.buckets)
        breaker = self._breakers[key] = _Breaker(window, now)
        self._tell(key, None, breaker, Cause.FIRST_CALL)
        return breaker

    def _forget(self, key: BreakerKey) -> None:
        breaker = self._breakers.pop(key)
        before = effective(breaker.state, self._forced(key))
        self._on_change(BreakerChange(key=key, before=before, after=None, forced=None, cause=Cause.IDLE))

    def _forced(self, key: BreakerKey) -> Forced | None:
        return order_for(key, self._orders) if self._orders else None

    def _expire_probes(self, breaker: _Breaker, now: float) -> None:
        while breaker.probes and now - breaker.probes[0] >= self._policy.probe_seconds:
            breaker.probes.pop(0)


def _tell_nobody(_change: BreakerChange) -> None:
    pass


def order_over(key: BreakerKey, orders: Mapping[BreakerKey, Forced]) -> BreakerKey | None:
    """Return what the most exact order that fits `key` is for; a model is more exact than a region."""
    account_id, region, model = key
    of_model, of_region = BreakerKey(account_id, "", model), BreakerKey(account_id, region, "")
    for pattern in (key, of_model, of_region, BreakerKey(account_id, "", "")):
        if pattern in orders:
            return pattern
    return None


def order_for(key: BreakerKey, orders: Mapping[BreakerKey, Forced]) -> Forced | None:
    """Return the most exact order that fits `key`."""
    pattern = order_over(key, orders)
    return None if pattern is None else orders[pattern]


def effective(state: State, forced: Forced | None) -> State:
    """Return what a breaker does with calls, its order considered."""
    if forced is None:
        return state
    return State.OPEN if forced is Forced.OPEN else State.CLOSED
