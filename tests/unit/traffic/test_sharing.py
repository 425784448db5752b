"""Two processes that tell each other once a second what they use of an account and want of it, in virtual time."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tollhouse_server.errors import TollhouseError
from tollhouse_server.routing.targets import AccountLimit, AccountMetric
from tollhouse_server.traffic.report_store import HeardReport
from tollhouse_server.traffic.traffic import Traffic

from tests.unit.traffic.calls import account, request
from tests.unit.traffic.virtual_time import now
from tests.unit.traffic.virtual_traffic import hear, in_virtual_time, limit, report_of, traffic_of

A_MINUTE = 600
PLACES = 16
CALL_SECONDS = 0.2


@dataclass(slots=True)
class Process:
    """One process, when its calls began, and how long they had waited."""

    traffic: Traffic
    said: HeardReport | None = None
    begun: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)

    def say(self, name: str) -> None:
        """Report."""
        self.said = report_of(name, self.traffic)

    def hear(self, name: str, other: "Process") -> None:
        """Take note of what the other one has reported."""
        hear(name, self.traffic, *([other.said] if other.said is not None else []))

    async def come(
        self, rate: float, seconds: float, *, department: str = "sales", dice: random.Random | None = None
    ) -> None:
        """Let calls come at a rate, by chance where there are dice, and wait for all of them."""
        async with asyncio.TaskGroup() as group:
            for _ in range(int(rate * seconds)):
                group.create_task(self._call(department))
                await asyncio.sleep(dice.expovariate(rate) if dice else 1 / rate)

    async def _call(self, department: str) -> None:
        asked_at = now()
        try:
            place = await self.traffic.place(request(department=department, deadline=now() + 5))
        except TollhouseError:
            return
        self.begun.append(now())
        self.waited.append(now() - asked_at)
        await asyncio.sleep(CALL_SECONDS)
        place.succeeded(CALL_SECONDS)

    def begun_between(self, begin: float, end: float) -> int:
        """Return how many calls began in a time."""
        return sum(begin <= one < end for one in self.begun)


@asynccontextmanager
async def two(of: AccountLimit, *, gap_seconds: float = 0.5) -> AsyncIterator[tuple[Process, Process]]:
    """Run two processes that share one account; the second reports so long after the first."""
    first, second = Process(traffic_of(account(of))), Process(traffic_of(account(of)))

    async def talk() -> None:
        while True:
            for name, process, other, seconds in (
                ("first", first, second, gap_seconds),
                ("second", second, first, 1.0 - gap_seconds),
            ):
                process.say(name)
                process.hear(name, other)
                await asyncio.sleep(seconds)

    talking = asyncio.get_running_loop().create_task(talk())
    await asyncio.sleep(3)
    yield first, second
    talking.cancel()


@in_virtual_time
async def test_a_process_that_used_all_of_a_minute_gives_room_to_another_within_seconds() -> None:
    """Of what the window passes over both get the same, from the beginning and ever after."""
    async with two(limit(A_MINUTE)) as (first, second):
        began_at = now()
        async with asyncio.TaskGroup() as group:
            group.create_task(first.come(rate=12, seconds=240))
            await asyncio.sleep(90)
            group.create_task(second.come(rate=12, seconds=150))

        joined_at = began_at + 90
        for begin in (5, 35, 65, 95):
            counts = [one.begun_between(joined_at + begin, joined_at + begin + 30) for one in (first, second)]
            assert min(counts) >= 0.75 * max(counts)
        together = sorted(first.begun + second.begun)
        assert all(later - one > 59.0 for one, later in zip(together, together[A_MINUTE:], strict=False))
        assert len(together) >= 0.95 * (A_MINUTE + 180 * A_MINUTE / 60)


@in_virtual_time
async def test_a_department_that_is_paced_does_not_keep_its_process_small() -> None:
    """What a process may have grows only as it uses it; its greedy departments go by what it could have."""
    async with two(limit(2 * A_MINUTE)) as (first, second):
        await first.come(rate=4, seconds=4, department="another")
        await second.come(rate=4, seconds=4, department="another")
        began_at = now()
        async with asyncio.TaskGroup() as group:
            group.create_task(first.come(rate=30, seconds=220))
            await asyncio.sleep(70)
            group.create_task(second.come(rate=30, seconds=150))

        counts = [one.begun_between(began_at + 75, began_at + 105) for one in (first, second)]
        assert counts[1] >= 0.75 * counts[0]
        counts = [one.begun_between(began_at + 135, began_at + 215) for one in (first, second)]
        assert min(counts) >= 0.9 * max(counts)


@in_virtual_time
async def test_a_process_that_tells_most_callers_at_once_to_come_back_gets_its_part() -> None:
    """Though hardly anybody waits in it, and its greedy department leaves a tenth of its share to others."""
    async with two(limit(2 * A_MINUTE), gap_seconds=0.1) as (first, second):
        for process in (first, second):
            await process.come(rate=9, seconds=1, department="quiet")
        dice = random.Random(1)
        await first.come(rate=30, seconds=70, department="quiet", dice=dice)
        began_at = now()
        async with asyncio.TaskGroup() as group:
            group.create_task(first.come(rate=30, seconds=130, department="quiet", dice=dice))
            group.create_task(second.come(rate=30, seconds=130, department="loud", dice=dice))

        counts = [one.begun_between(began_at + 65, began_at + 125) for one in (first, second)]
        assert min(counts) >= 0.8 * max(counts)
        assert sum(counts) >= 0.85 * 2 * A_MINUTE


@in_virtual_time
async def test_places_go_over_to_another_process_as_calls_end() -> None:
    """Who had all of them and would use all of them gives half."""
    async with two(limit(PLACES, AccountMetric.CONCURRENT_CALLS)) as (first, second):
        began_at = now()
        async with asyncio.TaskGroup() as group:
            group.create_task(first.come(rate=200, seconds=40))
            await asyncio.sleep(20)
            group.create_task(second.come(rate=200, seconds=20))

        counts = [one.begun_between(began_at + 25, began_at + 40) for one in (first, second)]
        assert min(counts) >= 0.9 * max(counts)
        assert sum(counts) >= 0.9 * 15 * PLACES / CALL_SECONDS


@in_virtual_time
async def test_places_follow_what_each_process_needs_and_not_what_it_has_at_one_moment() -> None:
    """Three quarters of the calls at one of them: nobody waits for long, though most places are needed."""
    async with two(limit(PLACES, AccountMetric.CONCURRENT_CALLS)) as (first, second):
        dice = random.Random(1)
        async with asyncio.TaskGroup() as group:
            group.create_task(first.come(rate=45, seconds=120, dice=dice))
            group.create_task(second.come(rate=15, seconds=120, dice=dice))

        for process in (first, second):
            waited = sorted(process.waited[100:])
            assert waited[int(len(waited) * 0.9)] < 0.3
