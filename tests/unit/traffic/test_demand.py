"""What a process wants of a bucket, besides what it uses."""

import asyncio

import pytest
from tollhouse_server.errors import DeadlineTooShort
from tollhouse_server.traffic.demand import Demand
from tollhouse_server.traffic.usage_window import DAY, IN_FLIGHT, METRICS, REQUESTS, SPEND, TOKENS

from tests.unit.traffic.calls import MODEL, account, request
from tests.unit.traffic.virtual_time import now
from tests.unit.traffic.virtual_traffic import in_virtual_time, limit, places, start, traffic_of

CALL_SECONDS = 2.0


def test_those_turned_away_count_as_many_as_in_a_minute() -> None:
    """Ten calls a second, each of 7 tokens and 100 nano-dollars, want what they would use in a minute."""
    demand, call = Demand(), [1] * len(METRICS)
    call[TOKENS], call[SPEND] = 7, 100
    demand.waiting = list(call)

    for second in range(61):
        demand.pass_time(float(second))
        for _ in range(10):
            demand.turn_away(call)

    wanted = demand.amounts(CALL_SECONDS)
    assert wanted[REQUESTS] == pytest.approx(1 + 10 * 60, rel=0.01)
    assert wanted[TOKENS] == pytest.approx(7 + 70 * 60, rel=0.01)
    assert wanted[SPEND] == pytest.approx(100 + 1000 * 60, rel=0.01)
    assert wanted[DAY] == pytest.approx(1 + 10 * 60, rel=0.01)
    assert wanted[IN_FLIGHT] == pytest.approx(1 + 10 * CALL_SECONDS, abs=1)
    assert demand.amounts(0.0)[IN_FLIGHT] == pytest.approx(1 + 10, abs=1)

    for second in range(61, 361):
        demand.pass_time(float(second))
    assert demand.amounts(CALL_SECONDS) == call


@in_virtual_time
async def test_who_leaves_the_queue_without_a_place_is_counted_and_who_gets_one_is_not() -> None:
    """Whether he hung up or his time was over."""
    traffic = traffic_of(account(limit(10)))
    bucket = traffic.buckets.bucket("acme", MODEL)
    await places(traffic, 10)
    hangs_up, is_late = await start(traffic), await start(traffic, request(deadline=now() + 2))
    bucket.demand.pass_time(now())
    assert bucket.wanted[REQUESTS] == 2

    hangs_up.cancel()
    with pytest.raises(DeadlineTooShort):
        await is_late
    bucket.demand.pass_time(now())

    assert bucket.demand.waiting[REQUESTS] == 0
    assert bucket.wanted[REQUESTS] > 0
    for _ in range(300):
        await asyncio.sleep(1)
        bucket.demand.pass_time(now())
    await places(traffic, 10)
    served = await start(traffic)
    bucket.demand.pass_time(now())
    assert bucket.wanted[REQUESTS] == 1
    while not served.done():
        await asyncio.sleep(1)
        bucket.demand.pass_time(now())
    assert bucket.wanted[REQUESTS] == 0
