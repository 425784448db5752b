"""One tick's transaction: lock the counters, end attempts, give verdicts, write everything, commit."""

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from tollhouse_server.errors import DuplicateRequest, LimitExceeded, RequestIdReused, TollhouseError
from tollhouse_server.ledger import store, verdicts
from tollhouse_server.ledger.definitions import LimitDefinitions
from tollhouse_server.ledger.store import Booking
from tollhouse_server.ledger.terms import (
    Amounts,
    CounterKey,
    LimitDefinition,
    RecordKind,
    Reservation,
    Settlement,
)
from tollhouse_server.ledger.verdicts import Counter, KeyedLimit
from tollhouse_server.ledger.works import Batch, ReserveWork, SettleWork

if TYPE_CHECKING:
    from tollhouse_server.ledger.store import Connection


class TickTransaction:
    """Carries one batch through one transaction. Nobody hears a verdict before the commit."""

    def __init__(
        self,
        connection: "Connection",
        definitions: LimitDefinitions,
        known_counters: set[CounterKey],
        worker_epoch: int,
    ) -> None:
        self._connection = connection
        self._definitions = definitions
        self._known = known_counters
        self._worker_epoch = worker_epoch
        self._now = datetime.min
        self._keys: dict[tuple[str, int], CounterKey] = {}
        self._counters: dict[CounterKey, Counter] = {}
        self._admitted: dict[ReserveWork, Reservation] = {}
        self._recognised: dict[ReserveWork, Reservation] = {}
        self._refused: dict[ReserveWork, TollhouseError] = {}
        self._bookings: list[Booking] = []

    async def run(self, batch: Batch) -> None:
        """Commit the batch, then tell everyone.

        Raises:
            Exception: nothing was committed, or (a connection lost during the commit) it is not known; nobody was told.
        """
        epoch, self._now = await store.read_clock(self._connection)
        await self._definitions.load(self._connection, epoch, (work.terms for work in batch.reserves))
        limits = {work: self._limits_of(work) for work in batch.reserves}
        keys = self._counter_keys(batch, limits)
        await self._create_missing(keys)
        async with self._connection.transaction():
            locked = await store.lock_counters(self._connection, keys)
            self._counters = {key: Counter(held=held, settled=settled) for key, (held, settled) in locked.items()}
            await self._end(batch.settles)
            await self._decide(batch.reserves, limits)
            await self._write()
        self._tell(batch)

    def _limits_of(self, work: ReserveWork) -> list[KeyedLimit]:
        applied = verdicts.applicable(work.terms, self._definitions.of(work.terms))
        return [(limit, self._counter_key(limit)) for limit in applied]

    def _counter_key(self, limit: LimitDefinition) -> CounterKey:
        """Return the limit's counter as of this tick; many calls share a limit, and calendars cost microseconds."""
        key = self._keys.get((limit.tenant_id, limit.limit_id))
        if key is None:
            key = verdicts.counter_key(limit, self._now)
            self._keys[(limit.tenant_id, limit.limit_id)] = key
        return key

    def _counter_keys(self, batch: Batch, limits: dict[ReserveWork, list[KeyedLimit]]) -> list[CounterKey]:
        keys = {key for applied in limits.values() for _, key in applied}
        for work in batch.settles:
            tenant = work.reservation.terms.scope.tenant_id
            keys.update((tenant, hold.limit_id, hold.window_start) for hold in work.reservation.holds)
        return sorted(keys)

    async def _create_missing(self, keys: list[CounterKey]) -> None:
        # In a transaction of its own: an insert that waits for another tick's insert must hold no lock meanwhile.
        missing = [key for key in keys if key not in self._known]
        if missing:
            await store.create_counters(self._connection, missing)
            self._known.update(missing)

    async def _end(self, settles: list[SettleWork]) -> None:
        if not settles:
            return
        attempts = sorted((w.reservation.terms.scope.tenant_id, w.reservation.terms.attempt_id) for w in settles)
        ended = await store.end_attempts(self._connection, attempts)
        for work in settles:
            terms, settlement = work.reservation.terms, work.settlement
            if terms.attempt_id in ended:
                verdicts.settle(terms.scope.tenant_id, work.reservation.holds, settlement.actual, self._counters)
                self._book(work.reservation, settlement)
            else:
                await self._end_late(work)

    async def _end_late(self, work: SettleWork) -> None:
        """Settle an attempt that is no longer in flight: suspended meanwhile, or booked by a commit in doubt."""
        terms, settlement = work.reservation.terms, work.settlement
        suspended = None
        if settlement.kind is not RecordKind.SUSPENSE:
            suspended = await store.close_suspense(self._connection, terms, settlement.outcome)
        if suspended is not None:
            self._correct(work.reservation, settlement, suspended)
        elif not await store.is_booked(self._connection, terms):
            # No attempt, no record: the row was lost with the database's last moments. The charge is real all the same.
            verdicts.correct(terms.scope.tenant_id, work.reservation.holds, settlement.actual, self._counters)
            self._book(work.reservation, settlement)

    def _correct(self, reservation: Reservation, settlement: Settlement, suspended: Amounts) -> None:
        difference = settlement.actual - suspended
        verdicts.correct(reservation.terms.scope.tenant_id, reservation.holds, difference, self._counters)
        self._book(reservation, replace(settlement, kind=RecordKind.ADJUSTMENT, actual=difference))

    def _book(self, reservation: Reservation, settlement: Settlement) -> None:
        self._bookings.append(Booking(reservation=reservation, settlement=settlement, worker_epoch=self._worker_epoch))

    async def _decide(self, reserves: list[ReserveWork], limits: dict[ReserveWork, list[KeyedLimit]]) -> None:
        waiting = await self._recognise(reserves)
        waiting = await self._refuse_repeated([work for work in waiting if not work.abandoned])
        for work in waiting:
            self._verdict(work, limits[work])
        await self._claim()

    async def _recognise(self, reserves: list[ReserveWork]) -> list[ReserveWork]:
        """Find what a commit in doubt has admitted after all; return the rest, which it has not."""
        uncertain = sorted((w.terms.scope.tenant_id, w.terms.attempt_id) for w in reserves if w.uncertain)
        if not uncertain:
            return reserves
        there = await store.load_attempts(self._connection, uncertain)
        self._recognised = {w: there[w.terms.attempt_id] for w in reserves if w.terms.attempt_id in there}
        return [work for work in reserves if work not in self._recognised]

    async def _refuse_repeated(self, reserves: list[ReserveWork]) -> list[ReserveWork]:
        firsts = sorted({(w.terms.scope.tenant_id, w.terms.request_id) for w in reserves if w.terms.first})
        seen = await store.seen_requests(self._connection, firsts) if firsts else {}
        fresh = []
        for work in reserves:
            key = (work.terms.scope.tenant_id, work.terms.request_id)
            claimed = seen.get(key) if work.terms.first else None
            if claimed is None:
                fresh.append(work)
                if work.terms.first:
                    seen[key] = (work.terms.fingerprint, work.terms.attempt_id)
            else:
                self._refused[work] = await self._repeated(work, claimed[0])
        return fresh

    async def _repeated(self, work: ReserveWork, fingerprint: bytes) -> TollhouseError:
        request_id = work.terms.request_id
        if fingerprint != work.terms.fingerprint:
            return RequestIdReused(request_id=str(request_id))
        state = await store.call_state(self._connection, work.terms.scope.tenant_id, request_id)
        return DuplicateRequest(request_id=str(request_id), state=state)

    def _verdict(self, work: ReserveWork, limits: list[KeyedLimit]) -> None:
        try:
            holds = verdicts.hold_all(work.terms, limits, self._counters, self._now)
        except LimitExceeded as error:
            self._refused[work] = error
        else:
            self._admitted[work] = Reservation(terms=work.terms, holds=holds, dispatched_at=self._now)

    async def _claim(self) -> None:
        """Claim the request ids of what is admitted; an id that another server claimed just now loses its holds."""
        firsts = [work for work in self._admitted if work.terms.first]
        if not firsts:
            return
        ordered = sorted((work.terms for work in firsts), key=lambda terms: (terms.scope.tenant_id, terms.request_id))
        claimed = await store.claim_requests(self._connection, ordered)
        for work in firsts:
            if work.terms.attempt_id not in claimed:
                lost = self._admitted.pop(work)
                verdicts.give_back(work.terms.scope.tenant_id, lost.holds, self._counters)
                self._refused[work] = DuplicateRequest(request_id=str(work.terms.request_id), state="DISPATCHED")

    async def _write(self) -> None:
        moves = {key: (counter.held_moved, counter.settled_moved) for key, counter in self._counters.items()}
        await store.move_counters(self._connection, moves)
        if self._admitted:
            await store.insert_attempts(self._connection, list(self._admitted.values()), self._worker_epoch)
        if self._bookings:
            await store.insert_records(self._connection, self._bookings, self._now)

    def _tell(self, batch: Batch) -> None:
        for work, error in self._refused.items():
            work.fail(error)
        for work, reservation in (self._admitted | self._recognised).items():
            work.admit(reservation)
        for settled in batch.settles:
            settled.finish(self._now)

    @property
    def admitted_for_nobody(self) -> list[Reservation]:
        """Return what was admitted although its caller has gone: it must be given back."""
        return [reservation for work, reservation in (self._admitted | self._recognised).items() if work.abandoned]
