"""The forecast of a month, held against what then happened in months that were made up."""

import random
from datetime import date, timedelta

import pytest
from tollhouse_server.chargeback.forecast import ForecastTerms, History, NoForecast, outlook

DOLLAR = 1_000_000_000
FIRST = date(2026, 9, 7)
"""A Monday."""

PROFILE = (1.2, 1.3, 1.25, 1.2, 1.05, 0.6, 0.4)


def company(seed: int, *, days: int, growth: float, noise: float) -> list[int]:
    """Make up the cost of days: about 100 dollars, more or less every day, by weekday, with chance."""
    chance = random.Random(seed)
    level = 100 * DOLLAR
    return [
        max(0, round(level * (1 + growth * day) * PROFILE[day % 7] * chance.gauss(1, noise))) for day in range(days)
    ]


def history(costs: list[int], *, seen: int, of_month: int, to_come: int) -> History:
    """Return what is known of a series on the morning behind `seen` days, `of_month` of which are of the month."""
    return History(
        today=FIRST + timedelta(days=seen),
        costs=costs[:seen],
        booked_nanos=sum(costs[seen - of_month : seen]),
        days_to_come=to_come,
    )


SERIES = [(56, 0.0, 0.15), (56, 0.01, 0.1), (70, -0.004, 0.2), (28, 0.005, 0.15), (16, 0.0, 0.2)]
"""Days that were seen, growth by the day, and noise."""


def share_inside(*, confidence: int, months: int = 16) -> float:
    """Return in how many made-up months, so many of each kind, the band held what the month really cost."""
    inside = 0
    for seen, growth, noise in SERIES:
        for seed in range(months):
            costs = company(seed, days=seen + 20, growth=growth, noise=noise)
            known = history(costs, seen=seen, of_month=10, to_come=20)
            made = outlook(known, ForecastTerms(confidence_percent=confidence)).forecast
            assert made is not None
            inside += made.low_nanos <= sum(costs[seen - 10 :]) <= made.high_nanos
    return inside / (months * len(SERIES))


@pytest.mark.parametrize(("confidence", "least", "most"), [(90, 0.83, 0.98), (50, 0.38, 0.64)])
def test_the_band_holds_as_often_as_it_promises(confidence: int, least: float, most: float) -> None:
    """In months with growth, a weekday pattern and noise; a band that always held everything would say nothing."""
    assert least <= share_inside(confidence=confidence) <= most


def test_weekdays_that_repeat_exactly_are_forecast_to_the_cent() -> None:
    """Without chance the band is a line, and today's weekday is where it belongs."""
    costs = [round(100 * DOLLAR * PROFILE[day % 7]) for day in range(90)]

    made = outlook(history(costs, seen=59, of_month=11, to_come=20), ForecastTerms()).forecast

    assert made is not None
    assert abs(made.expected_nanos - sum(costs[48:79])) < DOLLAR // 100
    assert made.high_nanos - made.low_nanos < DOLLAR // 100


def test_what_is_set_aside_is_a_fifth_more_than_expected_unless_told_otherwise() -> None:
    """To the nano-dollar, from what is expected."""
    known = history(company(1, days=60, growth=0, noise=0.1), seen=56, of_month=10, to_come=4)

    usual, other = (outlook(known, terms).forecast for terms in (ForecastTerms(), ForecastTerms(reserve_percent=35)))

    assert usual is not None and other is not None
    assert usual.recommended_nanos == usual.expected_nanos + round(usual.expected_nanos / 5)
    assert abs(other.recommended_nanos * 100 - usual.expected_nanos * 135) <= 50


@pytest.mark.parametrize("costs", [[], [0] * 56, [0] * 43 + [DOLLAR] * 13])
def test_too_few_days_are_no_forecast(costs: list[int]) -> None:
    """Days before the first cost are none; whoever has seen each weekday once has seen no profile."""
    found = outlook(history(costs, seen=len(costs), of_month=0, to_come=20), ForecastTerms())

    assert (found.forecast, found.reason) == (None, NoForecast.TOO_FEW_DAYS)


def test_what_is_booked_stays_and_the_same_history_has_the_same_forecast() -> None:
    """On the last evening little can happen; nothing of it depends on chance."""
    costs = company(3, days=60, growth=0.002, noise=0.3)
    evening = History(
        today=FIRST + timedelta(days=56),
        costs=costs[:56],
        booked_nanos=5_000 * DOLLAR,
        days_to_come=1,
        share_of_today_millionths=1_000,
    )

    first, second = (outlook(evening, ForecastTerms()) for _ in range(2))

    assert first == second
    assert first.forecast is not None
    assert 5_000 * DOLLAR <= first.forecast.low_nanos <= first.forecast.high_nanos < 5_001 * DOLLAR
