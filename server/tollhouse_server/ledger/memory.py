"""What a process remembers from tick to tick. All of it can be forgotten at any time; none of it decides alone."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from tollhouse_server.ledger import definition_store, verdicts
from tollhouse_server.ledger.definitions import LimitDefinitions
from tollhouse_server.ledger.expectations import Expectations
from tollhouse_server.ledger.terms import CallTerms, CounterKey, LimitDefinition
from tollhouse_server.ledger.verdicts import AppliedLimit

if TYPE_CHECKING:
    from tollhouse_server.ledger.store import Connection

_COUNTERS_KEPT = 500_000

_MIDNIGHT_IS_NEAR = timedelta(minutes=5)
"""Far longer than any tick lasts: after it nobody is still claiming request ids for the day before."""


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
class Memory:
    """Limits, the counters that exist, the clock, and what calls mostly use."""

    definitions: LimitDefinitions = field(default_factory=LimitDefinitions)
    expectations: Expectations = field(default_factory=Expectations)
    clock: DatabaseClock = field(default_factory=DatabaseClock)
    _counters: set[CounterKey] = field(default_factory=set)
    _applied: dict[LimitDefinition, AppliedLimit] = field(default_factory=dict)
    _applied_minute: datetime | None = None

    def forget_limits(self, epoch: int) -> None:
        """Forget every limit: the table of limits has come to `epoch`."""
        if epoch != self.definitions.epoch:
            self.definitions.forget(epoch)
            self._applied.clear()

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


def days_of_claims(now: datetime) -> tuple[list[date], list[date]]:
    """Return the days (UTC) on which a request id may be taken, and those on which it must be claimed.

    Just after midnight another tick may still be claiming for the day before: then both days are claimed.
    """
    today = now.astimezone(UTC).date()
    yesterday = today - timedelta(days=1)
    since_midnight = now - datetime(today.year, today.month, today.day, tzinfo=UTC)
    return [yesterday, today], [yesterday, today] if since_midnight < _MIDNIGHT_IS_NEAR else [today]
