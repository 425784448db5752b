"""Who gets a place at which target, and when, in virtual time."""

import asyncio
from collections import Counter

import pytest
from tollhouse_server.errors import UpstreamExhausted
from tollhouse_server.routing.targets import AccountMetric, Target
from tollhouse_server.traffic.breakers import BreakerKey, Breakers

from tests.unit.traffic import virtual_time
from tests.unit.traffic.calls import MODEL, account, request, target
from tests.unit.traffic.virtual_time import now
from tests.unit.traffic.virtual_traffic import in_virtual_time, limit, open_breaker, places, start, traffic_of


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
async def test_calls_keep_off_an_account_that_does_not_answer() -> None:
    """Its calls are given up seconds later, and its breaker opens then; nobody has to follow them there."""
    traffic = traffic_of(account(account_id="a"), account(account_id="b"), max_calls=10_000)
    wanted = request(target("a"), target("b"))
    hanging = 0
    for number in range(70):
        taken = await places(traffic, 10, wanted)
        await asyncio.sleep(0.1)
        for place in taken:
            if number >= 20 and place.target.account_id == "a":
                hanging += 1
            else:
                place.succeeded(0.1)

    assert 20 <= hanging <= 100


@in_virtual_time
async def test_an_account_that_does_not_answer_is_better_than_none() -> None:
    """Whoever has no other goes there."""
    traffic = traffic_of(account(account_id="a"), max_calls=10_000)
    for _ in range(20):
        await places(traffic, 10, request(target("a")))
        await asyncio.sleep(0.5)

    assert traffic.in_flight == 200


@in_virtual_time
async def test_an_account_that_has_begun_to_fail_gets_less_before_its_breaker_opens() -> None:
    """Each failed attempt has its price, so there should be no more of them than prove it dead."""
    traffic = traffic_of(account(account_id="a"), account(account_id="b"), max_calls=10_000)
    wanted = request(target("a"), target("b"))
    failed = 0
    for number in range(1000):
        (place,) = await places(traffic, 1, wanted)
        await asyncio.sleep(0.01)
        if number >= 500 and place.target.account_id == "a":
            place.failed()
            failed += 1
        else:
            place.succeeded(0.01)

    assert 5 <= failed <= 8
    assert not traffic.breakers.admits(BreakerKey("a", "", MODEL))


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


@in_virtual_time
async def test_a_place_is_ended_once() -> None:
    """Whoever makes sure that a place is given back may do so after it was."""
    traffic = traffic_of()
    place = await traffic.place(request())

    place.succeeded(1.0)
    place.release()
    place.failed()

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


@in_virtual_time
async def test_a_place_given_back_unused_can_be_had_again_at_once() -> None:
    """Nothing was sent, so nothing was counted upstream."""
    traffic = traffic_of(account(limit(1), limit(1, AccountMetric.REQUESTS_PER_DAY)))
    (await traffic.place(request())).release()

    assert (await start(traffic)).done()


@in_virtual_time
async def test_requests_of_the_day_that_are_used_up_are_refused_with_the_hour_of_midnight() -> None:
    """No caller waits for tomorrow."""
    traffic = traffic_of(account(limit(1, AccountMetric.REQUESTS_PER_DAY)))
    await traffic.place(request())

    with pytest.raises(UpstreamExhausted) as refused:
        await traffic.place(request(deadline=now() + 0.5))

    assert refused.value.retry_after_seconds == pytest.approx(traffic.buckets.days.ends_at() - now(), abs=1)
