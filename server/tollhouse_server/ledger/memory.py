"""What a process remembers from tick to tick. All of it can be forgotten at any time; none of it decides alone."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from tollhouse_server.ledger import definition_store, verdicts
from tollhouse_server.ledger.definitions import LimitDefinitions
from tollhouse_server.ledger.expectations import Expectations
from tollhouse_server.ledger.terms import CallTerms, CounterKey, LimitDefinition
from tollhouse_server.ledger.verdicts import AppliedLimit

if TYPE_CHECKING:
    from tollhouse_server.ledger.store import Connection

_COUNTERS_KEPT = 500_000

_NO_EPOCH = -1

_FIRST_BACKOFF, _LONGEST_BACKOFF = 8, 1024
"""Ticks that look first after a plan has failed: a plan in vain costs as much as a look."""


@dataclass(slots=True)
class DatabaseClock:
    """What the database's clock shows now, from its last reading and this process's own monotonic clock.

    A guess, good enough to lock the right counters; the tick checks it against the clock itself.
    """

    read: datetime | None = None
    read_at_seconds: float = 0.0

    def note(self, now: datetime) -> None:
        """Remember a reading."""
        self.read, self.read_at_seconds = now, time.monotonic()

    def guess(self) -> datetime | None:
        """Return what the clock probably shows; None before the first reading."""
        if self.read is None:
            return None
        return self.read + timedelta(seconds=time.monotonic() - self.read_at_seconds)


@dataclass(slots=True)
class PlanBackoff:
    """How often plans have failed of late: after each failure the next ticks look first, twice as many every time."""

    ticks_to_look: int = 0
    next_ticks: int = _FIRST_BACKOFF

    def looks_first(self) -> bool:
        """Tell whether the next tick should look before it writes."""
        if self.ticks_to_look:
            self.ticks_to_look -= 1
            return True
        return False

    def plan_failed(self) -> None:
        """Expect that the next plans fail too: a budget that is used up is refused again and again."""
        self.ticks_to_look, self.next_ticks = self.next_ticks, min(_LONGEST_BACKOFF, 2 * self.next_ticks)

    def plan_held(self) -> None:
        """Expect the best again."""
        self.next_ticks = _FIRST_BACKOFF


@dataclass(slots=True)
class Memory:
    """Limits, the counters that exist, the clock, what calls mostly use, and whether plans hold."""

    definitions: LimitDefinitions = field(default_factory=LimitDefinitions)
    expectations: Expectations = field(default_factory=Expectations)
    clock: DatabaseClock = field(default_factory=DatabaseClock)
    backoff: PlanBackoff = field(default_factory=PlanBackoff)
    _counters: set[CounterKey] = field(default_factory=set)
    _applied: dict[LimitDefinition, AppliedLimit] = field(default_factory=dict)
    _applied_minute: datetime | None = None

    def forget_limits(self, epoch: int) -> None:
        """Forget every limit: the table of limits has come to `epoch`."""
        if epoch != self.definitions.epoch:
            self.definitions.forget(epoch)
            self._applied.clear()

    def forget_database(self) -> None:
        """Forget all that another database could know otherwise, though it is of the same epoch."""
        self.definitions.forget(_NO_EPOCH)
        self._applied.clear()
        self.clock.read = None

    def forget_counters(self, keys: Iterable[CounterKey]) -> None:
        """Forget that these counters exist."""
        self._counters.difference_update(keys)

    def apply_minute(self, now: datetime) -> None:
        """Begin a new minute, if it is one: windows begin with minutes."""
        if self._applied_minute != minute_of(now):
            self._applied.clear()
            self._applied_minute = minute_of(now)

    def limits_of(self, terms: CallTerms, now: datetime) -> list[AppliedLimit]:
        """Return the limits that count something of a call, with their counters in the minute of `now`."""
        known = self.definitions.require(terms)
        applied = self._applied
        return [
            applied.get(limit) or self._apply(limit, now)
            for limit in known
            if limit.metric.position < 0 or terms.ceiling[limit.metric.position]
        ]

    def _apply(self, limit: LimitDefinition, now: datetime) -> AppliedLimit:
        one = verdicts.applied(limit, now, now=now)
        # Windows begin on whole minutes, increases at any moment.
        if not limit.increases:
            self._applied[limit] = one
        return one

    async def create_missing(self, connection: "Connection", keys: Iterable[CounterKey]) -> None:
        """Make the counters that this process has not seen yet."""
        missing = [key for key in keys if key not in self._counters]
        if missing:
            if len(self._counters) > _COUNTERS_KEPT:
                self._counters.clear()
            await definition_store.create_counters(connection, missing)
            self._counters.update(missing)


def minute_of(moment: datetime) -> datetime:
    """Return the beginning of the minute: every window begins with one."""
    return moment.replace(second=0, microsecond=0)
