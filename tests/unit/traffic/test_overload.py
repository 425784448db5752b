"""More calls than an upstream takes, for long: who is told so, when, and what for; in virtual time."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from tollhouse_server.errors import DeadlineTooShort, Overloaded, TollhouseError
from tollhouse_server.routing.priorities import Priority
from tollhouse_server.routing.targets import AccountMetric
from tollhouse_server.traffic.terms import PlaceRequest
from tollhouse_server.traffic.traffic import Traffic

from tests.unit.traffic.calls import account, request
from tests.unit.traffic.virtual_time import now
from tests.unit.traffic.virtual_traffic import in_virtual_time, limit, start, traffic_of

PLACES = 4
PATIENCE_SECONDS = 5.0


def narrow() -> Traffic:
    """Traffic to an account that takes four calls at a time."""
    return traffic_of(account(limit(PLACES, AccountMetric.CONCURRENT_CALLS)))


@dataclass(slots=True)
class Crowd:
    """Calls that come at a rate and take `seconds_of_call()` upstream; how each ended, and after how long."""

    traffic: Traffic
    seconds_of_call: Callable[[], float]
    served: list[float] = field(default_factory=list)
    late: int = 0
    refused: list[tuple[TollhouseError, float]] = field(default_factory=list)

    async def come(self, rate: float, seconds: float, *, priority: Priority = Priority.DEFAULT) -> None:
        """Let calls come for so long, and wait for all of them."""
        async with asyncio.TaskGroup() as group:
            for _ in range(int(rate * seconds)):
                deadline = now() + PATIENCE_SECONDS
                group.create_task(self._call(request(priority=priority, deadline=deadline)))
                await asyncio.sleep(1 / rate)

    async def _call(self, wanted: PlaceRequest) -> None:
        began_at = now()
        try:
            place = await self.traffic.place(wanted)
        except TollhouseError as refusal:
            self.refused.append((refusal, now() - began_at))
            return
        seconds = self.seconds_of_call()
        await asyncio.sleep(seconds)
        place.succeeded(seconds)
        self.late += now() > wanted.deadline
        self.served.append(now() - began_at)


@in_virtual_time
async def test_nearly_all_calls_that_wait_to_the_last_moment_are_served_in_time() -> None:
    """Calls do not all take the usual time, and one that ends after its deadline is paid for and not heard."""
    dice = random.Random(4)
    crowd = Crowd(narrow(), lambda: dice.uniform(0.1, 0.9))

    await crowd.come(rate=30, seconds=60)

    assert len(crowd.served) > 400
    assert crowd.late <= 0.03 * len(crowd.served)


@in_virtual_time
async def test_a_call_whose_turn_would_not_come_in_time_is_told_at_once_when_to_come_back() -> None:
    """Ten times what can be served: most are refused when they come, and none of the places stays empty for it."""
    crowd = Crowd(narrow(), lambda: 0.2)

    await crowd.come(rate=200, seconds=30)

    at_once = [refusal for refusal, waited in crowd.refused if waited < 0.01 and isinstance(refusal, Overloaded)]
    assert len(at_once) > 0.8 * len(crowd.refused)
    assert all(2.0 < refusal.retry_after_seconds < 6.0 for refusal in at_once if refusal.retry_after_seconds)
    assert len(crowd.served) >= 0.97 * 20 * 30
    assert crowd.late == 0


@in_virtual_time
async def test_a_quota_that_is_used_as_it_comes_free_is_an_overload_like_any() -> None:
    """There is room every second, and most of those who come will have none of it in time."""
    crowd = Crowd(traffic_of(account(limit(600))), lambda: 0.2)
    await crowd.come(rate=10, seconds=60)
    crowd.refused.clear()

    await crowd.come(rate=100, seconds=30)

    at_once = [waited for _, waited in crowd.refused if waited < 0.01]
    assert len(at_once) > 0.7 * len(crowd.refused)


@in_virtual_time
async def test_who_waits_for_a_quota_that_comes_back_is_not_refused_for_what_was_before() -> None:
    """Nobody was served for half a minute, and then all are."""
    traffic = traffic_of(account(limit(100)))
    for _ in range(100):
        await traffic.place(request())
    waiting = [await start(traffic, request(deadline=now() + 100)) for _ in range(50)]

    await asyncio.sleep(30)
    waiting += [await start(traffic, request(deadline=now() + 100)) for _ in range(20)]

    await asyncio.sleep(40)
    assert all(task.done() and task.exception() is None for task in waiting)


@in_virtual_time
async def test_who_comes_back_when_he_was_told_is_served_without_a_wait() -> None:
    """The delay is what those in front of him need, if nobody else comes."""
    traffic = narrow()
    crowd = Crowd(traffic, lambda: 0.2)
    coming = asyncio.get_running_loop().create_task(crowd.come(rate=200, seconds=20))
    await asyncio.sleep(19.9)
    with pytest.raises(Overloaded) as refused:
        await traffic.place(request(deadline=now() + PATIENCE_SECONDS))
    length, delay_seconds = traffic.queue.length, refused.value.retry_after_seconds
    assert delay_seconds is not None

    await asyncio.sleep(delay_seconds / 2)
    halfway = traffic.queue.length
    await asyncio.sleep(delay_seconds / 2)

    assert 0.3 * length < halfway < 0.7 * length
    assert traffic.queue.length <= PLACES
    await coming


@in_virtual_time
async def test_a_burst_is_not_refused_before_it_is_seen_how_fast_it_is_served() -> None:
    """Many calls at one moment are no overload yet."""
    crowd = Crowd(traffic_of(account(limit(100, AccountMetric.CONCURRENT_CALLS))), lambda: 0.2)

    await crowd.come(rate=2000, seconds=0.5)

    assert len(crowd.served) == 1000
    assert not crowd.refused


@in_virtual_time
async def test_few_may_always_wait() -> None:
    """A line of some calls that each take long moves in steps, which say little of each."""
    traffic = traffic_of(max_calls=1)
    first = await traffic.place(request())
    waiting = [await start(traffic, request(deadline=now() + 100)) for _ in range(10)]

    await asyncio.sleep(20)
    last = await start(traffic, request(deadline=now() + 100))

    assert not last.done()
    for task in (*waiting, last):
        first.release()
        first = await task


@in_virtual_time
async def test_sheddable_calls_give_way_while_others_may_still_wait() -> None:
    """They are refused at once as soon as they would have to wait for half of their time."""
    crowd = Crowd(narrow(), lambda: 0.2)
    sheddable = Crowd(crowd.traffic, lambda: 0.2)

    async with asyncio.TaskGroup() as group:
        group.create_task(crowd.come(rate=20.5, seconds=60))
        group.create_task(sheddable.come(rate=5, seconds=60, priority=Priority.SHEDDABLE))

    told = [refusal for refusal, waited in sheddable.refused if waited < 0.01]
    assert len(sheddable.refused) > 200
    assert len(told) > 0.8 * len(sheddable.refused)
    assert len(crowd.refused) < 0.1 * len(crowd.served)


@in_virtual_time
async def test_one_whose_time_ends_in_the_queue_hears_how_long_those_before_him_need() -> None:
    """Allowing more time is one way, coming back later the other."""
    traffic = narrow()
    holding = [await traffic.place(request()) for _ in range(PLACES)]

    with pytest.raises(DeadlineTooShort) as refused:
        await traffic.place(request(deadline=now() + PATIENCE_SECONDS))

    assert refused.value.retry_after_seconds is not None
    for place in holding:
        place.release()


@in_virtual_time
async def test_an_hour_without_calls_does_not_count_as_slowness() -> None:
    """What the shed are told follows from how fast places come free, not from when there was nothing to do."""
    traffic = traffic_of(max_calls=1, max_waiting=20)
    first = await traffic.place(request())
    for _ in range(3):
        waiting = await start(traffic)
        await asyncio.sleep(0.1)
        first.release()
        first = await waiting
        first.release()
        await asyncio.sleep(3600)
        first = await traffic.place(request())
    tasks = [await start(traffic) for _ in range(21)]

    with pytest.raises(Overloaded) as shed:
        await tasks[-1]

    assert shed.value.retry_after_seconds == pytest.approx(1.0, abs=1.0)
    for task in tasks[:-1]:
        first.release()
        first = await task
