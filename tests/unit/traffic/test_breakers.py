"""Breakers: when they open, what they let through meanwhile, and how they are trusted again."""

import pytest
from tollhouse_server.traffic.breakers import BreakerKey, BreakerPolicy, Cause, Forced, State
from tollhouse_server.traffic.verdicts import Verdict

from tests.unit.traffic.bench import KEY, POLICY, Bench


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_run_of_failures_opens_where_traffic_is_thin(bench: Bench) -> None:
    """Five failures in a row are enough when there are too few calls for a ratio."""
    bench.fail(4)
    before = bench.breakers.admits(KEY)

    bench.fail(1)

    assert before
    assert not bench.breakers.admits(KEY)
    assert bench.told[-1].cause is Cause.FAILURES_IN_A_ROW


def test_a_success_ends_a_run(bench: Bench) -> None:
    """A target that answers now and then is not taken for dead."""
    for _ in range(2):
        bench.fail(4)
        bench.call(Verdict.SUCCESS, times=5)

    assert bench.breakers.admits(KEY)


def test_half_of_many_calls_failing_opens(bench: Bench) -> None:
    """The ratio counts once the window has enough calls."""
    for _ in range(9):
        bench.call(Verdict.SUCCESS)
        bench.fail(1)
    bench.call(Verdict.SUCCESS)
    before = bench.breakers.admits(KEY)

    bench.fail(1)

    assert before
    assert bench.told[-1].cause is Cause.FAILURE_RATIO
    assert (bench.told[-1].calls, bench.told[-1].failures) == (20, 10)


def test_a_short_run_in_much_traffic_opens_nothing(bench: Bench) -> None:
    """With a thousand good calls in the window five failures in a row are chance; twenty are not."""
    bench.call(Verdict.SUCCESS, times=1000)
    bench.fail(19)
    before = bench.breakers.admits(KEY)

    bench.fail(1)

    assert before
    assert not bench.breakers.admits(KEY)


def test_failures_leave_the_window_with_time(bench: Bench) -> None:
    """What happened longer ago than the window counts for no ratio."""
    for _ in range(9):
        bench.call(Verdict.SUCCESS)
        bench.fail(1)
    bench.now += POLICY.bucket_seconds * POLICY.buckets
    bench.call(Verdict.SUCCESS, times=11)
    bench.fail(4)

    seen = bench.breakers.snapshot()[0]
    assert seen.state is State.CLOSED
    assert (seen.calls, seen.failures) == (15, 4)


def test_ignored_outcomes_change_nothing(bench: Bench) -> None:
    """Refused requests, exhausted quotas and our own cancellations neither open a breaker nor end a run."""
    bench.fail(4)
    bench.call(Verdict.IGNORED, times=100)
    before = bench.breakers.admits(KEY)

    bench.fail(1)

    assert before
    assert not bench.breakers.admits(KEY)


def test_breakers_are_apart(bench: Bench) -> None:
    """One model of an account in one region failing says nothing of another."""
    bench.fail()

    assert bench.breakers.admits(KEY._replace(model="gemini-2.5-pro"))
    assert bench.breakers.admits(KEY._replace(region="us-central1"))
    assert bench.breakers.admits(KEY._replace(account_id="two"))


def test_an_open_breaker_says_when_it_can_be_tried(bench: Bench) -> None:
    """Whoever waits for a place wants to know for how long."""
    bench.fail()
    bench.now += 2.0

    assert bench.breakers.seconds_until_probe(KEY) == POLICY.delay_seconds - 2.0


def test_a_half_open_breaker_lets_out_one_probe_at_a_time(bench: Bench) -> None:
    """A target that has just failed is not met with everything that waited."""
    bench.fail()
    bench.now += POLICY.delay_seconds
    first = bench.breakers.admits(KEY)
    bench.breakers.begin(KEY)
    second = bench.breakers.admits(KEY)
    bench.breakers.record(KEY, Verdict.SUCCESS, 0.0)

    assert (first, second) == (True, False)
    assert bench.breakers.admits(KEY)
    assert bench.state() is State.HALF_OPEN


def test_asking_takes_no_probe(bench: Bench) -> None:
    """Traffic asks for every target and begins at one."""
    bench.fail()
    bench.now += POLICY.delay_seconds

    assert all(bench.breakers.admits(KEY) for _ in range(10))


def test_successful_probes_close(bench: Bench) -> None:
    """Two answers, and the target is one like any other."""
    bench.fail()
    bench.now += POLICY.delay_seconds
    bench.call(Verdict.SUCCESS, times=2)

    assert bench.state() is State.CLOSED
    assert [change.after for change in bench.told] == [State.CLOSED, State.OPEN, State.HALF_OPEN, State.CLOSED]


def test_what_opened_a_breaker_does_not_open_it_again(bench: Bench) -> None:
    """Once it is closed, it takes as many failures as the first time."""
    for _ in range(10):
        bench.call(Verdict.SUCCESS)
        bench.fail(1)
    opened = not bench.breakers.admits(KEY)
    bench.now += POLICY.delay_seconds
    bench.call(Verdict.SUCCESS, times=2)
    bench.fail(4)

    assert opened
    assert bench.breakers.admits(KEY)


def test_a_failed_probe_opens_for_longer_up_to_a_bound(bench: Bench) -> None:
    """A target that stays dead is asked ever less often."""
    bench.fail()
    delays = []
    for _ in range(7):
        delays.append(bench.breakers.seconds_until_probe(KEY))
        bench.now += delays[-1] or 0.0
        bench.fail(1)

    assert delays == [5.0, 10.0, 20.0, 40.0, 80.0, 120.0, 120.0]


def test_jitter_only_shortens_a_delay() -> None:
    """The bound of a delay holds with jitter too."""
    bench = Bench(policy=BreakerPolicy(jitter=0.25), chance=1.0)

    bench.fail()

    assert bench.breakers.seconds_until_probe(KEY) == 3.75


def test_the_delay_falls_back_after_a_healthy_time(bench: Bench) -> None:
    """An outage long past does not make the next one longer; one just over does."""
    bench.fail()
    bench.now += 5.0
    bench.call(Verdict.SUCCESS, times=2)
    bench.now += POLICY.healthy_seconds - 1.0
    bench.fail()
    soon = bench.breakers.seconds_until_probe(KEY)
    bench.now += soon or 0.0
    bench.call(Verdict.SUCCESS, times=2)
    bench.now += POLICY.healthy_seconds
    bench.fail()

    assert (soon, bench.breakers.seconds_until_probe(KEY)) == (10.0, 5.0)


def test_a_probe_that_never_reports_blocks_for_a_while_only(bench: Bench) -> None:
    """A process can lose a call; its breaker must not wait for it for ever."""
    bench.fail()
    bench.now += POLICY.delay_seconds
    bench.breakers.begin(KEY)
    bench.now += 10.0
    wait = bench.breakers.seconds_until_probe(KEY)
    bench.now += POLICY.probe_seconds

    assert wait == POLICY.probe_seconds - 10.0
    assert bench.breakers.admits(KEY)


def test_an_ignored_probe_gives_its_place_back(bench: Bench) -> None:
    """A probe that was refused for what it asked has shown nothing, so the next one may go."""
    bench.fail()
    bench.now += POLICY.delay_seconds
    bench.call(Verdict.IGNORED)

    assert bench.breakers.admits(KEY)
    assert bench.state() is State.HALF_OPEN


def test_calls_from_before_the_outage_prove_nothing(bench: Bench) -> None:
    """A slow call that began before the breaker opened neither closes nor reopens it, whatever its end."""
    for _ in range(6):
        bench.breakers.begin(KEY)
    bench.fail()
    bench.now += POLICY.delay_seconds
    bench.breakers.begin(KEY)
    bench.now += 1.0
    bench.breakers.record(KEY, Verdict.SUCCESS, POLICY.delay_seconds + 1.0)
    bench.breakers.record(KEY, Verdict.FAILURE, POLICY.delay_seconds + 1.0)
    half_open = bench.state()
    taken = not bench.breakers.admits(KEY)
    bench.breakers.record(KEY, Verdict.SUCCESS, 1.0)
    bench.call(Verdict.SUCCESS)
    for _ in range(6):
        bench.breakers.record(KEY, Verdict.FAILURE, POLICY.delay_seconds + 1.0)

    assert (half_open, taken) == (State.HALF_OPEN, True)
    assert bench.state() is State.CLOSED


def test_a_probe_counts_though_its_time_is_measured_from_before_it_began(bench: Bench) -> None:
    """Whoever reads the clock, chooses a target and then begins is not taken for a call from before the outage."""
    bench.fail()
    bench.now += POLICY.delay_seconds
    for _ in range(2):
        bench.breakers.begin(KEY)
        bench.breakers.record(KEY, Verdict.SUCCESS, 0.2)

    assert bench.state() is State.CLOSED


def test_an_order_stands_above_what_was_seen(bench: Bench) -> None:
    """Held closed, a failing target is used; held open, a healthy one is not; released, it is as it would have been."""
    bench.fail()
    bench.breakers.order({KEY: Forced.CLOSED})
    closed = bench.breakers.admits(KEY)
    bench.fail(30)
    still_closed = bench.breakers.admits(KEY)
    bench.breakers.order({KEY: Forced.OPEN})
    bench.now += 3600.0
    opened = bench.breakers.admits(KEY)
    wait = bench.breakers.seconds_until_probe(KEY)
    bench.breakers.order({})

    assert (closed, still_closed, opened, wait) == (True, True, False, None)
    assert bench.breakers.admits(KEY)
    assert bench.state() is State.OPEN


@pytest.mark.parametrize(
    "pattern", [KEY, KEY._replace(region=""), KEY._replace(model=""), BreakerKey(KEY.account_id, "", "")]
)
def test_an_order_reaches_every_breaker_that_it_fits(bench: Bench, pattern: BreakerKey) -> None:
    """Also one that nobody has called yet."""
    bench.breakers.order({pattern: Forced.OPEN})

    assert not bench.breakers.admits(KEY)
    assert bench.breakers.admits(KEY._replace(account_id="two"))


def test_the_most_exact_order_counts(bench: Bench) -> None:
    """A whole account can be held open but for one model."""
    whole, model = BreakerKey(KEY.account_id, "", ""), KEY._replace(region="")
    bench.breakers.order({whole: Forced.OPEN, KEY._replace(model=""): Forced.OPEN, model: Forced.CLOSED})

    assert bench.breakers.admits(KEY)
    assert not bench.breakers.admits(KEY._replace(model="gemini-2.5-pro"))


def test_orders_are_told_once(bench: Bench) -> None:
    """The same orders loaded again are no news."""
    bench.call(Verdict.SUCCESS)
    bench.breakers.order({KEY: Forced.OPEN})
    bench.breakers.order({KEY: Forced.OPEN})
    bench.breakers.order({})

    assert [(change.before, change.after, change.cause) for change in bench.told[1:]] == [
        (State.CLOSED, State.OPEN, Cause.ORDER),
        (State.OPEN, State.CLOSED, Cause.ORDER),
    ]


def test_breakers_without_calls_are_forgotten(bench: Bench) -> None:
    """Accounts and models that are gone leave nothing behind."""
    bench.call(Verdict.SUCCESS)
    bench.now += POLICY.idle_seconds
    bench.call(Verdict.SUCCESS, key=KEY._replace(model="gemini-2.5-pro"))
    bench.now += 1.0

    assert [one.key.model for one in bench.breakers.snapshot()] == ["gemini-2.5-pro"]
    assert bench.told[-1].after is None


def test_a_short_run_in_much_traffic_opens_when_it_lasts(bench: Bench) -> None:
    """Five failures and no success for a second are no chance: each further one would cost an attempt."""
    bench.call(Verdict.SUCCESS, times=1000)
    bench.fail(4)
    bench.now += POLICY.failing_seconds
    before = bench.breakers.admits(KEY)

    bench.fail(1)

    assert before
    assert not bench.breakers.admits(KEY)
    assert bench.told[-1].cause is Cause.FAILURES_IN_A_ROW
