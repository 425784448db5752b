"""One tick's transaction, in one of two ways.

As planned: decide as if there were room for everything, and have one statement check that and write. If something is
not as planned, nothing is written, and the tick goes the long way: look and lock, decide, write, commit.
"""

import time
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from tollhouse_server.ledger import store, threshold_store
from tollhouse_server.ledger.admissions import Admissions
from tollhouse_server.ledger.endings import Endings
from tollhouse_server.ledger.memory import Memory, minute_of
from tollhouse_server.ledger.rows import Booking
from tollhouse_server.ledger.store import AttemptKey, Look, Plan, PlanFailedError
from tollhouse_server.ledger.terms import CallTerms, CounterKey, RecordKind, Reservation
from tollhouse_server.ledger.top_ups import TopUps, limits_in_flight
from tollhouse_server.ledger.verdicts import AppliedLimit, Counter
from tollhouse_server.ledger.windows import days_of_claims
from tollhouse_server.ledger.works import Batch, ReserveWork, SettleWork, TopUpWork

if TYPE_CHECKING:
    from tollhouse_server.ledger.store import Connection


class StaleMemoryError(Exception):
    """What this process remembered was no longer true; it knows better now, and the batch can be tried again."""


class TickTransaction:
    """Carries one batch through one transaction. Nobody hears a verdict before the commit."""

    def __init__(self, connection: "Connection", memory: Memory, worker_epoch: int, batch: Batch) -> None:
        self._connection = connection
        self._memory = memory
        self._worker_epoch = worker_epoch
        self._batch = batch
        self._planned_epoch = 0
        self.plan_failed = False
        self._limits: dict[ReserveWork, list[AppliedLimit]] = {}
        self._applied: dict[CounterKey, AppliedLimit] = {}
        self._needed: list[CounterKey] = []
        self._limits_in_flight: dict[TopUpWork, list[AppliedLimit]] = {}

    async def run(self) -> list[Reservation]:
        """Commit the batch, then tell everyone. Return what is held for nobody: it must be given back.

        Raises:
            StaleMemoryError: nothing was committed; a new transaction will see what has changed.
            Exception: nothing was committed, or (a connection lost during the commit) it is not known; nobody was told.
        """
        now = await self._guess_now()
        await self._memory.definitions.load(self._connection, _terms_of(self._batch))
        self._plan(now)
        await self._memory.create_missing(self._connection, self._needed)
        if self._can_be_planned() and not self._memory.backoff.looks_first():
            try:
                return await self._write_as_planned(now)
            except PlanFailedError:
                self.plan_failed = True
                self._memory.backoff.plan_failed()
        return await self._look_and_write(now)

    # --- one statement, in the hope that all fits ---------------------------------------------------------------------

    def _can_be_planned(self) -> bool:
        """Tell whether all that this batch depends on can be told to the statement that writes."""
        batch = self._batch
        return (
            not batch.top_ups
            and not any(work.uncertain for work in batch.reserves)
            and all(len(one.counted) == 1 and not one.limit.increases for one in self._applied.values())
            and not any(work.settlement.kind is RecordKind.SUSPENSE for work in batch.settles)
        )

    async def _write_as_planned(self, now: datetime) -> list[Reservation]:
        """Decide as if every counter were empty and every attempt in flight; the statement checks what that leaves out.

        Raises:
            PlanFailedError: it is not as simple as that; nothing was written.
        """
        batch = self._batch
        supposed = Look(
            epoch=self._planned_epoch,
            now=now,
            counters={key: Counter() for key in self._needed},
            ended={work.reservation.terms.attempt_id.int: None for work in batch.settles},
        )
        endings, admissions = Endings(self._connection, supposed), self._admissions(supposed)
        await endings.end(batch.settles)
        admissions.judge(_permitted(batch.reserves))
        if endings.above or not admissions.all_are_admitted:
            raise PlanFailedError
        plan = Plan(minute_of(now), self._planned_epoch, {key: one.bounds for key, one in self._applied.items()})
        for work in admissions.fresh:
            # From here to the answer nobody knows whether it happened.
            work.uncertain = True
        try:
            found_now = await self._write(supposed, admissions, endings.bookings, plan)
        except PlanFailedError:
            for work in admissions.fresh:
                work.uncertain = False
            raise
        self._memory.backoff.plan_held()
        admissions.tell()
        self._finish(found_now, endings.bookings)
        return admissions.for_nobody

    # --- a look under the locks, then the same statement --------------------------------------------------------------

    async def _look_and_write(self, now: datetime) -> list[Reservation]:
        batch = self._batch
        async with self._connection.transaction():
            found = await self._look(now)
            self._check_memory(found, now)
            endings = Endings(self._connection, found)
            admissions = self._admissions(found)
            top_ups = TopUps(self._connection, found, limits=self._limits_in_flight)
            await endings.end(batch.settles)
            await top_ups.judge(batch.top_ups)
            waiting = await admissions.recognise(batch.reserves)
            admissions.judge(_permitted(waiting))
            found_now = await self._write(found, admissions, endings.bookings)
            await self._raise_alerts(found, endings)
            for work in admissions.fresh:
                # From here to the commit's answer nobody knows whether it happened. Of the others it is known: a call
                # that asks anew, because its permit has lapsed, must not be taken for the work that was told so.
                work.uncertain = True
        # With the counters free again: how an earlier call stands is for its caller to read, nothing depends on it.
        await admissions.refuse_repeated()
        admissions.tell()
        top_ups.tell()
        self._finish(found_now, endings.bookings)
        return admissions.for_nobody

    # --- the plan, from memory ----------------------------------------------------------------------------------------

    async def _guess_now(self) -> datetime:
        guess = self._memory.clock.guess()
        if guess is not None:
            return guess
        epoch, now = await store.read_clock(self._connection)
        self._memory.forget_limits(epoch)
        self._memory.clock.note(now)
        return now

    def _plan(self, now: datetime) -> None:
        """Choose the limits of every call. Nothing else runs meanwhile: all are of one epoch and one minute."""
        memory, batch = self._memory, self._batch
        self._planned_epoch = memory.definitions.epoch
        memory.apply_minute(now)
        self._limits = {work: memory.limits_of(work.terms, now) for work in batch.reserves}
        self._limits_in_flight = {
            work: limits_in_flight(work, memory.definitions.require(work.reservation.terms), now=now)
            for work in batch.top_ups
        }
        self._applied = {one.key: one for limits in self._limits.values() for one in limits}
        needed = set(self._applied)
        for work in batch.settles:
            needed.update([hold.key for hold in work.reservation.holds])
        for growing in batch.top_ups:
            needed.update([hold.key for hold in growing.reservation.holds])
        # A tick that has begun in the next minute locks its counter; this one meets it only if the counter is there.
        needed.update(one.counted[-1] for one in self._rolling())
        self._needed = sorted(needed)

    def _rolling(self) -> list[AppliedLimit]:
        """Return the limits that more counters count for than the one that is held on."""
        rolling = [one for one in self._applied.values() if len(one.counted) > 1]
        return rolling + [one for limits in self._limits_in_flight.values() for one in limits]

    def _admissions(self, found: Look) -> Admissions:
        return Admissions(
            self._connection,
            found,
            limits=self._limits,
            expectations=self._memory.expectations,
            worker_epoch=self._worker_epoch,
        )

    # --- the look, under the locks ------------------------------------------------------------------------------------

    async def _look(self, now: datetime) -> Look:
        firsts = [work.terms for work in self._batch.reserves if work.terms.first]
        rolling = self._rolling()
        found = await store.look(
            self._connection,
            # Whatever counts is locked, in one order.
            counters=sorted({*self._needed}.union(*(one.counted for one in rolling))) if rolling else self._needed,
            ending=sorted(map(_attempt_of, self._batch.settles), key=_by_integer),
            requests=[(terms.scope.tenant_id, terms.request_id) for terms in firsts],
            days=days_of_claims(now),
        )
        self._memory.clock.note(found.now)
        return found

    def _check_memory(self, found: Look, guessed: datetime) -> None:
        """Raise if the limits, the windows or the counters are not those that this tick has reckoned with."""
        gone = [key for key in self._needed if key not in found.counters]
        self._memory.forget_counters(gone)
        is_changed = found.epoch != self._planned_epoch
        if is_changed:
            self._memory.forget_limits(found.epoch)
        # What ends needs neither limits nor the minute: its counters are those of its holds.
        if gone or ((self._limits or self._limits_in_flight) and (is_changed or self._is_another_time(found, guessed))):
            raise StaleMemoryError

    def _is_another_time(self, found: Look, guessed: datetime) -> bool:
        if minute_of(found.now) != minute_of(guessed):
            return True
        planned = (*self._limits.values(), *self._limits_in_flight.values())
        increased = (one for limits in planned for one in limits if one.limit.increases)
        return any(one.limit.amount_at(found.now) != one.amount for one in increased)

    # --- the end ------------------------------------------------------------------------------------------------------

    async def _write(
        self, found: Look, admissions: Admissions, bookings: list[Booking], plan: Plan | None = None
    ) -> datetime:
        """Write what was decided, if anything was; return the moment of the bookings."""
        if not (admissions.fresh or bookings or any(counter.is_moved for counter in found.counters.values())):
            return found.now
        now = await store.write(
            self._connection,
            counters=found.counters,
            admitted=admissions.fresh.values(),
            bookings=bookings,
            dispatched_at=found.now,
            days=days_of_claims(found.now),
            plan=plan,
        )
        self._memory.clock.note(now)
        return now

    async def _raise_alerts(self, found: Look, endings: Endings) -> None:
        reached = [(key, counter.settled) for key, counter in found.counters.items() if counter.reaches_alert]
        if reached:
            await threshold_store.raise_alerts(self._connection, reached, found.now)
        if endings.above:
            await threshold_store.raise_above_hold(self._connection, endings.above, found.now)

    def _finish(self, now: datetime, bookings: Iterable[Booking]) -> None:
        for ended in self._batch.settles:
            ended.finish(now)
        for booking in bookings:
            if booking.settlement.kind is RecordKind.SETTLED:
                self._memory.expectations.learn(booking.reservation.terms, booking.settlement.actual)


def _terms_of(batch: Batch) -> list[CallTerms]:
    return [work.terms for work in batch.reserves] + [work.reservation.terms for work in batch.top_ups]


def _permitted(works: Iterable[ReserveWork]) -> list[ReserveWork]:
    """Return the works that someone waits for and that are known to be permitted now, right before they are written."""
    now = time.monotonic()
    return [work for work in works if work.may_be_admitted(now)]


def _attempt_of(work: SettleWork) -> AttemptKey:
    return (work.reservation.terms.scope.tenant_id, work.reservation.terms.attempt_id)


def _by_integer(attempt: AttemptKey) -> int:
    """Sort attempts in one order for all ticks, by what is quick to compare."""
    return attempt[1].int
