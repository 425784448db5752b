"""Departments that want everything, and those beside them, in virtual time."""

import asyncio

from tollhouse_server.errors import DeadlineTooShort, Overloaded
from tollhouse_server.routing.priorities import Priority
from tollhouse_server.traffic.traffic import Traffic
from tollhouse_server.traffic.usage_window import METRICS

from tests.unit.traffic.calls import MODEL, account, request
from tests.unit.traffic.virtual_time import now
from tests.unit.traffic.virtual_traffic import in_virtual_time, limit, places, traffic_of


async def call(traffic: Traffic, department: str, waits: list[float]) -> None:
    """Make one call of a second, and note how long it had to wait."""
    asked_at = now()
    try:
        place = await traffic.place(request(department=department, deadline=now() + 30))
    except (DeadlineTooShort, Overloaded):
        waits.append(float("inf"))
        return
    waits.append(now() - asked_at)
    await asyncio.sleep(1.0)
    place.succeeded(1.0)


async def load(traffic: Traffic, department: str, every_seconds: float, waits: list[float]) -> None:
    """Make calls for two minutes and a bit."""
    async with asyncio.TaskGroup() as group:
        until = now() + 140
        while now() < until:
            group.create_task(call(traffic, department, waits))
            await asyncio.sleep(every_seconds)


async def waits_of(traffic: Traffic, *, quiet_every_seconds: float = 1.0) -> tuple[list[float], list[float]]:
    """Return the waits of a quiet department, and of one that makes fifty calls a second."""
    quiet: list[float] = []
    loud: list[float] = []
    async with asyncio.TaskGroup() as group:
        group.create_task(load(traffic, "quiet", quiet_every_seconds, quiet))
        group.create_task(load(traffic, "loud", 0.02, loud))
    return quiet, loud


@in_virtual_time
async def test_fifty_times_the_load_on_one_window_does_not_delay_a_quiet_department() -> None:
    """Its quota lasts for the minute, whoever else wants all of it in the first seconds."""
    traffic = traffic_of(account(limit(600)))

    quiet, loud = await waits_of(traffic)

    assert sorted(quiet)[int(len(quiet) * 0.99)] <= 0.1
    assert sum(wait < 60 for wait in loud + quiet) >= 0.85 * 2 * 600


@in_virtual_time
async def test_fifty_times_the_load_on_the_calls_in_flight_does_not_delay_a_quiet_department() -> None:
    """It gets the first place that becomes free."""
    traffic = traffic_of(max_calls=30)

    quiet, loud = await waits_of(traffic)

    assert sorted(quiet)[int(len(quiet) * 0.99)] <= 0.1
    assert sum(wait < 60 for wait in loud) >= 0.9 * 140 * 29


@in_virtual_time
async def test_a_department_that_is_alone_may_take_a_whole_window_at_once() -> None:
    """Quota that nobody else wants is not kept from who wants it."""
    traffic = traffic_of(account(limit(200)))

    await places(traffic, 200)

    assert traffic.buckets.caps("acme", MODEL).window.sums[0] == 200


@in_virtual_time
async def test_departments_that_take_alike_are_not_paced() -> None:
    """Nobody among them takes from the others."""
    traffic = traffic_of(account(limit(200)))

    for _ in range(100):
        for department in ("one", "two"):
            await places(traffic, 1, request(department=department))

    assert now() < 1001


@in_virtual_time
async def test_a_department_gets_what_it_wants_up_to_its_part_however_loud_another_is() -> None:
    """A quarter of a quota that two want, when the first windows have shown who wants how much."""
    traffic = traffic_of(account(limit(600)))

    quiet, _ = await waits_of(traffic, quiet_every_seconds=0.4)

    later = sorted(quiet[len(quiet) // 2 :])
    assert later[int(len(later) * 0.99)] <= 1.0


@in_virtual_time
async def test_who_is_held_back_goes_on_when_it_is_time_though_nothing_else_happens() -> None:
    """The pace is kept by a clock, not by other calls."""
    traffic = traffic_of(account(limit(100)))
    for department in ("one", "two", "three"):
        await places(traffic, 1, request(department=department))
    await places(traffic, 60, request(department="loud"))
    began_at = now()

    await traffic.place(request(department="loud"))

    assert 0.5 <= now() - began_at <= 2


@in_virtual_time
async def test_a_greedy_department_whose_calls_come_a_little_late_gets_no_less_for_it() -> None:
    """Timers fire late, and a busy loop later: a tenth of each pause would be a tenth of all its calls."""
    traffic = traffic_of(account(limit(1200)))
    bucket, amounts = traffic.buckets.bucket("acme", MODEL), [1] * len(METRICS)
    loud, quiet = (Priority.DEFAULT, "acme", "loud"), (Priority.DEFAULT, "acme", "quiet")
    bucket.take(quiet, amounts, now())
    for _ in range(700):
        bucket.take(loud, amounts, now())

    began_at = moment = bucket.pace.until
    taken = 0
    while moment < began_at + 10:
        moment = max(moment, bucket.pace.until) + 0.005
        bucket.take(loud, amounts, moment)
        taken += 1

    assert taken >= 0.98 * 10 * 0.9 * 1200 / 60
