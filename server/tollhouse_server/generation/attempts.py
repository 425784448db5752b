"""One upstream attempt in the ledger: reserved before the first byte, ended exactly once, whatever happens."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import orjson

from tollhouse_server.access.permit import UNLIMITED, Permit
from tollhouse_server.errors import LimitExceeded
from tollhouse_server.generation.noting import settle_step
from tollhouse_server.ledger.ledger import Ledger
from tollhouse_server.ledger.terms import NOT_SENT, NOTHING, Amounts, CallTerms, RecordKind, Reservation, Settlement
from tollhouse_server.ledger.works import PermitLapsedError
from tollhouse_server.pricing.price import Priced
from tollhouse_server.pricing.usage import Usage
from tollhouse_server.telemetry.steps import step
from tollhouse_server.upstream.protocol import Broken, NotSent, Refused


@dataclass(slots=True)
class Attempt:
    """An admitted attempt, which is in flight in its block: it is booked, durably, when that is left, however it is.

    `settled_at` is the moment of its booking, by the database's clock.
    """

    ledger: Ledger
    reservation: Reservation
    settlement: Settlement | None = None
    settled_at: datetime | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._failed(error)
        finally:
            # Also where the note cannot be taken: what is held would be in flight for as long as this process lives.
            await self.book()

    def _failed(self, error: BaseException | None) -> None:
        """Note what an error says of the outcome."""
        if isinstance(error, NotSent):
            self.settlement = NOT_SENT
        elif isinstance(error, Refused):
            self.refused(f"HTTP_{error.http_status}")
        elif isinstance(error, Broken):
            self.unknown(f"BROKEN:{error}"[:100])

    async def book(self) -> None:
        """Book how it ended, once; durable when this returns."""
        # Without a note of how it ended: cancelled by a shutdown, or a defect between sending and settling.
        settlement = self.settlement = self.settlement or self.ledger.suspension(self.reservation, "INTERRUPTED")
        with settle_step(self.reservation, settlement):
            self.settled_at = await self.ledger.settle(self.reservation, settlement)

    @property
    def attempt_id(self) -> UUID:
        """Return the id that also travels upstream."""
        return self.reservation.terms.attempt_id

    @property
    def held_nanos(self) -> int:
        """Return the money that is held for it now."""
        return self.reservation.terms.ceiling.cost_nanos

    @property
    def suspense_nanos(self) -> int:
        """Return the money at which it would be booked now if its outcome stayed unknown."""
        return self.ledger.suspension(self.reservation, "").actual.cost_nanos

    async def top_up(self, more: Amounts, *, timeout_seconds: float) -> None:
        """Hold more on the same counters, all or nothing.

        Raises:
            LimitExceeded, StoreUnavailable: see `Ledger.top_up`; what was held before is held on.
        """
        self.reservation = await self.ledger.top_up(self.reservation, more, timeout_seconds=timeout_seconds)

    def served(self, usage: Usage, priced: Priced, response_id: str, *, outcome: str = "SERVED") -> None:
        """Note that the call was served: it is settled at what it really used."""
        self.settlement = Settlement(
            kind=RecordKind.SETTLED,
            actual=Amounts(
                requests=1,
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                images=usage.images,
                cost_nanos=priced.cost_nanos,
            ),
            outcome=outcome,
            # What pricing noticed starts from what was noticed of the usage.
            usage=orjson.dumps(usage if priced.flags == usage.flags else replace(usage, flags=priced.flags)).decode(),
            lines=orjson.dumps(priced.lines).decode(),
            response_id=response_id,
        )

    def refused(self, outcome: str) -> None:
        """Note that the attempt is known to have cost nothing."""
        self.settlement = Settlement(kind=RecordKind.REFUSED, actual=NOTHING, outcome=outcome)

    def unknown(self, outcome: str) -> None:
        """Note that the attempt may have been charged: it goes to suspense."""
        self.settlement = self.ledger.suspension(self.reservation, outcome)


def _unnoted(_: CallTerms) -> None:
    """Keep no note of a refusal."""


@dataclass(frozen=True, slots=True)
class Attempts:
    """Opens attempts; knows the ledger, so that nobody else in this room has to."""

    ledger: Ledger
    note_refused: Callable[[CallTerms], None] = _unnoted
    """Told of every call that a limit has refused; must not wait."""

    async def open(self, terms: CallTerms, *, timeout_seconds: float, permit: Permit = UNLIMITED) -> Attempt:
        """Reserve, and return the attempt, which may be sent in its block and is booked at the end of it.

        Raises:
            LimitExceeded, DuplicateRequest, RequestIdReused, StoreUnavailable: see `Ledger.reserve`.
            CredentialsInvalid, PermissionDenied: the call may not be made any more; nothing is held.
        """
        with step("reserve"):
            reservation, sure_until = await self._reserve(terms, time.monotonic() + timeout_seconds, permit)
        attempt = Attempt(self.ledger, reservation)
        if time.monotonic() > sure_until:
            await _confirm(attempt, permit)
        return attempt

    async def _reserve(self, terms: CallTerms, until: float, permit: Permit) -> tuple[Reservation, float]:
        """Reserve while the call is known to be permitted; return besides until when it is."""
        while True:
            sure_until = await permit.sure_until()
            timeout_seconds = until - time.monotonic()
            try:
                reservation = await self.ledger.reserve(terms, timeout_seconds=timeout_seconds, sure_until=sure_until)
            except PermitLapsedError:
                continue
            except LimitExceeded:
                self.note_refused(terms)
                raise
            return reservation, sure_until


async def _confirm(attempt: Attempt, permit: Permit) -> None:
    """Ask once more for a permit that has lapsed while the ledger admitted the attempt, which is sent next.

    Raises:
        TollhouseError: there is none any more; the attempt was not sent.
    """
    try:
        await permit.sure_until()
    except BaseException:
        attempt.settlement = NOT_SENT
        await attempt.book()
        raise


def response_id_of(body: Mapping[str, Any]) -> str:
    """Return Gemini's id of an answer, empty where it gave none."""
    found = body.get("responseId")
    return found if isinstance(found, str) else ""
