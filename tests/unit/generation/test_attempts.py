"""How an attempt ends in the ledger."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from tollhouse_server.generation.attempts import Attempt
from tollhouse_server.ledger.terms import RecordKind, Reservation, Settlement, suspended
from tollhouse_server.upstream.protocol import Broken, Refused, UpstreamError

from tests.drivers.ledger import terms


@dataclass
class Bookings:
    """A ledger that keeps what is booked."""

    booked: list[Settlement] = field(default_factory=list)

    def suspension(self, reservation: Reservation, cause: str) -> Settlement:
        """Book the worst case."""
        return suspended(reservation, cause)

    async def settle(self, _: Reservation, settlement: Settlement) -> datetime:
        """Keep it."""
        self.booked.append(settlement)
        return datetime.now(UTC)


class UnspeakableError(Broken):
    """An error of which nothing can be noted."""

    def __str__(self) -> str:
        raise ZeroDivisionError


async def _booked(error: UpstreamError, raised: type[BaseException]) -> tuple[RecordKind, str]:
    bookings = Bookings()
    attempt = Attempt(bookings, Reservation(terms(), (), "[]", datetime.now(UTC), 1))  # type: ignore[arg-type]
    with pytest.raises(raised):
        async with attempt:
            raise error
    [booked] = bookings.booked
    return booked.kind, booked.outcome


async def test_what_an_upstream_says_is_booked() -> None:
    """An error status costs nothing, an exchange that broke may have."""
    assert await _booked(Refused(429, {}), Refused) == (RecordKind.REFUSED, "HTTP_429")
    assert await _booked(Broken("ended"), Broken) == (RecordKind.SUSPENSE, "BROKEN:ended")


async def test_an_attempt_of_which_nothing_can_be_noted_is_booked_all_the_same() -> None:
    """Its hold would stay for as long as the process lives; the defect is raised, too."""
    assert await _booked(UnspeakableError(), ZeroDivisionError) == (RecordKind.SUSPENSE, "INTERRUPTED")
