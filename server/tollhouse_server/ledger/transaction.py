"""One tick's transaction: plan, look and lock, decide, write, commit, tell."""

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from tollhouse_server.ledger import store, threshold_store
from tollhouse_server.ledger.admissions import Admissions
from tollhouse_server.ledger.endings import Endings
from tollhouse_server.ledger.memory import Memory, days_of_claims, minute_of
from tollhouse_server.ledger.rows import Booking
from tollhouse_server.ledger.store import AttemptKey, Look
from tollhouse_server.ledger.terms import CallTerms, CounterKey, RecordKind, Reservation
from tollhouse_server.ledger.top_ups import TopUps, limits_in_flight
from tollhouse_server.ledger.verdicts import AppliedLimit
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
        self._limits: dict[ReserveWork, list[AppliedLimit]] = {}
        self._limits_in_flight: dict[TopUpWork, list[AppliedLimit]] = {}

    async def run(self) -> list[Reservation]:
        """Commit the batch, then tell everyone. Return what is held for nobody: it must be given back.

        Raises:
            StaleMemoryError: nothing was committed; a new transaction will see what has changed.
            Exception: nothing was committed, or (a connection lost during the commit) it is not known; nobody was told.
        """
        batch = self._batch
        now = await self._guess_now()
        await self._memory.definitions.load(self._connection, _terms_of(batch))
        self._plan(now)
        wanted, needed = self._counter_keys()
        await self._memory.create_missing(self._connection, needed)
        async with self._connection.transaction():
            found = await self._look(wanted, now)
            self._check_memory(found, needed, now)
            endings = Endings(self._connection, found)
            admissions = self._admissions(found)
            top_ups = TopUps(self._connection, found, limits=self._limits_in_flight)
            await endings.end(batch.settles)
            await top_ups.judge(batch.top_ups)
            waiting = await admissions.recognise(batch.reserves)
            admissions.judge(work for work in waiting if work.is_waited_for)
            await self._write(found, admissions, endings.bookings)
            await self._raise_alerts(found, endings)
            for work in batch.reserves:
                # From here to the commit's answer nobody knows whether it happened.
                work.uncertain = True
        # With the counters free again: how an earlier call stands is for its caller to read, nothing depends on it.
        await admissions.refuse_repeated()
        admissions.tell()
        top_ups.tell()
        self._finish(found, endings.bookings)
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

    def _counter_keys(self) -> tuple[list[CounterKey], list[CounterKey]]:
        """Return, in key order, every counter that counts, and those of them that must exist."""
        needed = {one.key for limits in self._limits.values() for one in limits}
        for ending in self._batch.settles:
            needed.update([hold.key for hold in ending.reservation.holds])
        for growing in self._batch.top_ups:
            needed.update([hold.key for hold in growing.reservation.holds])
        rolling = [one for limits in self._limits.values() for one in limits if len(one.counted) > 1]
        rolling += [one for limits in self._limits_in_flight.values() for one in limits]
        # A tick that has begun in the next minute locks its counter; this one meets it only if the counter is there.
        needed.update(one.counted[-1] for one in rolling)
        ordered = sorted(needed)
        return (sorted(needed.union(*(one.counted for one in rolling))) if rolling else ordered), ordered

    def _admissions(self, found: Look) -> Admissions:
        return Admissions(
            self._connection,
            found,
            limits=self._limits,
            expectations=self._memory.expectations,
            worker_epoch=self._worker_epoch,
        )

    # --- the look, under the locks ------------------------------------------------------------------------------------

    async def _look(self, counters: list[CounterKey], now: datetime) -> Look:
        firsts = [work.terms for work in self._batch.reserves if work.terms.first]
        found = await store.look(
            self._connection,
            counters=counters,
            ending=sorted(map(_attempt_of, self._batch.settles), key=_by_integer),
            requests=[(terms.scope.tenant_id, terms.request_id) for terms in firsts],
            days=days_of_claims(now)[0],
        )
        self._memory.clock.note(found.now)
        return found

    def _check_memory(self, found: Look, needed: Iterable[CounterKey], guessed: datetime) -> None:
        """Raise if the limits, the windows or the counters are not those that this tick has reckoned with."""
        gone = [key for key in needed if key not in found.counters]
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

    async def _write(self, found: Look, admissions: Admissions, bookings: list[Booking]) -> None:
        if admissions.fresh or bookings or any(counter.is_moved for counter in found.counters.values()):
            seen, claimed = days_of_claims(found.now)
            await store.write(
                self._connection,
                counters=found.counters,
                admitted=admissions.fresh.values(),
                bookings=bookings,
                now=found.now,
                days=claimed,
                days_seen=seen,
            )

    async def _raise_alerts(self, found: Look, endings: Endings) -> None:
        reached = [(key, counter.settled) for key, counter in found.counters.items() if counter.reaches_alert]
        if reached:
            await threshold_store.raise_alerts(self._connection, reached, found.now)
        if endings.above:
            await threshold_store.raise_above_hold(self._connection, endings.above, found.now)

    def _finish(self, found: Look, bookings: Iterable[Booking]) -> None:
        for ended in self._batch.settles:
            ended.finish(found.now)
        for booking in bookings:
            if booking.settlement.kind is RecordKind.SETTLED:
                self._memory.expectations.learn(booking.reservation.terms, booking.settlement.actual)


def _terms_of(batch: Batch) -> list[CallTerms]:
    return [work.terms for work in batch.reserves] + [work.reservation.terms for work in batch.top_ups]


def _attempt_of(work: SettleWork) -> AttemptKey:
    return (work.reservation.terms.scope.tenant_id, work.reservation.terms.attempt_id)


def _by_integer(attempt: AttemptKey) -> int:
    """Sort attempts in one order for all ticks, by what is quick to compare."""
    return attempt[1].int
