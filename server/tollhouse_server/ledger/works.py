"""What queues for a tick: a reservation that asks to be admitted, or an attempt that has ended."""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime

from tollhouse_server.ledger.terms import CallTerms, Reservation, Settlement


@dataclass(slots=True, eq=False)
class ReserveWork:
    """A call waiting for its verdict.

    `abandoned`: its caller has gone, so an admission must be given back. `uncertain`: a commit that carried it may
    or may not have happened.
    """

    terms: CallTerms
    verdict: asyncio.Future[Reservation]
    abandoned: bool = False
    uncertain: bool = False

    def admit(self, reservation: Reservation) -> None:
        """Hand the reservation to the caller, if he is still there."""
        if not self.verdict.done():
            self.verdict.set_result(reservation)

    def fail(self, error: BaseException) -> None:
        """Tell the caller why he is not admitted; nothing is held."""
        if not self.verdict.done():
            self.verdict.set_exception(error)


@dataclass(slots=True, eq=False)
class SettleWork:
    """An attempt that has ended; it stays in the queue until its booking is durable."""

    reservation: Reservation
    settlement: Settlement
    booked: asyncio.Future[datetime]

    def finish(self, settled_at: datetime) -> None:
        """Say that the booking is durable, and when it was made by the database's clock."""
        if not self.booked.done():
            self.booked.set_result(settled_at)

    def fail(self, error: BaseException) -> None:
        """Say that the booking is impossible: a defect, never an outage."""
        if not self.booked.done():
            self.booked.set_exception(error)


@dataclass(slots=True)
class Batch:
    """All that goes into one tick."""

    reserves: list[ReserveWork] = field(default_factory=list)
    settles: list[SettleWork] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.reserves) + len(self.settles)

    def singles(self) -> list["Batch"]:
        """Return a batch for each work, in order: the way to find the one that spoils the tick."""
        return [Batch(settles=[work]) for work in self.settles] + [Batch(reserves=[work]) for work in self.reserves]
