"""Replays calls that were made against limits that are not in force: who would have been refused; pure.

Calls come in the order in which they were sent. Each holds its ceiling from then on until it was booked, and then what
it really used, as the ledger does it, with the ledger's own verdicts. A ceiling is known in money; of tokens and images
what was used stands for it. A call that is refused uses nothing, and its caller does not try again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from typing import Final, NamedTuple

from tollhouse_server.errors import LimitExceeded
from tollhouse_server.ledger.terms import (
    EVERYTHING,
    WHOLE,
    Amounts,
    CallTerms,
    CounterKey,
    Hold,
    LimitDefinition,
    Mode,
    Scope,
    Shares,
    Window,
)
from tollhouse_server.ledger.verdicts import AppliedLimit, Counter, applied, decide, settle
from tollhouse_server.ledger.windows import window_end, window_start
from tollhouse_server.names import LimitName

_FORGET_EVERY: Final = 10_000
"""Calls between two looks for windows that are over."""

_MINUTE: Final = timedelta(minutes=1)
_NEVER: Final = datetime.max.replace(tzinfo=UTC)


class PastCall(NamedTuple):
    """A call as its record has it; `terms.ceiling` is what it held, `used` what it came to.

    A correction of a call in suspense is no call of its own: it stays as it was booked.
    """

    terms: CallTerms
    used: Amounts
    dispatched_at: datetime
    settled_at: datetime
    is_correction: bool = False


@dataclass(slots=True)
class LimitOutcome:
    """What one limit would have done, in the unit of its metric."""

    limit: LimitDefinition
    refused_calls: int = 0
    refused_nanos: int = 0
    first_refusal_at: datetime | None = None
    peak: int = 0


class _InFlight(NamedTuple):
    settled_at: datetime
    number: int
    holds: tuple[Hold, ...]
    used: Amounts


class _Current(NamedTuple):
    """A limit in the window that the last call was in."""

    start: datetime
    end: datetime
    applied: AppliedLimit


@dataclass(slots=True)
class Replay:
    """A replay under way: its memory is that of calls in flight and of windows that are open."""

    limits: Sequence[LimitDefinition]
    records: int = 0
    calls: int = 0
    booked_nanos: int = 0
    refused_calls: int = 0
    refused_nanos: int = 0
    outcomes: dict[int, LimitOutcome] = field(init=False)
    _has_elastic: bool = field(init=False)
    _by_scope: dict[str, list[LimitDefinition]] = field(init=False)
    _of_kind: dict[tuple[Scope, str, str], tuple[LimitDefinition, ...]] = field(default_factory=dict)
    _current: dict[int, _Current] = field(default_factory=dict)
    _windows: dict[tuple[int, datetime], AppliedLimit] = field(default_factory=dict)
    _counters: dict[CounterKey, Counter] = field(default_factory=dict)
    _in_flight: list[_InFlight] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Sort the limits by what they are on."""
        self.outcomes = {limit.limit_id: LimitOutcome(limit) for limit in self.limits}
        self._has_elastic = any(limit.mode is Mode.ELASTIC for limit in self.limits)
        self._by_scope = {}
        for limit in self.limits:
            self._by_scope.setdefault(limit.scope, []).append(limit)

    def play(self, calls: Iterable[PastCall]) -> None:
        """Go on with calls that were sent after all that were played."""
        for call in calls:
            self.records += 1
            self.booked_nanos += call.used.cost_nanos
            if call.is_correction:
                continue
            self.calls += 1
            self._settle_until(call.dispatched_at)
            if self.calls % _FORGET_EVERY == 0:
                self._forget(call.dispatched_at)
            self._admit(call)

    def _admit(self, call: PastCall) -> None:
        at = call.dispatched_at
        limits = [self._applied(limit, at) for limit in self._applicable(call.terms)]
        if not limits:
            return
        for one in limits:
            self._counters.setdefault(one.key, Counter())
        try:
            verdict = decide(call.terms, limits, self._counters, shares=self._shares(call), at=at)
        except LimitExceeded as refusal:
            self._refuse(call, refusal)
            return
        heappush(self._in_flight, _InFlight(call.settled_at, self.calls, verdict.holds, call.used))
        for one in limits:
            found = [counter for counter in map(self._counters.get, one.counted) if counter is not None]
            outcome = self.outcomes[one.limit.limit_id]
            outcome.peak = max(outcome.peak, sum(counter.held + counter.settled for counter in found))

    def _shares(self, call: PastCall) -> Shares:
        """Return what an elastic limit expects of a call: what it came to, as if that had been learned."""
        if not self._has_elastic:
            return EVERYTHING
        pairs = zip(call.used, call.terms.ceiling, strict=True)
        return Shares(*(min(WHOLE, -(-used * WHOLE // most)) if most else WHOLE for used, most in pairs))

    def _refuse(self, call: PastCall, refusal: LimitExceeded) -> None:
        self.refused_calls += 1
        self.refused_nanos += call.used.cost_nanos
        for outcome in self.outcomes.values():
            limit = outcome.limit
            if str(LimitName(limit.tenant_id, limit.name)) == refusal.limit:
                outcome.refused_calls += 1
                outcome.refused_nanos += call.used.cost_nanos
                outcome.first_refusal_at = outcome.first_refusal_at or call.dispatched_at

    def _settle_until(self, moment: datetime) -> None:
        while self._in_flight and self._in_flight[0].settled_at <= moment:
            ended = heappop(self._in_flight)
            settle(ended.holds, ended.used, self._counters)

    def _applicable(self, terms: CallTerms) -> tuple[LimitDefinition, ...]:
        kind = (terms.scope, terms.tier, terms.model)
        found = self._of_kind.get(kind)
        if found is None:
            selectors = ("", f"tiers/{terms.tier}", f"models/{terms.model}")
            scopes = terms.scope.limit_scopes()
            found = tuple(
                limit for name in scopes for limit in self._by_scope.get(name, ()) if limit.selector in selectors
            )
            self._of_kind[kind] = found
        return found

    def _applied(self, limit: LimitDefinition, at: datetime) -> AppliedLimit:
        # Most calls are in the window of the call before: where that is in the calendar is worked out once.
        current = self._current.get(limit.limit_id)
        if current is None or not current.start <= at < current.end:
            start = window_start(limit.window, at, limit.calendar)
            end = window_end(limit.window, start, limit.calendar) or _NEVER
            if limit.window is Window.ROLLING_10_MINUTES:
                # It counts for ten minutes more, but other calls are booked on other minutes.
                end = start + _MINUTE
            key = (limit.limit_id, start)
            found = self._windows.get(key) or applied(limit, at, now=at)
            self._windows[key] = found
            current = self._current[limit.limit_id] = _Current(start, end, found)
        return current.applied

    def _forget(self, now: datetime) -> None:
        """Forget windows that count for nothing any more."""
        by_id = {limit.limit_id: limit for limit in self.limits}
        for (limit_id, start), one in list(self._windows.items()):
            limit = by_id[limit_id]
            end = window_end(limit.window, start, limit.calendar)
            counter = self._counters.get(one.key)
            # A minute more: a rolling window looks at the minute before its own, too.
            if end is not None and end + _MINUTE < now and (counter is None or not counter.held):
                del self._windows[limit_id, start]
                self._counters.pop(one.key, None)
