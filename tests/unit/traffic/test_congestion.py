"""An upstream that only says when it is overloaded: what it takes is learned, in virtual time."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from tollhouse_server.errors import TollhouseError
from tollhouse_server.traffic.breakers import Breakers, BreakerSnapshot, State
from tollhouse_server.traffic.congestion import UNLIMITED, Congestion
from tollhouse_server.traffic.traffic import Traffic

from tests.unit.traffic import virtual_time
from tests.unit.traffic.calls import MODEL, request
from tests.unit.traffic.virtual_time import now
from tests.unit.traffic.virtual_traffic import in_virtual_time, traffic_of

CALL_SECONDS = 0.2
REFUSAL_SECONDS = 0.005


@dataclass(slots=True)
class Upstream:
    """Takes so many calls at a time and refuses the others at once, with 503 or with a 429 that says nothing else."""

    capacity: int
    has_429: bool = False
    running: int = 0
    most: int = 0
    served: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    lost: int = 0

    async def call(self, traffic: Traffic, *, goes_first: bool = False) -> None:
        """Make a call, and make it again as long as it is refused and has the time."""
        try:
            place = await traffic.place(request(deadline=now() + 5, goes_first=goes_first))
        except TollhouseError:
            self.lost += 1
            return
        self.most = max(self.most, self.running)
        if self.running < self.capacity:
            self.running += 1
            await asyncio.sleep(CALL_SECONDS)
            self.running -= 1
            self.served.append(now())
            place.succeeded(CALL_SECONDS)
            return
        await asyncio.sleep(REFUSAL_SECONDS)
        self.refused.append(now())
        if self.has_429:
            place.exhausted(None, [])
        else:
            place.overloaded()
        await self.call(traffic, goes_first=True)

    async def crowd(self, *among: Traffic, rate: float, seconds: float) -> None:
        """Let calls come for so long, by turns to each of these processes."""
        async with asyncio.TaskGroup() as group:
            for number in range(int(rate * seconds)):
                group.create_task(self.call(among[number % len(among)]))
                await asyncio.sleep(1 / rate)


def since(moments: Sequence[float], moment: float) -> int:
    """Return how many of them came later."""
    return sum(one > moment for one in moments)


@pytest.mark.parametrize("has_429", [False, True])
def test_ten_times_what_an_upstream_takes_leaves_it_busy(has_429: bool) -> None:
    """Its refusals are few, and no breaker opens for them."""
    possible = 10 * 8 / CALL_SECONDS

    async def overload() -> tuple[Upstream, list[BreakerSnapshot]]:
        breakers, upstream = Breakers(clock=now), Upstream(capacity=8, has_429=has_429)
        await upstream.crowd(traffic_of(breakers=breakers), rate=possible, seconds=10)
        return upstream, breakers.snapshot()

    upstream, seen = virtual_time.run(overload())

    assert len(upstream.served) >= 0.9 * possible
    assert len(upstream.refused) <= 0.1 * len(upstream.served)
    # The first refusal came before anything was served, so that nobody knew better.
    assert [(one.state, one.failures <= 1) for one in seen] == [(State.CLOSED, True)]


@in_virtual_time
async def test_processes_that_share_an_upstream_come_to_equal_numbers() -> None:
    """Without a word between them, and wherever they began."""
    first, second = traffic_of(), traffic_of()
    upstream = Upstream(capacity=16)
    await upstream.crowd(first, rate=200, seconds=10)

    await upstream.crowd(first, second, rate=400, seconds=60)

    ended_at = now()
    limits = [one.buckets.bucket("acme", MODEL).congestion.limit for one in (first, second)]
    assert max(limits) <= 1.6 * min(limits)
    assert since(upstream.served, ended_at - 30) >= 0.9 * 30 * 16 / CALL_SECONDS


@in_virtual_time
async def test_what_is_refused_of_a_burst_says_at_once_how_much_is_taken() -> None:
    """The next calls need not find it out again."""
    traffic, upstream = traffic_of(), Upstream(capacity=16)
    await upstream.call(traffic)

    await upstream.crowd(traffic, rate=1e6, seconds=160e-6)

    assert upstream.lost == 0
    assert len(upstream.refused) <= 160


@in_virtual_time
async def test_an_upstream_that_takes_more_again_gets_more_soon() -> None:
    """The longer nothing was refused, the faster."""
    traffic, upstream = traffic_of(), Upstream(capacity=2)
    await upstream.crowd(traffic, rate=100, seconds=20)
    upstream.capacity = 40

    changed_at = now()
    await upstream.crowd(traffic, rate=400, seconds=40)

    assert since(upstream.served, changed_at + 20) >= 0.9 * 20 * 40 / CALL_SECONDS


@in_virtual_time
async def test_an_upstream_that_serves_nothing_is_down_and_not_overloaded() -> None:
    """Its breaker opens after a few refusals, however busy it was before."""
    breakers = Breakers(clock=now)
    traffic, upstream = traffic_of(breakers=breakers), Upstream(capacity=100)
    await upstream.crowd(traffic, rate=50, seconds=10)
    upstream.capacity = 0

    await upstream.crowd(traffic, rate=50, seconds=2)

    assert breakers.snapshot()[0].state is State.OPEN
    assert len(upstream.refused) <= 30


def test_what_was_learned_is_forgotten_when_nothing_was_refused_for_long() -> None:
    """A limit that nobody reaches does not stay for ever."""
    congestion = Congestion()
    congestion.refused(others=8, begun_at=0.0, now=1.0)
    assert congestion.limit < 8

    congestion.served(others=1, begun_at=700.0, now=701.0)

    assert congestion.limit == UNLIMITED
