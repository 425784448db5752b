"""What queues for a tick: a call that asks to be admitted, one in flight that asks for more, one that has ended."""

import asyncio
import math
from dataclasses import dataclass, field
from datetime import datetime

from tollhouse_server.ledger.terms import Amounts, CallTerms, Reservation, Settlement


class PermitLapsedError(Exception):
    """It is not certain any more that the call may be made: its process stood still, or the database did."""


@dataclass(slots=True, eq=False)
class WaitingWork:
    """A work that waits for its verdict. Whoever stops waiting makes `verdict` done: by cancelling it, or by `fail`."""

    verdict: asyncio.Future[Reservation]

    @property
    def is_waited_for(self) -> bool:
        """Tell whether the caller is still there and has heard nothing."""
        return not self.verdict.done()

    @property
    def is_admitted(self) -> bool:
        """Tell whether an admission was handed over, whether or not the caller is still there to take it."""
        verdict = self.verdict
        return verdict.done() and not verdict.cancelled() and verdict.exception() is None

    def admit(self, reservation: Reservation) -> bool:
        """Hand the reservation to the caller; False if he has gone."""
        if self.verdict.done():
            return False
        self.verdict.set_result(reservation)
        return True

    def fail(self, error: BaseException) -> None:
        """Tell the caller why there is no reservation for him."""
        if not self.verdict.done():
            self.verdict.set_exception(error)


@dataclass(slots=True, eq=False, kw_only=True)
class ReserveWork(WaitingWork):
    """A call that asks to be admitted. `uncertain`: a commit that carried it was asked for, and may have happened.

    It may be admitted until `sure_until`, a moment of `time.monotonic()`: after it, who may call must be asked anew.
    """

    terms: CallTerms
    uncertain: bool = False
    sure_until: float = math.inf

    def may_be_admitted(self, now: float) -> bool:
        """Tell whether the caller is still there and known to be permitted; tell him if he is not.

        Of one that may be admitted already it is too late to ask: its attempt is asked for once more before it is sent.
        """
        if now > self.sure_until and not self.uncertain:
            self.fail(PermitLapsedError())
        return self.is_waited_for


@dataclass(slots=True, eq=False, kw_only=True)
class TopUpWork(WaitingWork):
    """An attempt in flight that needs `more` than it holds.

    A caller who has gone loses nothing: what was added is on the attempt's row, and the settlement finds it there.
    """

    reservation: Reservation
    more: Amounts


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
        """Say that the booking is impossible, with its texts, without them, and in suspense: a defect."""
        if not self.booked.done():
            self.booked.set_exception(error)


@dataclass(slots=True)
class Batch:
    """All that goes into one tick."""

    reserves: list[ReserveWork] = field(default_factory=list)
    top_ups: list[TopUpWork] = field(default_factory=list)
    settles: list[SettleWork] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.reserves) + len(self.top_ups) + len(self.settles)

    def take(self, most: int) -> "Batch":
        """Take up to `most` works out, what frees room first."""
        settles, self.settles = self.settles[:most], self.settles[most:]
        room = most - len(settles)
        top_ups, self.top_ups = self.top_ups[:room], self.top_ups[room:]
        room -= len(top_ups)
        reserves, self.reserves = self.reserves[:room], self.reserves[room:]
        return Batch(
            reserves=[work for work in reserves if work.is_waited_for or (work.uncertain and not work.is_admitted)],
            top_ups=[work for work in top_ups if work.is_waited_for],
            settles=settles,
        )

    def put_back(self, batch: "Batch") -> None:
        """Queue a batch again, ahead of the rest."""
        self.reserves[:0] = batch.reserves
        self.top_ups[:0] = batch.top_ups
        self.settles[:0] = batch.settles

    def singles(self) -> list["Batch"]:
        """Return a batch for each work, in order: the way to find the one that spoils the tick."""
        return [
            *(Batch(settles=[work]) for work in self.settles),
            *(Batch(top_ups=[work]) for work in self.top_ups),
            *(Batch(reserves=[work]) for work in self.reserves),
        ]
