"""Breakers: how much of the traffic a target gets that fails or does not answer, before its breaker opens."""

import pytest
from tollhouse_server.traffic.breakers import Forced, State
from tollhouse_server.traffic.verdicts import Verdict

from tests.unit.traffic.bench import KEY, POLICY, Bench


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_each_failure_in_a_row_halves_a_targets_share_and_a_success_restores_it(bench: Bench) -> None:
    """Calls go elsewhere long before a breaker may open."""
    shares = []
    for _ in range(4):
        shares.append(bench.breakers.standing(KEY))
        bench.fail(1)

    bench.call(Verdict.SUCCESS)

    assert shares == [1.0, 0.5, 0.25, 0.125]
    assert bench.breakers.standing(KEY) == 1.0


def hang(bench: Bench, seconds: float, *, calls: int = 3) -> list[float]:
    """Let calls go out that nobody answers; return a target's standing each quarter of a second."""
    for _ in range(calls):
        bench.breakers.begin(KEY)
    standings = []
    for _ in range(int(seconds * 4)):
        standings.append(bench.breakers.standing(KEY))
        bench.now += 0.25
    return standings


def test_a_target_that_does_not_answer_as_usual_gets_hardly_any_share(bench: Bench) -> None:
    """Long before the calls there are given up: one that usually takes a fifth of a second, after one."""
    for _ in range(50):
        bench.breakers.begin(KEY)
        bench.now += 0.2
        bench.breakers.record(KEY, Verdict.SUCCESS, 0.2)

    standings = hang(bench, 2.0)

    assert standings[:4] == [1.0] * 4
    assert max(standings[4:]) < 0.01


def test_a_slow_model_is_not_silent_while_it_takes_as_long_as_usual(bench: Bench) -> None:
    """Two calls of ten seconds each: half a minute may go by."""
    for _ in range(2):
        bench.breakers.begin(KEY)
        bench.now += 10.0
        bench.breakers.record(KEY, Verdict.SUCCESS, 10.0)

    standings = hang(bench, 25.0)

    assert min(standings) == 1.0


def test_many_answers_that_do_not_come_are_silence_however_long_each_takes(bench: Bench) -> None:
    """Ten a second, of ten seconds each: where none has come for six seconds, something is wrong."""
    for _ in range(100):
        bench.breakers.begin(KEY)
    bench.now += 10.0
    for _ in range(100):
        bench.now += 0.1
        bench.breakers.begin(KEY)
        bench.breakers.record(KEY, Verdict.SUCCESS, 10.0)

    standings = hang(bench, 8.0)

    assert standings[0] == 1.0
    assert standings[-1] < 0.01


def test_one_answer_ends_a_silence(bench: Bench) -> None:
    """The others may still be under way."""
    silent = hang(bench, 8.0)[-1]

    bench.breakers.record(KEY, Verdict.SUCCESS, 8.0)

    assert (silent < 0.01, bench.breakers.standing(KEY)) == (True, 1.0)


def test_old_calls_do_not_keep_probes_from_a_half_open_breaker(bench: Bench) -> None:
    """Who hung before it opened may hang on."""
    hang(bench, 6.0, calls=6)
    for _ in range(5):
        bench.breakers.record(KEY, Verdict.FAILURE, 6.0)
    bench.now += POLICY.delay_seconds

    bench.breakers.begin(KEY)

    assert bench.state() is State.HALF_OPEN
    assert bench.breakers.standing(KEY) == 1.0


def test_an_order_to_stay_closed_gives_a_target_its_whole_share(bench: Bench) -> None:
    """Calls go there whatever becomes of them."""
    bench.fail(3)

    bench.breakers.order({KEY: Forced.CLOSED})

    assert bench.breakers.standing(KEY) == 1.0
