"""Who gets a place at which target, and when, in virtual time."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from functools import wraps
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from tollhouse_server.errors import DeadlineTooShort, Overloaded, TargetsUnhealthy, UpstreamExhausted
from tollhouse_server.routing.priorities import Priority
from tollhouse_server.routing.targets import Account, AccountLimit, AccountMetric, Target
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.traffic.breakers import BreakerKey, Breakers, Forced
from tollhouse_server.traffic.places import Place
from tollhouse_server.traffic.terms import PlaceRequest
from tollhouse_server.traffic.traffic import Traffic
from tollhouse_server.traffic.verdicts import Verdict

from tests.unit.traffic import virtual_time
from tests.unit.traffic.calls import MODEL, account, request, target
from tests.unit.traffic.virtual_time import now

Test = Callable[[], Coroutine[Any, Any, None]]
A_MINUTE = AccountMetric.REQUESTS_PER_MINUTE


def in_virtual_time(test: Test) -> Callable[[], None]:
    """Run a test on a loop whose clock jumps."""

    @wraps(test)
    def run() -> None:
        virtual_time.run(test())

    del run.__wrapped__
    return run


def traffic_of(
    *accounts: Account,
    max_calls: int = 512,
    max_waiting: int = 1000,
    weights: Mapping[tuple[str, str], float] | None = None,
    breakers: Breakers | None = None,
) -> Traffic:
    return Traffic(
        accounts=accounts or [account()],
        breakers=breakers or Breakers(clock=now),
        metrics=Metrics(CollectorRegistry()),
        max_calls=max_calls,
        max_waiting=max_waiting,
        weights=weights,
        clock=now,
    )


def limit(amount: int, metric: AccountMetric = A_MINUTE, model: str = MODEL) -> AccountLimit:
    return AccountLimit(metric=metric, amount=amount, model=model)


async def places(traffic: Traffic, count: int, wanted: PlaceRequest | None = None) -> list[Place]:
    return [await traffic.place(wanted or request()) for _ in range(count)]


async def start(traffic: Traffic, wanted: PlaceRequest | None = None) -> asyncio.Task[Place]:
    """Let a call ask for a place, and wait where there is none."""
    task = asyncio.get_running_loop().create_task(traffic.place(wanted or request()))
    await asyncio.sleep(0)
    return task


def open_breaker(breakers: Breakers, account_id: str = "acme") -> None:
    key = BreakerKey(account_id, "", MODEL)
    for _ in range(5):
        breakers.begin(key)
        breakers.record(key, Verdict.FAILURE, 0.0)


# --- choosing ---


@in_virtual_time
async def test_calls_spread_over_accounts_by_weight() -> None:
    """No herd on one account."""
    traffic = traffic_of(account(account_id="a"), account(account_id="b"))
    targets = target("a", weight=3), target("b", weight=1)

    taken = Counter(place.target.account_id for place in await places(traffic, 400, request(*targets)))

    assert 240 <= taken["a"] <= 350


@in_virtual_time
async def test_the_account_with_more_head_room_gets_more() -> None:
    """An account that is nearly full is left for those who have no other."""
    traffic = traffic_of(account(limit(1000), account_id="a"), account(limit(1000), account_id="b"), max_calls=2000)
    await places(traffic, 900, request(target("a")))

    taken = Counter(p.target.account_id for p in await places(traffic, 100, request(target("a"), target("b"))))

    assert taken["a"] <= 30


@in_virtual_time
async def test_a_further_rank_is_used_only_when_no_target_of_the_lower_has_room() -> None:
    """Ranks are preference, weights are shares."""
    traffic = traffic_of(account(limit(3), account_id="a"), account(account_id="b"))
    wanted = request(target("a"), target("b", rank=1))

    taken = [place.target.account_id for place in await places(traffic, 5, wanted)]

    assert taken == ["a", "a", "a", "b", "b"]


@in_virtual_time
async def test_an_account_without_limits_takes_all() -> None:
    """No configured limits and nothing learned is unlimited."""
    traffic = traffic_of(max_calls=10_000)

    assert len(await places(traffic, 5000)) == 5000


@in_virtual_time
async def test_a_limit_over_all_models_counts_every_model() -> None:
    """An empty model in a limit means all of them together."""
    traffic = traffic_of(account(limit(4, model="")))
    await places(traffic, 2, request(target(model="a")))
    await places(traffic, 2, request(target(model="b")))

    waiting = await start(traffic, request(target(model="c")))

    assert not waiting.done()
    (await waiting).release()


# --- waiting ---


@in_virtual_time
async def test_a_call_waits_until_another_ends() -> None:
    """Waiting within the deadline beats failing."""
    traffic = traffic_of(account(limit(1, AccountMetric.CONCURRENT_CALLS)))
    first = await traffic.place(request())
    waiting = await start(traffic)
    assert not waiting.done()

    first.succeeded(1.0)

    await asyncio.sleep(0)
    assert waiting.done()


@in_virtual_time
async def test_a_call_waits_until_the_window_has_room() -> None:
    """The minute passes, and nobody has to ask again and again."""
    traffic = traffic_of(account(limit(2)))
    began_at = now()
    await places(traffic, 2)

    await traffic.place(request())

    assert 60 <= now() - began_at <= 62


@in_virtual_time
async def test_a_call_that_used_less_than_it_took_makes_room_when_it_ends() -> None:
    """Estimates are held only while nothing better is known."""
    traffic = traffic_of(account(limit(100, AccountMetric.INPUT_TOKENS_PER_MINUTE)))
    first = await traffic.place(request(input_tokens=80))
    waiting = await start(traffic, request(input_tokens=80))

    first.succeeded(1.0, input_tokens=20)

    await asyncio.sleep(0)
    assert waiting.done()


@in_virtual_time
async def test_a_bucket_cools_down_as_long_as_the_upstream_says() -> None:
    """RetryInfo is honoured, and the call that met the 429 keeps nobody's quota."""
    traffic = traffic_of()
    began_at = now()
    (await traffic.place(request())).exhausted(7.0, [])

    await traffic.place(request())

    assert 7.0 <= now() - began_at <= 7.8


@in_virtual_time
async def test_without_a_stated_delay_a_bucket_cools_down_longer_each_time() -> None:
    """An account that is out of quota is asked less and less often."""
    traffic = traffic_of()
    delays = []
    for _ in range(4):
        place = await traffic.place(request())
        met_at = now()
        place.exhausted(None, [])
        (await traffic.place(request())).release()
        delays.append(now() - met_at)

    assert [round(delay / 1.05) for delay in delays] == [1, 2, 4, 8]


@in_virtual_time
async def test_calls_that_meet_one_429_together_cool_the_bucket_once() -> None:
    """A hundred calls in flight are not a hundred warnings."""
    traffic = traffic_of()
    together = await places(traffic, 100)
    met_at = now()
    for place in together:
        place.exhausted(None, [])

    await traffic.place(request())

    assert now() - met_at <= 1.2


@in_virtual_time
async def test_a_429_does_not_open_the_breaker() -> None:
    """Out of quota is not ill."""
    breakers = Breakers(clock=now)
    traffic = traffic_of(breakers=breakers)
    for place in await places(traffic, 30):
        place.exhausted(1.0, [])

    assert breakers.admits(BreakerKey("acme", "", MODEL))


@in_virtual_time
async def test_a_quota_failure_lowers_the_limit() -> None:
    """Configuration may promise more than the project has."""
    traffic = traffic_of(account(limit(1000)))
    violation = {"quotaId": "GenerateRequestsPerMinutePerProjectPerModel", "quotaValue": "5"}

    (await traffic.place(request())).exhausted(1.0, [violation])

    assert traffic.buckets.caps("acme", MODEL).in_force[0].limit == 5


@in_virtual_time
async def test_a_waiter_is_woken_when_the_breaker_may_be_probed() -> None:
    """The first call through a half-open breaker is one that waited for it."""
    breakers = Breakers(clock=now)
    traffic = traffic_of(breakers=breakers)
    open_breaker(breakers)
    began_at = now()

    place = await traffic.place(request())

    assert 3.0 <= now() - began_at <= 5.1
    place.succeeded(0.1)


@in_virtual_time
async def test_a_probe_that_succeeded_lets_the_others_through() -> None:
    """They wait for the breaker, and it says nothing by itself."""
    breakers = Breakers(clock=now)
    traffic = traffic_of(breakers=breakers)
    open_breaker(breakers)
    tasks = [await start(traffic) for _ in range(20)]

    done = 0
    while done < 20:
        finished, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=1)
        for task in finished:
            tasks.remove(task)
            task.result().succeeded(0.0)
            done += 1

    assert now() < 1_010


@in_virtual_time
async def test_a_target_behind_an_open_breaker_is_left_out() -> None:
    """Calls that can be served elsewhere are."""
    breakers = Breakers(clock=now)
    traffic = traffic_of(account(account_id="a"), account(account_id="b"), breakers=breakers)
    open_breaker(breakers, "a")

    taken = {place.target.account_id for place in await places(traffic, 20, request(target("a"), target("b")))}

    assert taken == {"b"}


# --- refusing ---


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

    assert refused.value.targets == 1
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


# --- order ---


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
    traffic = traffic_of(max_calls=1, weights={("acme", "heavy"): 2.0})
    first = await traffic.place(request())
    tasks = {
        name: [await start(traffic, request(department=name)) for _ in range(30)] for name in ("heavy", "light", "thin")
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


# --- ending ---


@in_virtual_time
async def test_a_place_is_ended_once() -> None:
    """Whoever makes sure that a place is given back may do so after it was."""
    traffic = traffic_of()
    place = await traffic.place(request())

    place.succeeded(1.0)
    place.release()
    place.failed(1.0)

    assert traffic.in_flight == 0


@in_virtual_time
async def test_a_cancelled_waiter_takes_no_place_and_lets_the_next_one_go() -> None:
    """A caller who hung up must not be a hole in the limit."""
    traffic = traffic_of(max_calls=1)
    first = await traffic.place(request())
    cancelled, next_one = await start(traffic), await start(traffic)

    cancelled.cancel()
    first.release()

    place = await next_one
    assert traffic.in_flight == 1
    place.release()
    assert (traffic.in_flight, traffic.queue.length) == (0, 0)


@in_virtual_time
async def test_a_waiter_cancelled_as_he_gets_his_place_gives_it_back() -> None:
    """Both can happen before he runs again."""
    traffic = traffic_of(max_calls=1)
    first = await traffic.place(request())
    cancelled, next_one = await start(traffic), await start(traffic)

    first.release()
    cancelled.cancel()

    place = await next_one
    place.release()
    assert (traffic.in_flight, traffic.queue.length) == (0, 0)


@in_virtual_time
async def test_a_new_catalogue_changes_limits_and_wakes_who_waits_for_more() -> None:
    """An operator who raises a limit need not restart anything."""
    traffic = traffic_of(account(limit(1)))
    await traffic.place(request())
    waiting = await start(traffic)

    traffic.reconfigure([account(limit(2))])

    await asyncio.sleep(0)
    assert waiting.done()
    assert not (await start(traffic)).done()


def test_a_target_is_what_the_caller_named() -> None:
    """The very object, as the caller finds his way by it."""

    async def place() -> tuple[Target, Target]:
        wanted = target()
        return wanted, (await traffic_of().place(request(wanted))).target

    wanted, got = virtual_time.run(place())

    assert got is wanted
