"""What a month will have cost when it ends: a weekday profile along a straight line through the last weeks; pure.

How sure that is, is found by making the history anew some hundred times from what the line did not explain, each time
fitting it again: the band holds the middle of these outcomes. So a history that varies much, or is short, has a wide
band. Chance has a fixed seed: the same history has the same forecast. Money is whole nano-dollars at both ends, and
fractions in between.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Final, TypeAlias

from tollhouse_server.chargeback.statement import Forecast
from tollhouse_server.money import charge_nanos

HISTORY_DAYS: Final = 56
"""Days looked back on, eight whole weeks: what was before tells little about this month."""

LEAST_DAYS: Final = 14
"""Days since the first cost below which nothing is said: every weekday was seen twice."""

RESERVE_PERCENT: Final = 20
CONFIDENCE_PERCENT: Final = 90

_WEEK: Final = 7
_OUTCOMES: Final = 200
_SEED: Final = 20_261_121
_MILLION: Final = 1_000_000
_MARGIN: Final = 1.1
"""Measured on made-up months: without it a band of 90 per cent held 86 of 100, as few days know little of chance."""

Weights: TypeAlias = Sequence[float]
"""How much of an average day each weekday is, Monday first."""


class NoForecast(StrEnum):
    """Why nothing is said."""

    TOO_FEW_DAYS = "TOO_FEW_DAYS"
    """There was cost on too few days, or for too short a time."""

    NOT_RUNNING = "NOT_RUNNING"
    """The month is over, or has not begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastTerms:
    """How sure the band is to be, and what is set aside beyond what is expected; both in per cent."""

    confidence_percent: int = CONFIDENCE_PERCENT
    reserve_percent: int = RESERVE_PERCENT


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What a forecast is made from.

    `costs` are those of complete days, one behind the other, the last one that of the day before `today`; of `today`
    the share that is still to come counts, in millionths. `booked_nanos` is what the month has cost until now.
    """

    today: date
    costs: Sequence[int]
    booked_nanos: int
    days_to_come: int
    share_of_today_millionths: int = _MILLION


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """A forecast, or why there is none; with what it was made from.

    `weekday_permille` is what each weekday is of an average day, Monday first; `level_nanos` the average day now, and
    `trend_nanos` by how much that grows from day to day.
    """

    forecast: Forecast | None
    reason: NoForecast | None = None
    booked_nanos: int = 0
    history_days: int = 0
    days_to_come: int = 0
    weekday_permille: tuple[int, ...] = ()
    level_nanos: int = 0
    trend_nanos: int = 0


@dataclass(frozen=True, slots=True)
class _Line:
    """A fitted history: `level` is the average day's cost on day 0, which is today; days before it are negative."""

    weights: Weights
    level: float
    slope: float
    today: int

    def at(self, day: int) -> float:
        """Return what a day is expected to cost; never less than nothing."""
        return max(0.0, self.weights[(self.today + day) % _WEEK] * (self.level + self.slope * day))


def outlook(history: History, terms: ForecastTerms) -> Outlook:
    """Return what the month will have cost, or why nobody can say."""
    costs = [float(nanos) for nanos in _since_first_cost(history.costs[-HISTORY_DAYS:])]
    if len(costs) < LEAST_DAYS:
        return Outlook(
            forecast=None,
            reason=NoForecast.TOO_FEW_DAYS,
            booked_nanos=history.booked_nanos,
            history_days=len(costs),
            days_to_come=history.days_to_come,
        )
    line = _fitted(costs, history.today.weekday())
    return Outlook(
        forecast=_forecast(history, costs, line, terms),
        booked_nanos=history.booked_nanos,
        history_days=len(costs),
        days_to_come=history.days_to_come,
        weekday_permille=tuple(round(weight * 1000) for weight in line.weights),
        level_nanos=round(line.level),
        trend_nanos=round(line.slope),
    )


def _since_first_cost(costs: Sequence[int]) -> Sequence[int]:
    first = next((place for place, nanos in enumerate(costs) if nanos > 0), len(costs))
    return costs[first:]


def _forecast(history: History, costs: Sequence[float], line: _Line, terms: ForecastTerms) -> Forecast:
    rest = _rest(history, line)
    outcomes = sorted(_outcomes(history, costs, line))
    outside = (100 - terms.confidence_percent) / 200
    low, high = _quantile(outcomes, outside), _quantile(outcomes, 1 - outside)
    expected = history.booked_nanos + round(rest)
    return Forecast(
        expected_nanos=expected,
        low_nanos=history.booked_nanos + round(min(low, rest)),
        high_nanos=history.booked_nanos + round(max(high, rest)),
        confidence_percent=terms.confidence_percent,
        reserve_percent=terms.reserve_percent,
        recommended_nanos=expected + charge_nanos(expected, terms.reserve_percent * _MILLION // 100),
    )


def _rest(history: History, line: _Line) -> float:
    """Return what the days to come are expected to cost, today's rest included."""
    share = history.share_of_today_millionths / _MILLION
    return math.fsum(line.at(day) * (share if day == 0 else 1.0) for day in range(history.days_to_come))


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, max(0, round(share * (len(ordered) - 1))))]


# --- the line ---------------------------------------------------------------------------------------------------------


def _fitted(costs: Sequence[float], today: int) -> _Line:
    """Fit weekday weights and a line; `today` is the weekday of the day behind the last."""
    weights = _weights(costs, today)
    days = range(-len(costs), 0)
    # Least squares of cost = weight x (level + slope x day).
    of_day = [weights[(today + day) % _WEEK] for day in days]
    squares = math.fsum(w * w for w in of_day)
    first = math.fsum(w * w * day for w, day in zip(of_day, days, strict=True))
    second = math.fsum(w * w * day * day for w, day in zip(of_day, days, strict=True))
    found = math.fsum(w * cost for w, cost in zip(of_day, costs, strict=True))
    sloped = math.fsum(w * day * cost for w, day, cost in zip(of_day, days, costs, strict=True))
    spread = squares * second - first * first
    if spread <= 0:
        return _Line(weights, found / squares if squares else 0.0, 0.0, today)
    slope = (squares * sloped - first * found) / spread
    return _Line(weights, (found - slope * first) / squares, slope, today)


def _weights(costs: Sequence[float], today: int) -> list[float]:
    """Return each weekday's cost beside that of the weeks around it, so that growth is not taken for a profile."""
    sums, around = [0.0] * _WEEK, [0.0] * _WEEK
    last = len(costs) - 1
    for place, cost in enumerate(costs):
        # The week around a day; at the ends of the history, the first or last one.
        start = min(max(place - _WEEK // 2, 0), last - _WEEK + 1)
        weekday = (today + place - len(costs)) % _WEEK
        sums[weekday] += cost
        around[weekday] += math.fsum(costs[start : start + _WEEK]) / _WEEK
    weights = [found / level if level > 0 else 1.0 for found, level in zip(sums, around, strict=True)]
    total = math.fsum(weights)
    return [weight * _WEEK / total for weight in weights] if total > 0 else [1.0] * _WEEK


# --- what else could happen -------------------------------------------------------------------------------------------


def _outcomes(history: History, costs: Sequence[float], line: _Line) -> list[float]:
    """Return what the rest of the month would cost in so many worlds that are as likely as this one."""
    chance = random.Random(_SEED)  # noqa: S311 - a simulation that has to come out the same every time
    days = range(-len(costs), history.days_to_come)
    world = _World(
        past=[line.at(day) for day in days if day < 0],
        scale=[_scale(line, day) for day in days],
        unexplained=_unexplained(costs, line),
    )
    return [_outcome(history, world, chance) for _ in range(_OUTCOMES)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _World:
    """What the line says of the past, what it has left unexplained, and by what that counts on each day."""

    past: Sequence[float]
    scale: Sequence[float]
    unexplained: Sequence[float]


def _scale(line: _Line, day: int) -> float:
    """Return by what chance moves a day: it grows with the level, and is smaller on quiet weekdays."""
    return math.sqrt(line.weights[(line.today + day) % _WEEK]) * max(0.0, line.level + line.slope * day)


def _unexplained(costs: Sequence[float], line: _Line) -> list[float]:
    """Return what the line left of each day, as a part of its scale, as wide as it was before the line was fitted."""
    left = []
    for day, cost in zip(range(-len(costs), 0), costs, strict=True):
        scale = _scale(line, day)
        if scale > 0:
            left.append((cost - line.at(day)) / scale)
    if not left:
        return [0.0]
    # Seven weights, a level and a slope were fitted to it.
    wider = _MARGIN * math.sqrt(len(left) / max(1, len(left) - _WEEK - 2))
    middle = math.fsum(left) / len(left)
    return [(one - middle) * wider for one in left]


def _outcome(history: History, world: _World, chance: random.Random) -> float:
    """Return what the rest of the month costs in one world: its own history is fitted, and has its own chance."""
    drawn = [
        one * scale
        for one, scale in zip(chance.choices(world.unexplained, k=len(world.scale)), world.scale, strict=True)
    ]
    seen = len(world.past)
    again = _fitted(
        [max(0.0, cost + more) for cost, more in zip(world.past, drawn[:seen], strict=True)], history.today.weekday()
    )
    to_come = [max(0.0, again.at(day) + more) for day, more in enumerate(drawn[seen:])]
    if to_come:
        to_come[0] *= history.share_of_today_millionths / _MILLION
    return math.fsum(to_come)
