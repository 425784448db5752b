"""The ledger's door: reserve before the call, settle after it."""

import asyncio
import os
import time
from datetime import datetime
from uuid import UUID

from tollhouse_server.errors import StoreUnavailable
from tollhouse_server.ledger.terms import NOT_SENT, CallTerms, Reservation, Settlement
from tollhouse_server.ledger.tick import Tick
from tollhouse_server.ledger.works import ReserveWork


class Ledger:
    """Admits calls and books them. Every admitted attempt must be ended with `settle` or `release`, exactly once."""

    def __init__(self, tick: Tick) -> None:
        self._tick = tick
        self._open: set[UUID] = set()
        self._settlements: set[asyncio.Future[datetime]] = set()

    @property
    def in_flight(self) -> int:
        """Return how many attempts of this process are admitted and not yet ended."""
        return len(self._open)

    async def reserve(self, terms: CallTerms, *, timeout_seconds: float) -> Reservation:
        """Hold the ceiling against every limit above the call's scope and write its attempt, durably.

        Raises:
            LimitExceeded: one limit has no room; nothing is held.
            DuplicateRequest, RequestIdReused: the request id is taken; nothing is held.
            StoreUnavailable: no verdict within `timeout_seconds`; whatever was held meanwhile is given back.
        """
        work = ReserveWork(terms=terms, verdict=asyncio.get_running_loop().create_future())
        self._tick.submit_reserve(work)
        try:
            async with asyncio.timeout(timeout_seconds):
                reservation = await asyncio.shield(work.verdict)
        except TimeoutError:
            self._abandon(work)
            raise StoreUnavailable(detail="no verdict within the deadline") from None
        except asyncio.CancelledError:
            self._abandon(work)
            raise
        self._open.add(terms.attempt_id)
        return reservation

    def _abandon(self, work: ReserveWork) -> None:
        """Give up waiting; an admission that has come or is still to come is given back."""
        work.abandoned = True
        if work.verdict.done() and not work.verdict.cancelled() and work.verdict.exception() is None:
            self._end(work.verdict.result(), NOT_SENT)

    async def settle(self, reservation: Reservation, settlement: Settlement) -> datetime:
        """Book how an attempt ended; return, when that is durable, the moment of the booking.

        A cancelled caller stops waiting; the settlement itself goes on.
        """
        return await asyncio.shield(self._end(reservation, settlement))

    def _end(self, reservation: Reservation, settlement: Settlement) -> asyncio.Future[datetime]:
        booked = self._tick.submit_settle(reservation, settlement)
        self._settlements.add(booked)
        booked.add_done_callback(self._settlements.discard)
        booked.add_done_callback(lambda _: self._open.discard(reservation.terms.attempt_id))
        return booked

    async def release(self, reservation: Reservation) -> None:
        """End an attempt that was never sent: it costs nothing and frees its holds."""
        await self.settle(reservation, NOT_SENT)

    async def drain(self) -> None:
        """Wait until every settlement that was asked for is durable."""
        while self._settlements:
            await asyncio.gather(*self._settlements, return_exceptions=True)


def new_attempt_id() -> UUID:
    """Return a UUIDv7 (RFC 9562): ordered by time, so that the primary keys of the ledger append."""
    return _uuid7(time.time_ns() // 1_000_000, os.urandom(10))


def _uuid7(milliseconds: int, random: bytes) -> UUID:
    value = (milliseconds & (2**48 - 1)) << 80 | int.from_bytes(random, "big")
    value = value & ~(0xF << 76) | 7 << 76
    return UUID(int=value & ~(0x3 << 62) | 2 << 62)
