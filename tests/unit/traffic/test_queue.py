"""Whose turn it is, who is shed, and who is told not to wait, in virtual time."""

import asyncio
from collections import Counter
from collections.abc import Mapping

import pytest
from tollhouse_server.errors import DeadlineTooShort, Overloaded, TargetsUnhealthy, UpstreamExhausted
from tollhouse_server.routing.priorities import Priority
from tollhouse_server.routing.targets import AccountMetric
from tollhouse_server.traffic.breakers import BreakerKey, Breakers, Forced
from tollhouse_server.traffic.buckets import Buckets
from tollhouse_server.traffic.places import Place
from tollhouse_server.traffic.queue import Queue, Waiter, put_back
from tollhouse_server.traffic.traffic import Traffic

from tests.unit.traffic.calls import MODEL, account, request, target
from tests.unit.traffic.virtual_time import now
from tests.unit.traffic.virtual_traffic import in_virtual_time, limit, places, start, traffic_of


@in_virtual_time
async def test_a_call_that_waited_too_long_hears_it_before_its_deadline() -> None:
    """Time is left for the call itself, and nothing stays taken."""
    traffic = traffic_of(account(limit(1, AccountMetric.CONCURRENT_CALLS)))
    first = await traffic.place(request())
    deadline = now() + 10

    with pytest.raises(DeadlineTooShort):
        await traffic.place(request(deadline=deadline))

    assert deadline - 1 < now() < deadline
    first.release()
    assert traffic.in_flight == 0


@in_virtual_time
async def test_a_call_whose_usual_duration_does_not_fit_any_more_is_not_kept_waiting() -> None:
    """What takes four seconds need not begin one second before the deadline."""
    traffic = traffic_of(account(limit(1, AccountMetric.CONCURRENT_CALLS)))
    (await traffic.place(request())).succeeded(4.0)
    await traffic.place(request())
    began_at = now()

    with pytest.raises(DeadlineTooShort):
        await traffic.place(request(deadline=began_at + 10))

    assert 5.9 <= now() - began_at <= 6.1


@in_virtual_time
async def test_when_every_breaker_is_open_past_the_deadline_the_call_is_told_at_once() -> None:
    """Waiting would change nothing."""
    breakers = Breakers(clock=now)
    traffic = traffic_of(breakers=breakers)
    breakers.order({BreakerKey("acme", "", ""): Forced.OPEN})
    began_at = now()

    with pytest.raises(TargetsUnhealthy) as refused:
        await traffic.place(request(deadline=now() + 30))

    assert (refused.value.targets, refused.value.retry_after_seconds) == (1, None)
    assert "An operator's order holds them" in refused.value.message()
    assert now() == pytest.approx(began_at, abs=0.01)


@in_virtual_time
async def test_when_every_account_cools_past_the_deadline_the_call_is_told_when_to_come_back() -> None:
    """The caller's own retry should come when it can work."""
    traffic = traffic_of()
    (await traffic.place(request())).exhausted(100.0, [])

    with pytest.raises(UpstreamExhausted) as refused:
        await traffic.place(request(deadline=now() + 30))

    assert refused.value.retry_after_seconds == pytest.approx(105, abs=6)


@in_virtual_time
async def test_a_full_queue_sheds_the_least_important_and_of_the_most_crowded_department_the_newest() -> None:
    """The quiet and the important are served on."""
    traffic = traffic_of(max_calls=1, max_waiting=4)
    first = await traffic.place(request())
    crowd = [await start(traffic, request(department="crowd", priority=Priority.BATCH)) for _ in range(3)]
    quiet = await start(traffic, request(department="quiet", priority=Priority.BATCH))

    critical = await start(traffic, request(priority=Priority.CRITICAL))

    await asyncio.sleep(0)
    assert [task.done() for task in (*crowd, quiet, critical)] == [False, False, True, False, False]
    with pytest.raises(Overloaded) as shed:
        await crowd[2]
    assert shed.value.priority == "BATCH"
    assert shed.value.retry_after_seconds is not None
    for task in (critical, crowd[0], quiet, crowd[1]):
        first.release()
        first = await task


@in_virtual_time
async def test_sheddable_calls_are_shed_as_soon_as_the_queue_is_half_full() -> None:
    """They are what makes room for the others before it is needed."""
    traffic = traffic_of(max_calls=1, max_waiting=10)
    await traffic.place(request())
    sheddable = [await start(traffic, request(priority=Priority.SHEDDABLE)) for _ in range(5)]
    assert not any(task.done() for task in sheddable)

    for _ in range(5):
        await start(traffic)

    await asyncio.sleep(0)
    assert all(isinstance(task.exception(), Overloaded) for task in sheddable)
    assert traffic.queue.length == 5


async def served_in_order(traffic: Traffic, tasks: Mapping[str, list[asyncio.Task[Place]]], first: Place) -> list[str]:
    """End one call after the other, and return whose turn it was each time."""
    names = {task: name for name, each in tasks.items() for task in each}
    order, place = [], first
    while names:
        place.succeeded(0.1)
        done, _ = await asyncio.wait(names, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 1
        task = done.pop()
        order.append(names.pop(task))
        place = task.result()
    return order


@in_virtual_time
async def test_a_quiet_department_waits_for_one_turn_however_many_of_another_wait() -> None:
    """Fifty times the load must not be fifty times the wait of others."""
    traffic = traffic_of(max_calls=1)
    first = await traffic.place(request())
    loud = [await start(traffic, request(department="loud")) for _ in range(50)]
    quiet = [await start(traffic, request(department="quiet")) for _ in range(2)]

    order = await served_in_order(traffic, {"loud": loud, "quiet": quiet}, first)

    assert order.index("quiet") <= 1
    assert [place for place, name in enumerate(order) if name == "quiet"][1] <= 4


@in_virtual_time
async def test_backlogged_departments_take_turns_by_weight() -> None:
    """Twice the weight is twice the turns, at every moment."""
    traffic = traffic_of(max_calls=1)
    first = await traffic.place(request())
    weights = {"heavy": 2.0, "light": 1.0, "thin": 1.0}
    tasks = {
        name: [await start(traffic, request(department=name, weight=weight)) for _ in range(30)]
        for name, weight in weights.items()
    }

    order = await served_in_order(traffic, tasks, first)

    for end in range(4, 48):
        turns = Counter(order[:end])
        assert abs(turns["heavy"] - end / 2) <= 2
        assert abs(turns["light"] - turns["thin"]) <= 1


@in_virtual_time
async def test_important_calls_go_first_and_the_others_do_not_starve() -> None:
    """One turn in twenty is the others', whatever is asked for above them."""
    traffic = traffic_of(max_calls=1, max_waiting=2000)
    first = await traffic.place(request())
    tasks = {
        priority.name: [await start(traffic, request(priority=priority)) for _ in range(200)] for priority in Priority
    }

    order = await served_in_order(traffic, tasks, first)

    turns = Counter(order[:200])
    assert 186 <= turns["CRITICAL"] <= 192
    assert min(turns[priority.name] for priority in Priority) >= 2


@in_virtual_time
async def test_calls_for_a_full_account_are_in_nobodys_way() -> None:
    """Who waits for one model does not hold up who wants another."""
    traffic = traffic_of(account(limit(1)))
    await traffic.place(request())
    stuck = await start(traffic, request(priority=Priority.CRITICAL))

    place = await traffic.place(request(target(model="another"), priority=Priority.BATCH))

    assert not stuck.done()
    place.release()
    (await stuck).release()


@in_virtual_time
async def test_a_large_call_whose_turn_it_is_is_not_overtaken_for_ever_by_small_ones() -> None:
    """Room that comes in small pieces is kept for who is first."""
    traffic = traffic_of(account(limit(100, AccountMetric.INPUT_TOKENS_PER_MINUTE)))
    await places(traffic, 2, request(input_tokens=40))
    large = await start(traffic, request(input_tokens=90))

    small = await start(traffic, request(target(), target(rank=1), input_tokens=20))

    assert not small.done()
    (await large).succeeded(1.0)
    assert not small.done()
    await small


@in_virtual_time
async def test_room_that_comes_while_a_large_call_waits_is_kept_for_it() -> None:
    """A smaller call of another department sees the same room at the same moment."""
    traffic = traffic_of(account(limit(100, AccountMetric.INPUT_TOKENS_PER_MINUTE)))
    first, second = await places(traffic, 2, request(input_tokens=40))
    large = await start(traffic, request(input_tokens=90))
    small = await start(traffic, request(target(), target(rank=1), input_tokens=30))

    first.succeeded(1.0, input_tokens=20)
    await asyncio.sleep(0)
    assert not large.done()
    assert not small.done()

    second.release()
    await large
    assert not small.done()


@in_virtual_time
async def test_a_more_important_call_that_fits_does_not_wait_behind_a_large_one() -> None:
    """Whose turn it is has changed, so that is looked at again."""
    traffic = traffic_of(account(limit(100, AccountMetric.INPUT_TOKENS_PER_MINUTE)))
    await traffic.place(request(input_tokens=40))
    large = await start(traffic, request(input_tokens=90))

    critical = await start(traffic, request(priority=Priority.CRITICAL, input_tokens=20))

    assert critical.done()
    assert not large.done()


@in_virtual_time
async def test_who_stands_behind_a_large_call_goes_when_its_caller_hangs_up() -> None:
    """Nothing else would wake him before the window moves."""
    traffic = traffic_of(account(limit(100, AccountMetric.INPUT_TOKENS_PER_MINUTE)))
    await traffic.place(request(input_tokens=40))
    large = await start(traffic, request(input_tokens=90))
    small = await start(traffic, request(input_tokens=20))
    assert not small.done()

    large.cancel()
    await asyncio.wait([large])

    await asyncio.sleep(0)
    assert small.done()


@in_virtual_time
async def test_who_stands_behind_a_large_call_goes_when_that_is_shed() -> None:
    """Shedding makes way."""
    limits = limit(100, AccountMetric.INPUT_TOKENS_PER_MINUTE), limit(1, model="full")
    traffic = traffic_of(account(*limits), max_waiting=6)
    await traffic.place(request(input_tokens=40))
    await traffic.place(request(target(model="full")))
    sheddable = Priority.SHEDDABLE
    await start(traffic, request(target(model="full"), department="crowd", priority=sheddable))
    large = await start(traffic, request(input_tokens=90, department="crowd", priority=sheddable))
    small = await start(traffic, request(input_tokens=20, department="quiet", priority=sheddable))
    assert not small.done()

    await start(traffic, request(target(model="full")))

    await asyncio.sleep(0)
    assert isinstance(large.exception(), Overloaded)
    assert small.done()


@in_virtual_time
async def test_a_department_that_was_away_does_not_come_back_with_turns_saved_up() -> None:
    """Else whoever comes first in the morning is kept waiting by whoever comes later."""
    traffic = traffic_of(max_calls=1)
    first = await traffic.place(request())
    for _ in range(20):
        waiting = await start(traffic, request(department="early"))
        first.release()
        first = await waiting
    tasks = {name: [await start(traffic, request(department=name)) for _ in range(10)] for name in ("early", "late")}

    order = await served_in_order(traffic, tasks, first)

    assert Counter(order[:10])["early"] >= 4


def test_a_turn_taken_in_one_group_counts_in_the_others() -> None:
    """A department with calls for many models does not get a turn for each."""
    queue, bucket = Queue(), Buckets().bucket("acme", MODEL)
    order = []
    for number, (department, model) in enumerate([("loud", "a"), ("loud", "b"), ("quiet", "c")]):
        waiter = Waiter(request(department=department), [1] * 6, None, enqueued_at=0.0, gives_up_at=number + 1.0)
        queue.add(waiter, ((0, "acme", "", model),), lambda: [bucket])
    turns = queue.order()

    while (first := queue.next(turns)) is not None:
        queue.grant(first, is_owed=False)
        put_back(turns, first.group)
        order.append(first.request.department_id)

    assert order == ["loud", "quiet", "loud"]
