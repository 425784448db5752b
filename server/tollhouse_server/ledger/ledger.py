"""The ledger's door: reserve before the call, settle after it."""

import asyncio
import math
import os
import time
from datetime import datetime
from uuid import UUID

from tollhouse_server.errors import StoreUnavailable
from tollhouse_server.ledger.terms import (
    NOT_SENT,
    Amounts,
    CallTerms,
    Reservation,
    Settlement,
    SuspensePolicy,
    suspended,
)
from tollhouse_server.ledger.tick import Tick
from tollhouse_server.ledger.works import ReserveWork, TopUpWork, WaitingWork


class Ledger:
    """Admits calls and books them. Every admitted attempt must be ended with `settle` or `release`, exactly once."""

    def __init__(self, tick: Tick, policy: SuspensePolicy = SuspensePolicy.CEILING) -> None:
        self._tick = tick
        self._policy = policy
        self._in_flight = 0

    @property
    def in_flight(self) -> int:
        """Return how many attempts of this process are admitted and not yet ended."""
        return self._in_flight

    async def reserve(self, terms: CallTerms, *, timeout_seconds: float, sure_until: float = math.inf) -> Reservation:
        """Hold the ceiling against every limit above the call's scope and write its attempt, durably.

        Nothing is admitted after `sure_until`, a moment of `time.monotonic()` in seconds.

        Raises:
            PermitLapsedError: `sure_until` came first; nothing is held.
            LimitExceeded: one limit has no room; nothing is held.
            DuplicateRequest, RequestIdReused: the request id is taken; nothing is held.
            StoreUnavailable: no verdict within `timeout_seconds`; whatever was held meanwhile is given back.
        """
        work = ReserveWork(terms=terms, verdict=asyncio.get_running_loop().create_future(), sure_until=sure_until)
        self._tick.submit_reserve(work)
        try:
            reservation = await _verdict(work, timeout_seconds)
        except BaseException:
            # Cancelled in the moment between the admission and its taking; one that is still to come finds nobody.
            if work.is_admitted:
                self._tick.submit_settle(work.verdict.result(), NOT_SENT)
            raise
        self._in_flight += 1
        return reservation

    async def top_up(self, reservation: Reservation, more: Amounts, *, timeout_seconds: float) -> Reservation:
        """Hold `more` for an attempt in flight, on the counters that it has; return it grown, for its settlement.

        Raises:
            LimitExceeded: one limit has no room; the attempt holds what it held.
            StoreUnavailable: no verdict within `timeout_seconds`. What may have been added meanwhile is freed by the
                settlement, whichever of the two reservations it is given.
        """
        work = TopUpWork(reservation=reservation, more=more, verdict=asyncio.get_running_loop().create_future())
        self._tick.submit_top_up(work)
        return await _verdict(work, timeout_seconds)

    async def settle(self, reservation: Reservation, settlement: Settlement) -> datetime:
        """Book how an attempt ended; return, when that is durable, the moment of the booking.

        A cancelled caller stops waiting; the settlement itself goes on.
        """
        self._in_flight -= 1
        return await self._tick.submit_settle(reservation, settlement)

    async def release(self, reservation: Reservation) -> None:
        """End an attempt that was never sent: it costs nothing and frees its holds."""
        await self.settle(reservation, NOT_SENT)

    def suspension(self, reservation: Reservation, cause: str) -> Settlement:
        """Return the settlement of an attempt whose outcome is unknown, booked by this deployment's policy."""
        return suspended(reservation, cause, policy=self._policy)

    async def drain(self) -> None:
        """Wait until every settlement that was asked for is durable."""
        await self._tick.drain()


async def _verdict(work: WaitingWork, timeout_seconds: float) -> Reservation:
    """Wait for the verdict on a work, no longer than its caller can.

    Raises:
        StoreUnavailable: the time is up.
    """
    overdue = StoreUnavailable(detail="no verdict within the deadline")
    timer = asyncio.get_running_loop().call_later(timeout_seconds, work.fail, overdue)
    try:
        return await work.verdict
    finally:
        timer.cancel()


def new_attempt_id() -> UUID:
    """Return a UUIDv7 (RFC 9562): ordered by time, so that the primary keys of the ledger append."""
    return _uuid7(time.time_ns() // 1_000_000, os.urandom(10))


def _uuid7(milliseconds: int, random: bytes) -> UUID:
    value = (milliseconds & (2**48 - 1)) << 80 | int.from_bytes(random, "big")
    value = value & ~(0xF << 76) | 7 << 76
    return UUID(int=value & ~(0x3 << 62) | 2 << 62)
