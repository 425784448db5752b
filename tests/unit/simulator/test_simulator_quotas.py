"""Windows of quotas, on a clock of the test's own."""

from __future__ import annotations

import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tollhouse_server.simulator import errors
from tollhouse_server.simulator.errors import GeminiError
from tollhouse_server.simulator.keys import Caller
from tollhouse_server.simulator.quotas import Load, Quotas

_CALLER = Caller("key", "p")
_PACIFIC = ZoneInfo("America/Los_Angeles")


class Clock:
    """A clock that goes only when told to."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def take(quotas: Quotas, tokens: int = 1) -> GeminiError | None:
    try:
        quotas.check(_CALLER, "m", service=errors.DEVELOPER)
        quotas.take(_CALLER, "m", lambda: Load(tokens, 0, 0), service=errors.DEVELOPER)
    except GeminiError as refusal:
        return refusal
    return None


@pytest.mark.parametrize("month", [7, 11])
def test_a_day_ends_at_midnight_pacific_time(month: int) -> None:
    """In summer and in winter."""
    late = datetime.datetime(2026, month, 20, 23, 59, 50, tzinfo=_PACIFIC).timestamp()
    clock = Clock(late)
    quotas = Quotas(clock)
    quotas.put({"project": "p", "requests_per_day": 1})

    first, second = take(quotas), take(quotas)
    clock.now = late + 10
    third = take(quotas)

    assert first is third is None
    assert second is not None
    assert second.details[-1]["retryDelay"] == "10s"


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(1, 40)), max_size=60))
def test_no_minute_ever_holds_more_than_the_limit(calls: list[tuple[float, int]]) -> None:
    """Whatever the arrivals, the tokens served within any sixty seconds fit, and a wait is never longer than those."""
    clock = Clock(1_000.0)
    quotas = Quotas(clock)
    quotas.put({"project": "p", "input_tokens_per_minute": 100})
    served: list[tuple[float, int]] = []

    for gap, tokens in calls:
        clock.now += gap
        refusal = take(quotas, tokens)
        if refusal is None:
            served.append((clock.now, tokens))
        else:
            assert 0 < float(refusal.details[-1]["retryDelay"].removesuffix("s")) <= 60

    for at, _ in served:
        assert sum(tokens for when, tokens in served if at - 60 < when <= at) <= 100


@given(st.integers(1, 20), st.floats(0.5, 10))
def test_waiting_as_long_as_told_always_helps(limit: int, gap: float) -> None:
    """RetryInfo tells the truth."""
    clock = Clock(1_000.0)
    quotas = Quotas(clock)
    quotas.put({"project": "p", "requests_per_minute": limit})
    refusal = None
    while refusal is None:
        clock.now += gap / limit
        refusal = take(quotas)

    clock.now += float(refusal.details[-1]["retryDelay"].removesuffix("s")) + 1e-6

    assert take(quotas) is None


def test_a_call_that_one_quota_refuses_is_counted_in_none() -> None:
    """A quota of all models does not fill up with what a model's own refused."""
    quotas = Quotas(Clock(0.0))
    quotas.put({"project": "p", "requests_per_minute": 10})
    quotas.put({"project": "p", "model": "m", "requests_per_minute": 1})

    refusals = [take(quotas) for _ in range(5)]

    used = {each["model"]: each["used"]["requests_per_minute"] for each in quotas.all()}
    assert [refusal is None for refusal in refusals] == [True, False, False, False, False]
    assert used == {"": 1, "m": 1}
