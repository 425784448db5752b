"""Which calls inside Envoy are asked whether their callers have hung up, and how often."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from tollhouse_server.api.transports.calls_under_way import LOOK_SECONDS, CallsUnderWay, Ending

HALF_A_MINUTE = 30.0


class Caller:
    """Answers as pyvoy does: at once, with what is known of the caller."""

    def __init__(self) -> None:
        self.asked = 0
        self.is_gone = False

    def receive(self) -> "asyncio.Future[dict[str, Any]]":
        self.asked += 1
        told: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        told.set_result({"type": "http.disconnect" if self.is_gone else "http.request"})
        return told


def looks(began_at: float, until_age: float) -> Iterator[float]:
    """Yield the moments at which a call is looked at, up to an age."""
    for number in range(1, round(until_age / LOOK_SECONDS) + 1):
        yield began_at + number * LOOK_SECONDS


async def test_a_long_call_is_asked_about_some_forty_times_in_half_a_minute() -> None:
    caller, calls = Caller(), CallsUnderWay()
    call = calls.begin(caller.receive)
    call.is_read = True

    for now in looks(call.began_at, HALF_A_MINUTE):
        calls.look(now)
        await asyncio.sleep(0)

    assert 30 <= caller.asked <= 45
    assert call.ending is None


@pytest.mark.parametrize("age", [0.0, 0.3, 2.0, 20.0])
async def test_a_hang_up_is_noticed_a_quarter_of_the_calls_age_later_or_a_second(age: float) -> None:
    caller, calls = Caller(), CallsUnderWay()
    call = calls.begin(caller.receive)
    call.is_read = True
    noticed_at = None

    for now in looks(call.began_at, HALF_A_MINUTE):
        caller.is_gone = now - call.began_at > age
        calls.look(now)
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            noticed_at = now - call.began_at
            break

    assert call.ending is Ending.HUNG_UP
    assert noticed_at is not None
    assert noticed_at - age <= min(1.0, max(LOOK_SECONDS, age / 4)) + 2 * LOOK_SECONDS


async def test_a_call_whose_request_is_still_coming_is_not_asked_about() -> None:
    caller, calls = Caller(), CallsUnderWay()
    call = calls.begin(caller.receive)

    calls.look(call.began_at + HALF_A_MINUTE)

    assert caller.asked == 0
