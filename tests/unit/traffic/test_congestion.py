"""An upstream that only says when it is overloaded: what it takes is learned, in virtual time."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from tollhouse_server.errors import TollhouseError
from tollhouse_server.traffic.breakers import Breakers, BreakerSnapshot, State
from tollhouse_server.traffic.bucket_reports import SECTION
from tollhouse_server.traffic.congestion import UNLIMITED, Congestion, Learned
from tollhouse_server.traffic.report_store import HeardReport
from tollhouse_server.traffic.traffic import Traffic
from tollhouse_server.traffic.usage_window import IN_FLIGHT

from tests.unit.traffic import virtual_time
from tests.unit.traffic.calls import MODEL, request
from tests.unit.traffic.virtual_time import now
from tests.unit.traffic.virtual_traffic import hear, in_virtual_time, places, report_of, traffic_of

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

    async def crowd(self, *among: Traffic, rate: float, seconds: float, dice: random.Random | None = None) -> None:
        """Let calls come for so long to these processes, by turns, or by chance where there are dice."""
        async with asyncio.TaskGroup() as group:
            for number in range(int(rate * seconds)):
                group.create_task(self.call(dice.choice(among) if dice else among[number % len(among)]))
                await asyncio.sleep(dice.expovariate(rate) if dice else 1 / rate)


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
async def test_processes_that_talk_all_get_their_part_of_a_few_calls_at_a_time() -> None:
    """One that comes to a single call by chance would stay there: the others take the room that it would need."""
    processes, upstream, limits = [traffic_of() for _ in range(4)], Upstream(capacity=12), list[list[float]]()
    said: dict[int, HeardReport] = {}

    async def talk() -> None:
        while True:
            for number, traffic in enumerate(processes):
                said[number] = report_of(str(number), traffic)
                hear(str(number), traffic, *(report for other, report in said.items() if other != number))
                await asyncio.sleep(1 / len(processes))
            limits.append([one.buckets.bucket("acme", MODEL).congestion.limit for one in processes])

    talking = asyncio.get_running_loop().create_task(talk())
    await upstream.crowd(*processes, rate=200, seconds=120, dice=random.Random(2))
    talking.cancel()

    assert sum(max(one) > 3 * min(one) for one in limits) <= 0.05 * len(limits)
    assert len(upstream.served) >= 0.9 * 120 * 12 / CALL_SECONDS


def test_who_has_no_use_for_more_neither_gives_nor_takes() -> None:
    """Nor does one whom nothing has limited yet."""
    short, content, free = (Learned(limit, demand) for limit, demand in ((2.0, 9), (8.0, 3), (None, 50)))

    limits = []
    for own, others in ((short, [content, free]), (content, [short, free]), (free, [short, content])):
        congestion = Congestion()
        congestion.limit = own.limit or UNLIMITED
        congestion.heard(own, others)
        limits.append(congestion.limit)

    assert limits == [2.0, 8.0, UNLIMITED]


@in_virtual_time
async def test_a_report_says_what_was_learned_and_neither_the_dead_nor_older_servers_are_asked() -> None:
    """Servers of two versions talk to each other while one replaces the other."""
    congestion = (traffic := traffic_of()).buckets.bucket("acme", MODEL).congestion
    congestion.limit = 4.0
    traffic.buckets.bucket("acme", MODEL).demand.waiting[IN_FLIGHT] = 9
    await places(traffic, 1)
    (said,) = (one for one in traffic.bucket_reports.section() if one["model"])
    assert said["takes"] == 4.0
    entry = {"account": "acme", "model": MODEL, "cooling_seconds": 0, "used": {}, "leaving": {}, "peak": 9}
    entry |= {"wanted": {}, "limits": {}, "shares": {}, "learned": {}}

    before, dead, since = (
        HeardReport(process_key="b", age_seconds=age_seconds, sections={SECTION: [one]})
        for one, age_seconds in ((entry, 1.0), (entry | {"takes": 8.0}, 6.0), (entry | {"takes": 8.0}, 1.0))
    )
    for nothing in (before, dead):
        hear("a", traffic, nothing)
        assert congestion.limit == 4.0
    hear("a", traffic, since)
    assert 4.0 < congestion.limit < 8.0


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
