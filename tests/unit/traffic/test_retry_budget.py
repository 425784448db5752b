"""The retry budget: in no minute more than a tenth of the calls, but for a few that are free."""

import asyncio
from dataclasses import dataclass, field

import hypothesis.strategies as st
from hypothesis import given
from tollhouse_server.traffic.retry_budget import RetryBudget

from tests.unit.traffic.virtual_time import now
from tests.unit.traffic.virtual_traffic import in_virtual_time


@dataclass
class Bench:
    """A budget whose time stands still until a test moves it, and the refusals that it told."""

    free_attempts: int = 0
    now: float = 1000.0
    refused: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.budget = RetryBudget(
            free_attempts=self.free_attempts,
            on_refusal=lambda: self.refused.append(self.now),
            clock=lambda: self.now,
        )

    def calls(self, count: int) -> None:
        for _ in range(count):
            self.budget.note_call()


def test_the_free_attempts_are_all_there_is_without_calls() -> None:
    """A server that has just started may retry a little, and says when it may not."""
    bench = Bench(free_attempts=3)

    granted = [bench.budget.may_retry() for _ in range(5)]

    assert granted == [True, True, True, False, False]
    assert len(bench.refused) == 2


def test_ten_calls_pay_for_one_retry_exactly() -> None:
    """Tenths add up."""
    bench = Bench()
    bench.calls(9)
    before = bench.budget.may_retry()

    bench.calls(1)

    assert (before, bench.budget.may_retry(), bench.budget.may_retry()) == (False, True, False)


def test_a_minute_of_good_health_pays_for_a_target_that_dies() -> None:
    """What a whole minute allows may be used at once, for a dead target fails many calls at once; then no more."""
    bench = Bench()
    for _ in range(60):
        bench.calls(50)
        bench.now += 1.0

    granted = sum(bench.budget.may_retry() for _ in range(400))

    assert 290 <= granted <= 300


def test_what_is_older_than_a_minute_counts_for_nothing() -> None:
    """Neither calls nor attempts."""
    bench = Bench(free_attempts=1)
    bench.calls(100)
    bench.budget.may_retry()
    bench.now += 61.0

    assert bench.budget.attempts_left == 1.0


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 40), st.sampled_from([0.0, 0.5, 7.0])), max_size=50))
def test_no_minute_has_more_retries_than_a_tenth_and_the_free_ones(bursts: list[tuple[int, int, float]]) -> None:
    """However calls and retries alternate, at each retry the minute behind it has paid for it."""
    bench = Bench(free_attempts=2)
    calls: list[float] = []
    retries: list[float] = []
    for count, wanted, pause in bursts:
        bench.calls(count)
        calls += [bench.now] * count
        granted = sum(bench.budget.may_retry() for _ in range(wanted))
        retries += [bench.now] * granted
        since = bench.now - 59.0

        assert not granted or sum(at > since for at in retries) <= 2 + sum(at > since - 1.0 for at in calls) / 10
        bench.now += pause


@in_virtual_time
async def test_a_call_waits_for_its_turn_and_the_first_comes_first() -> None:
    """Each ten further calls pay for one of those that wait."""
    budget, order = RetryBudget(free_attempts=0, clock=now), list[int]()
    for _ in range(9):
        budget.note_call()

    async def retry(number: int) -> None:
        assert await budget.turn(within_seconds=30.0)
        order.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(retry(number))
        for expected in ([0], [0, 1], [0, 1, 2]):
            await asyncio.sleep(1.0)
            for _ in range(10):
                budget.note_call()
            await asyncio.sleep(0.01)
            assert order == expected


@in_virtual_time
async def test_a_call_is_told_at_once_that_its_turn_will_not_come_in_time() -> None:
    """At one call a second the next attempt is ten seconds away; nobody with five waits for it."""
    refused: list[float] = []
    budget = RetryBudget(free_attempts=0, on_refusal=lambda: refused.append(now()), clock=now)
    for _ in range(9):
        budget.note_call()
        await asyncio.sleep(1.0)
    assert budget.may_retry() is False
    began_at = now()

    granted = await budget.turn(within_seconds=0.5)

    assert (granted, now() - began_at) == (False, 0.0)
    assert len(refused) == 2


@in_virtual_time
async def test_who_has_given_up_takes_nobodys_turn() -> None:
    """Time that is up, and a call that is cancelled, leave the attempt to the next."""
    budget = RetryBudget(free_attempts=0, clock=now)
    for _ in range(9):
        budget.note_call()
    hasty = asyncio.create_task(budget.turn(within_seconds=2.0))
    cancelled = asyncio.create_task(budget.turn(within_seconds=30.0))
    patient = asyncio.create_task(budget.turn(within_seconds=60.0))
    await asyncio.sleep(3.0)
    cancelled.cancel()
    await asyncio.sleep(0)

    for _ in range(2):
        budget.note_call()
    await asyncio.sleep(0.01)

    assert (await hasty, patient.done()) == (False, True)
    assert await patient
