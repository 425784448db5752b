"""Rolling windows, the Pacific day, and limits that are learned."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tollhouse_server.routing.priorities import Priority
from tollhouse_server.routing.targets import AccountLimit, AccountMetric
from tollhouse_server.traffic.buckets import Buckets, amounts_of
from tollhouse_server.traffic.caps import Caps
from tollhouse_server.traffic.days import PacificDay
from tollhouse_server.traffic.quota_failures import learned_limits
from tollhouse_server.traffic.usage_window import IMAGES, METRICS, REQUESTS, SPEND, TOKENS, UsageWindow

from tests.unit.traffic.calls import account

SECONDS = st.floats(min_value=0, max_value=400, allow_nan=False)
CALLS = st.lists(st.tuples(SECONDS, st.integers(0, 1000), st.integers(0, 1000)), min_size=1, max_size=60)


def amounts(tokens: int = 10) -> list[int]:
    return amounts_of(input_tokens=tokens, images=2, cost_nanos=tokens * 3)


@given(CALLS)
def test_a_window_never_forgets_a_call_of_the_last_minute_nor_keeps_one_much_longer(
    calls: list[tuple[float, int, int]],
) -> None:
    """What the window says is at least what Google counts, and at most a second's worth more."""
    window, taken = UsageWindow(PacificDay()), []
    for at, tokens, really in sorted(calls):
        slot = window.take(int(at), amounts(tokens))
        window.correct(slot, tokens=really - tokens, images=0, nanos=0)
        taken.append((at, really))

        assert window.sums[TOKENS] >= sum(one for then, one in taken if then > at - 60)
        assert window.sums[TOKENS] <= sum(one for then, one in taken if then > at - 62)


@given(CALLS, st.integers(0, 3000))
def test_never_more_than_the_share_is_used_within_any_minute(calls: list[tuple[float, int, int]], share: int) -> None:
    """Whatever comes, and however it is bunched."""
    caps, taken = limited(AccountMetric.INPUT_TOKENS_PER_MINUTE, 3000), []
    caps.in_force[0].share = share
    for at, tokens, _ in sorted(calls):
        if tokens <= share and caps.room(int(at), amounts(tokens)):
            caps.window.take(int(at), amounts(tokens))
            taken.append((at, tokens))

        assert sum(one for then, one in taken if then > at - 60) <= share


@pytest.mark.parametrize(("metric", "seconds"), [(REQUESTS, 60), (TOKENS, 60), (IMAGES, 60), (SPEND, 600)], ids=str)
def test_a_window_is_empty_again_when_it_says_that_it_frees(metric: int, seconds: int) -> None:
    """Whoever waits is woken then, and must not be woken for nothing."""
    window = UsageWindow(PacificDay())
    window.take(100, amounts())

    frees_at = window.frees_at(metric)

    window.advance(100 + seconds)
    assert window.sums[metric] > 0
    assert frees_at == 100 + seconds + 1
    window.advance(int(frees_at))
    assert window.sums[metric] == 0


def test_a_call_that_was_never_sent_leaves_no_trace() -> None:
    """A place given back unused costs no quota."""
    window = UsageWindow(PacificDay())
    slot = window.take(5, amounts())

    window.correct(slot, tokens=-10, images=-2, nanos=-30)
    window.give_back(slot)

    assert window.sums == [0, 0, 0, 0, 0, 1]


def test_a_correction_after_its_window_has_passed_changes_nothing() -> None:
    """The quota that a long call used a while ago is free again already."""
    window = UsageWindow(PacificDay())
    slot = window.take(5, amounts())
    window.advance(100)

    window.correct(slot, tokens=90, images=1, nanos=5)

    assert window.sums[TOKENS] == 0
    assert window.sums[SPEND] == 35


@pytest.mark.parametrize(
    ("here", "hours"),
    [("2026-11-21T18:00", 6), ("2026-03-07T23:00", 1), ("2026-03-08T00:00", 23), ("2026-11-01T00:00", 25)],
)
def test_a_day_ends_at_midnight_pacific_whatever_the_clocks_do(here: str, hours: int) -> None:
    """Twice a year a day has 23 or 25 hours."""
    wall = datetime.fromisoformat(here).replace(tzinfo=ZoneInfo("America/Los_Angeles")).timestamp()
    day = PacificDay(clock=lambda: 50.0, wall=lambda: wall)

    assert day.today() == here[:10]
    assert day.ends_at() - 50.0 == hours * 3600


def test_requests_of_a_day_begin_anew_at_midnight() -> None:
    """The day's quota is back then."""
    now = [0.0]
    midnight = datetime(2026, 11, 22, tzinfo=ZoneInfo("America/Los_Angeles")).timestamp()
    caps = Caps(PacificDay(clock=lambda: now[0], wall=lambda: midnight - 100 + now[0]))
    caps.configure([AccountLimit(metric=AccountMetric.REQUESTS_PER_DAY, amount=1)], 0.0)
    caps.window.take(0, amounts())

    assert caps.room(90, amounts()) == 0
    assert caps.frees_at(amounts()) == 100
    now[0] = 101.0
    assert caps.room(101, amounts()) > 0


def limited(metric: AccountMetric, amount: int) -> Caps:
    caps = Caps(PacificDay())
    caps.configure([AccountLimit(metric=metric, amount=amount)], 0.0)
    return caps


def test_a_call_larger_than_the_limit_goes_alone() -> None:
    """Estimates are often too high: the upstream may say no, we may not say never."""
    caps = limited(AccountMetric.INPUT_TOKENS_PER_MINUTE, 100)

    assert caps.room(0, amounts(500)) > 0
    caps.window.take(0, amounts(10))
    assert caps.room(0, amounts(500)) == 0


def test_a_call_larger_than_the_share_goes_where_the_account_has_room_for_it() -> None:
    """Else a large call would wait for ever when many processes have small shares."""
    caps = limited(AccountMetric.INPUT_TOKENS_PER_MINUTE, 100)
    caps.in_force[0].share = 25
    caps.in_force[0].elsewhere = 40

    assert caps.room(0, amounts(60)) > 0
    assert caps.room(0, amounts(61)) == 0


def test_a_learned_limit_lowers_and_rises_again() -> None:
    """A quota that was raised at Google must be found without anybody's help."""
    caps = limited(AccountMetric.REQUESTS_PER_MINUTE, 100)

    caps.learn(REQUESTS, 10, learned_at=0.0, now=0.0)

    assert caps.in_force[0].limit == caps.in_force[0].share == 10
    caps.apply(600.0)
    assert caps.in_force[0].limit == 11
    caps.apply(24 * 3600.0)
    assert caps.in_force[0].limit == 100


def test_a_limit_that_configuration_does_not_know_is_learned_and_forgotten() -> None:
    """Nothing configured and nothing learned is no limit."""
    caps = Caps(PacificDay())
    assert not caps.in_force

    caps.learn(TOKENS, 1000, learned_at=0.0, now=0.0)
    assert caps.in_force[0].metric == TOKENS
    assert caps.in_force[0].limit == 1000

    caps.apply(7 * 3600.0)
    assert not caps.in_force


def test_a_higher_word_than_what_is_known_changes_nothing() -> None:
    """Configuration may hold an account below what Google allows."""
    caps = limited(AccountMetric.REQUESTS_PER_MINUTE, 100)

    caps.learn(REQUESTS, 1000, learned_at=0.0, now=0.0)

    assert caps.in_force[0].limit == 100


def test_what_is_heard_again_over_others_does_not_grow_younger() -> None:
    """Processes that tell each other of one 429 would else keep its limit alive for ever."""
    caps = limited(AccountMetric.REQUESTS_PER_MINUTE, 100)
    caps.learn(REQUESTS, 10, learned_at=0.0, now=0.0)

    for at in range(1, 600):
        ((_, amount, learned_at),) = caps.learned()
        caps.learn(REQUESTS, amount, learned_at=learned_at + 0.5, now=float(at))
    caps.apply(601.0)

    assert caps.in_force[0].limit == 11


@pytest.mark.parametrize(
    ("quota_id", "value", "learned"),
    [
        (
            "GenerateRequestsPerMinutePerProjectPerModel",
            "10",
            (AccountMetric.REQUESTS_PER_MINUTE, 10, True),
        ),
        (
            "GenerateRequestsPerDayPerProjectPerModel-FreeTier",
            "250",
            (AccountMetric.REQUESTS_PER_DAY, 250, True),
        ),
        (
            "GenerateContentInputTokensPerModelPerMinute-FreeTier",
            "250000",
            (AccountMetric.INPUT_TOKENS_PER_MINUTE, 250000, True),
        ),
        (
            "GenerateContentPaidTierInputTokensPerModelPerMinute",
            1000000,
            (AccountMetric.INPUT_TOKENS_PER_MINUTE, 1000000, True),
        ),
        ("GenerateImagesPerMinutePerProject", "20", (AccountMetric.IMAGES_PER_MINUTE, 20, False)),
        ("GenerateRequestsPerMinutePerProjectPerModel", "0", None),
        ("GenerateRequestsPerMinutePerProjectPerModel", "many", None),
        ("GenerateContentInputTokensPerModelPerDay", "10", None),
        ("SomethingElse", "10", None),
    ],
)
def test_a_quota_failure_names_the_limit_that_was_met(
    quota_id: str, value: object, learned: tuple[object, ...] | None
) -> None:
    """Quota ids are Google's own words; what is not known teaches nothing."""
    violation = {"quotaMetric": "generativelanguage.googleapis.com/x", "quotaId": quota_id, "quotaValue": value}

    assert list(learned_limits([violation])) == ([learned] if learned else [])


def test_a_quota_failure_without_words_teaches_nothing() -> None:
    """Vertex says only that it is exhausted."""
    assert list(learned_limits([{}, {"subject": "project:1", "description": "Quota exceeded"}])) == []


def test_every_metric_has_its_place_in_the_amounts() -> None:
    """A metric without one would be limited by nothing."""
    assert len(amounts()) == len(METRICS) == len(AccountMetric)


def test_the_models_that_limits_name_are_known_before_the_first_call() -> None:
    """Their shares must have been agreed upon by then."""
    buckets = Buckets()
    limits = [AccountLimit(metric=AccountMetric.REQUESTS_PER_MINUTE, amount=1, model=model) for model in ("", "m")]

    buckets.reconfigure([account(*limits)])

    assert sorted((account_id, model) for account_id, model, _ in buckets.parts()) == [("acme", ""), ("acme", "m")]


def test_an_account_that_is_gone_is_forgotten_and_one_that_stays_keeps_its_use() -> None:
    """A new catalogue is no new minute."""
    buckets = Buckets(clock=lambda: 0.0)
    limited_account = account(AccountLimit(metric=AccountMetric.REQUESTS_PER_MINUTE, amount=1, model="m"))
    buckets.reconfigure([limited_account, account(account_id="gone")])
    buckets.bucket("acme", "m").take((Priority.DEFAULT, "acme", "sales"), amounts(), 0.0)
    buckets.bucket("gone", "m")

    buckets.reconfigure([limited_account])

    assert [bucket.account_id for bucket in buckets] == ["acme"]
    assert buckets.bucket("acme", "m").room(0, amounts()) == 0
