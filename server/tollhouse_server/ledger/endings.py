"""The attempts that end in a tick: holds off, what was used on, one record each; also those that end late."""

from collections.abc import Iterable
from dataclasses import replace
from operator import gt
from typing import TYPE_CHECKING

import structlog

from tollhouse_server.ledger import recovery_store, verdicts
from tollhouse_server.ledger.rows import Booking, holds_of
from tollhouse_server.ledger.store import Look
from tollhouse_server.ledger.terms import RecordKind, Reservation, Settlement
from tollhouse_server.ledger.threshold_store import AboveHold
from tollhouse_server.ledger.works import SettleWork

if TYPE_CHECKING:
    from tollhouse_server.ledger.store import Connection

_log = structlog.get_logger(__name__)


class Endings:
    """Turns settlements into movements of counters and into bookings, which the tick writes."""

    def __init__(self, connection: "Connection", found: Look) -> None:
        self._connection = connection
        self._found = found
        self._ended: set[int] = set()
        self.bookings: list[Booking] = []
        self.above: list[AboveHold] = []

    async def end(self, settles: Iterable[SettleWork]) -> None:
        """End every attempt once, whatever became of it meanwhile."""
        for work in settles:
            attempt_id = work.reservation.terms.attempt_id.int
            if attempt_id in self._ended:
                continue
            self._ended.add(attempt_id)
            if attempt_id in self._found.ended:
                self._end(_as_on_its_row(work.reservation, self._found.ended[attempt_id]), work.settlement)
            else:
                await self._end_late(work.reservation, work.settlement)

    def _end(self, reservation: Reservation, settlement: Settlement) -> None:
        verdicts.settle(reservation.holds, settlement.actual, self._found.counters)
        self.bookings.append(Booking(reservation, settlement))
        if settlement.kind is RecordKind.SETTLED:
            self.above.extend(_above_holds(reservation, settlement))

    async def _end_late(self, reservation: Reservation, settlement: Settlement) -> None:
        """Settle an attempt that is no longer in flight: suspended meanwhile, or booked by a commit in doubt."""
        terms = reservation.terms
        suspended = None
        if settlement.kind is not RecordKind.SUSPENSE:
            suspended = await recovery_store.close_suspense(self._connection, terms, settlement.outcome)
        if suspended is not None:
            difference = settlement.actual.minus(suspended)
            verdicts.correct(reservation.holds, difference, self._found.counters)
            correction = replace(settlement, kind=RecordKind.ADJUSTMENT, actual=difference)
            self.bookings.append(Booking(reservation, correction))
            return
        booked = await recovery_store.find_booking(self._connection, terms)
        if booked is None:
            # No attempt, no record: the row was lost with the database's last moments. The charge is real all the same.
            verdicts.correct(reservation.holds, settlement.actual, self._found.counters)
            self.bookings.append(Booking(reservation, settlement))
        elif booked.ruled_by and settlement.kind is RecordKind.SETTLED:
            # An administrator has ruled what it cost. The ruling stands; he should know that he could know better now.
            _log.error(
                "settled_after_ruling",
                attempt_id=str(terms.attempt_id),
                cost_nanos=settlement.actual.cost_nanos,
                ruled_by=booked.ruled_by,
            )


def _as_on_its_row(reservation: Reservation, holds_text: str | None) -> Reservation:
    """Return the reservation with the holds of its row where a top-up has added to them; the caller may not know."""
    if holds_text is None:
        return reservation
    holds = holds_of(reservation.terms.scope.tenant_id, holds_text)
    return reservation._replace(holds=holds, holds_text=holds_text)


def _above_holds(reservation: Reservation, settlement: Settlement) -> list[AboveHold]:
    actual, attempt_id = settlement.actual, reservation.terms.attempt_id
    # Nearly none is: no hold is smaller than the ceiling in its metric.
    if not any(map(gt, actual, reservation.terms.ceiling)):
        return []
    return [
        AboveHold(key, actual.of(metric), amount, attempt_id)
        for key, metric, amount, _ in reservation.holds
        if actual.of(metric) > amount
    ]
