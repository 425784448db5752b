"""One tick's transaction: lock the counters, end attempts, give verdicts, write everything, commit."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from tollhouse_server.errors import DuplicateRequest, LimitExceeded, RequestIdReused, StoreUnavailable, TollhouseError
from tollhouse_server.ledger import store, threshold_store, verdicts
from tollhouse_server.ledger.definition_store import moment
from tollhouse_server.ledger.memory import Memory, days_of_claims, minute_of
from tollhouse_server.ledger.rows import Booking, holds_json, holds_of
from tollhouse_server.ledger.store import AttemptKey, Look, RequestKey
from tollhouse_server.ledger.terms import Amounts, CallTerms, CounterKey, Hold, RecordKind, Reservation, Settlement
from tollhouse_server.ledger.threshold_store import AboveHold
from tollhouse_server.ledger.verdicts import AppliedLimit
from tollhouse_server.ledger.works import Batch, ReserveWork, SettleWork, TopUpWork

if TYPE_CHECKING:
    from tollhouse_server.ledger.store import Connection


class StaleMemoryError(Exception):
    """What this process remembered was no longer true; it knows better now, and the batch can be tried again."""


class TickTransaction:
    """Carries one batch through one transaction. Nobody hears a verdict before the commit."""

    def __init__(self, connection: "Connection", memory: Memory, worker_epoch: int) -> None:
        self._connection = connection
        self._memory = memory
        self._worker_epoch = worker_epoch
        self._found = Look(epoch=0, now=datetime.min)
        self._planned_epoch = 0
        self._limits: dict[ReserveWork, list[AppliedLimit]] = {}
        self._fresh: dict[ReserveWork, Reservation] = {}
        self._admitted: dict[ReserveWork, Reservation] = {}
        self._grown: dict[TopUpWork, Reservation] = {}
        self._refused: dict[ReserveWork | TopUpWork, TollhouseError] = {}
        self._repeated: list[ReserveWork] = []
        self._bookings: list[Booking] = []
        self._is_booked = False
        self._above: list[AboveHold] = []
        self.for_nobody: list[Reservation] = []
        """What was admitted although its caller has gone: it must be given back."""

    async def run(self, batch: Batch) -> None:
        """Commit the batch, then tell everyone.

        Raises:
            StaleMemoryError: nothing was committed; a new transaction will see what has changed.
            Exception: nothing was committed, or (a connection lost during the commit) it is not known; nobody was told.
        """
        now = await self._guess_now()
        await self._memory.definitions.load(self._connection, _terms_of(batch))
        # From here to the look nothing else runs between: what is planned is planned by one epoch and one minute.
        self._planned_epoch = self._memory.definitions.epoch
        self._memory.apply_minute(now)
        self._limits = {work: self._memory.limits_of(work.terms, now) for work in batch.reserves}
        wanted, needed = self._counter_keys(batch, now)
        await self._memory.create_missing(self._connection, needed)
        async with self._connection.transaction():
            await self._look(batch, wanted, now)
            self._check_memory(needed, now)
            await self._end(batch.settles)
            await self._decide(batch)
            await self._raise_alerts()
        # With the counters free again: how an earlier call stands is for its caller to read, nothing depends on it.
        await self._say_what_became_of(self._repeated)
        self._tell(batch)

    async def _guess_now(self) -> datetime:
        guess = self._memory.clock.guess()
        if guess is not None:
            return guess
        epoch, now = await store.read_clock(self._connection)
        self._memory.forget_limits(epoch)
        self._memory.clock.note(now)
        return now

    def _counter_keys(self, batch: Batch, now: datetime) -> tuple[list[CounterKey], list[CounterKey]]:
        """Return, in key order, every counter that counts, and those of them that must exist."""
        needed = {one.key for limits in self._limits.values() for one in limits}
        for ending in batch.settles:
            needed.update([hold.key for hold in ending.reservation.holds])
        for growing in batch.top_ups:
            needed.update([hold.key for hold in growing.reservation.holds])
        counted = {
            key for limits in self._limits.values() for one in limits if len(one.counted) > 1 for key in one.counted
        }
        for growing in batch.top_ups:
            counted.update(key for one in self._limits_in_flight(growing, now) for key in one.counted)
        ordered = sorted(needed)
        return (sorted(needed | counted) if counted else ordered), ordered

    def _limits_in_flight(self, work: TopUpWork, now: datetime) -> list[AppliedLimit]:
        """Return the limits that an attempt holds on, with the counters that it was reserved on."""
        held = {hold.key.limit_id: hold.key for hold in work.reservation.holds}
        known = self._memory.definitions.of(work.reservation.terms) or ()
        return [
            verdicts.applied(limit, moment(held[limit.limit_id].window_start), now=now)
            for limit in known
            if limit.limit_id in held
        ]

    async def _look(self, batch: Batch, counters: list[CounterKey], now: datetime) -> None:
        self._found = await store.look(
            self._connection,
            counters=counters,
            ending=sorted(map(_attempt_of, batch.settles), key=_by_integer),
            requests=[
                (work.terms.scope.tenant_id, work.terms.request_id) for work in batch.reserves if work.terms.first
            ],
            days=days_of_claims(now)[0],
        )
        self._memory.clock.note(self._found.now)

    def _check_memory(self, needed: Iterable[CounterKey], guessed: datetime) -> None:
        """Raise if the limits, the windows or the counters are not those that this tick has reckoned with."""
        gone = [key for key in needed if key not in self._found.counters]
        is_stale = bool(gone) or minute_of(self._found.now) != minute_of(guessed)
        self._memory.forget_counters(gone)
        if self._found.epoch != self._planned_epoch:
            self._memory.forget_limits(self._found.epoch)
            is_stale = True
        if is_stale:
            raise StaleMemoryError

    # --- settlements ------------------------------------------------------------------------------------------------

    async def _end(self, settles: list[SettleWork]) -> None:
        for work in settles:
            reservation = work.reservation
            attempt_id = reservation.terms.attempt_id.int
            if attempt_id not in self._found.ended:
                await self._end_late(work)
                continue
            grown = self._found.ended.pop(attempt_id)
            if grown is not None:
                holds = holds_of(reservation.terms.scope.tenant_id, grown)
                reservation = replace(reservation, holds=holds, holds_text=grown)
            verdicts.settle(reservation.holds, work.settlement.actual, self._found.counters)
            self._book(reservation, work.settlement)

    async def _end_late(self, work: SettleWork) -> None:
        """Settle an attempt that is no longer in flight: suspended meanwhile, or booked by a commit in doubt."""
        terms, settlement = work.reservation.terms, work.settlement
        suspended = None
        if settlement.kind is not RecordKind.SUSPENSE:
            suspended = await store.close_suspense(self._connection, terms, settlement.outcome)
        if suspended is not None:
            difference = settlement.actual.minus(suspended)
            verdicts.correct(work.reservation.holds, difference, self._found.counters)
            self._book(work.reservation, replace(settlement, kind=RecordKind.ADJUSTMENT, actual=difference))
        elif not await store.is_booked(self._connection, terms):
            # No attempt, no record: the row was lost with the database's last moments. The charge is real all the same.
            verdicts.correct(work.reservation.holds, settlement.actual, self._found.counters)
            self._book(work.reservation, settlement)

    def _book(self, reservation: Reservation, settlement: Settlement) -> None:
        self._bookings.append(Booking(reservation, settlement, self._worker_epoch))
        if settlement.kind is RecordKind.SETTLED:
            self._above.extend(_above_holds(reservation.terms.attempt_id, reservation.holds, settlement.actual))

    # --- verdicts ---------------------------------------------------------------------------------------------------

    async def _decide(self, batch: Batch) -> None:
        waiting = await self._recognise(batch.reserves)
        waiting = self._part_repeated([work for work in waiting if work.is_waited_for])
        await self._top_up(batch.top_ups)
        self._judge(waiting)
        # Each loss of a request id to another server gives room back, for which someone may have been refused.
        while lost := await self._write():
            self._judge(await self._give_up(lost))

    async def _recognise(self, reserves: list[ReserveWork]) -> list[ReserveWork]:
        """Find what a commit in doubt has admitted after all; return the rest, which it has not."""
        uncertain = [work for work in reserves if work.uncertain]
        if not uncertain:
            return reserves
        keys = [(work.terms.scope.tenant_id, work.terms.attempt_id) for work in uncertain]
        there = await store.load_attempts(self._connection, keys)
        for work in uncertain:
            found = there.get(work.terms.attempt_id.int)
            if found is not None:
                self._admitted[work] = _as_asked(found, work)
        return [work for work in reserves if work not in self._admitted]

    def _part_repeated(self, reserves: list[ReserveWork]) -> list[ReserveWork]:
        """Put aside calls whose request id is taken, by an earlier call or another of this batch; return the rest."""
        taken, fresh, repeated = self._found.taken, [], []
        for work in reserves:
            if not work.terms.first:
                fresh.append(work)
            elif (key := _request_key(work)) in taken:
                repeated.append(work)
            else:
                taken[key] = work.terms.fingerprint
                fresh.append(work)
        self._repeated += repeated
        return fresh

    async def _say_what_became_of(self, works: list[ReserveWork]) -> None:
        """Refuse calls whose request id is taken, each with the state of the call that took it."""
        if not works:
            return
        asked = {_request_key(work): (work.terms.scope.tenant_id, work.terms.request_id) for work in works}
        states = await store.call_states(self._connection, list(asked.values()))
        for work in works:
            key, request_id = _request_key(work), str(work.terms.request_id)
            if self._found.taken.get(key, work.terms.fingerprint) != work.terms.fingerprint:
                self._refused[work] = RequestIdReused(request_id=request_id)
            else:
                self._refused[work] = DuplicateRequest(request_id=request_id, state=states.get(key, "DISPATCHED"))

    def _judge(self, reserves: Iterable[ReserveWork]) -> None:
        expectations, counters, now = self._memory.expectations, self._found.counters, self._found.now
        for work in reserves:
            shares = expectations.of(work.terms)
            try:
                verdict = verdicts.decide(work.terms, self._limits[work], counters, shares=shares, at=now)
            except LimitExceeded as error:
                self._refused[work] = error
                continue
            self._fresh[work] = Reservation(
                terms=verdicts.granted(work.terms, verdict.shrunk),
                holds=verdict.holds,
                holds_text=verdict.holds_text,
                dispatched_at=now,
                shares=shares,
                max_output_tokens=verdict.shrunk.max_output_tokens if verdict.shrunk else None,
                clamped_by=verdict.clamped_by,
            )

    async def _give_up(self, lost: Sequence[ReserveWork]) -> list[ReserveWork]:
        """Undo admissions whose request id another server claimed just now; return who was refused for want of room."""
        await store.end_attempts(self._connection, [_attempt_key(self._admitted[work]) for work in lost])
        for work in lost:
            verdicts.give_back(self._admitted.pop(work).holds, self._found.counters)
        displaced = [
            work
            for work, error in self._refused.items()
            if isinstance(work, ReserveWork) and isinstance(error, LimitExceeded)
        ]
        for work in displaced:
            del self._refused[work]
        self._repeated += lost
        return displaced

    async def _top_up(self, works: list[TopUpWork]) -> None:
        if not works:
            return
        there = await store.load_attempts(self._connection, [_attempt_key(work.reservation) for work in works])
        for work in works:
            self._judge_top_up(work, there.get(work.reservation.terms.attempt_id.int))
        if self._grown:
            await store.grow_attempts(self._connection, list(self._grown.values()))

    def _judge_top_up(self, work: TopUpWork, there: Reservation | None) -> None:
        if there is None:
            self._refused[work] = StoreUnavailable(detail="the attempt is in suspense: this worker was taken for dead")
            return
        asked = work.reservation
        if there.top_ups > asked.top_ups:
            # A commit in doubt has done it.
            self._grown[work] = replace(there, terms=replace(asked.terms, ceiling=there.terms.ceiling))
            return
        try:
            limits, now = self._limits_in_flight(work, self._found.now), self._found.now
            holds = verdicts.top_up(asked.holds, work.more, limits=limits, counters=self._found.counters, at=now)
        except LimitExceeded as error:
            self._refused[work] = error
            return
        terms = replace(asked.terms, ceiling=asked.terms.ceiling.plus(work.more))
        self._grown[work] = replace(
            asked, terms=terms, holds=holds, holds_text=holds_json(holds), top_ups=asked.top_ups + 1
        )

    # --- the end ----------------------------------------------------------------------------------------------------

    async def _write(self) -> list[ReserveWork]:
        """Write what is not written yet; return the works whose request id turned out to be taken."""
        fresh, self._fresh = self._fresh, {}
        bookings, counters = self._bookings, self._found.counters
        if not fresh and not bookings and not any(counter.is_moved for counter in counters.values()):
            return []
        claimed = await store.write(
            self._connection,
            counters=counters,
            admitted=list(fresh.values()),
            bookings=[] if self._is_booked else bookings,
            worker_epoch=self._worker_epoch,
            now=self._found.now,
            days=days_of_claims(self._found.now)[1],
        )
        self._is_booked = True
        self._admitted |= fresh
        return [work for work in fresh if work.terms.first and work.terms.attempt_id.int not in claimed]

    async def _raise_alerts(self) -> None:
        reached = [(key, counter.settled) for key, counter in self._found.counters.items() if counter.reaches_alert]
        if reached:
            await threshold_store.raise_alerts(self._connection, reached, self._found.now)
        if self._above:
            await threshold_store.raise_above_hold(self._connection, self._above, self._found.now)

    def _tell(self, batch: Batch) -> None:
        for work, error in self._refused.items():
            work.fail(error)
        self.for_nobody = [reservation for work, reservation in self._admitted.items() if not work.admit(reservation)]
        for growing, grown in self._grown.items():
            growing.admit(grown)
        for ended in batch.settles:
            ended.finish(self._found.now)
        for booking in self._bookings:
            if booking.settlement.kind is RecordKind.SETTLED:
                self._memory.expectations.learn(booking.reservation.terms, booking.settlement.actual)


def _terms_of(batch: Batch) -> list[CallTerms]:
    return [work.terms for work in batch.reserves] + [work.reservation.terms for work in batch.top_ups]


def _attempt_key(reservation: Reservation) -> AttemptKey:
    return (reservation.terms.scope.tenant_id, reservation.terms.attempt_id)


def _attempt_of(work: SettleWork) -> AttemptKey:
    return _attempt_key(work.reservation)


def _by_integer(attempt: AttemptKey) -> int:
    """Sort attempts in one order for all ticks, by what is quick to compare."""
    return attempt[1].int


def _request_key(work: ReserveWork) -> RequestKey:
    return (work.terms.scope.tenant_id, work.terms.request_id.int)


def _as_asked(there: Reservation, work: ReserveWork) -> Reservation:
    """Return a reservation found in the database with the terms of the caller who asked for it."""
    return replace(there, terms=replace(work.terms, ceiling=there.terms.ceiling))


def _above_holds(attempt_id: UUID, holds: Iterable[Hold], actual: Amounts) -> list[AboveHold]:
    return [
        AboveHold(hold.key, actual.of(hold.metric), hold.amount, attempt_id)
        for hold in holds
        if actual.of(hold.metric) > hold.amount
    ]
