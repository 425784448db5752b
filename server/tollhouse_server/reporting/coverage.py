"""Which stretches of a period are read from roll-ups, and which from the records themselves."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from tollhouse_server.reporting.periods import Day, Period


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingPlan:
    """Stretches that tile a period exactly: those of `rolled_up` consist of whole rolled-up days, `records` of none."""

    rolled_up: tuple[Period, ...]
    records: tuple[Period, ...]


def plan_reading(period: Period, rolled_up: Iterable[Period], days: Sequence[Day] = ()) -> ReadingPlan:
    """Divide a period into what its rolled-up days cover and the rest.

    `rolled_up` are days in order that lie within the period and do not overlap. With `days`, those that a report is
    split by, only a rolled-up day within one of them can be used: a tenant that has changed his time zone has others.
    """
    starts = [day.start for day in days]
    usable = [one for one in rolled_up if not _is_cut(one, starts)]
    covered = tuple(_joined(usable))
    return ReadingPlan(rolled_up=covered, records=tuple(_gaps(period, covered)))


def _is_cut(rolled_up: Period, starts: Sequence[datetime]) -> bool:
    return bisect_right(starts, rolled_up.start) < bisect_left(starts, rolled_up.end)


def _joined(periods: Iterable[Period]) -> Iterator[Period]:
    """Yield the periods with those that follow upon each other made one."""
    last: Period | None = None
    for period in periods:
        if last is not None and last.end == period.start:
            last = Period(start=last.start, end=period.end)
            continue
        if last is not None:
            yield last
        last = period
    if last is not None:
        yield last


def _gaps(period: Period, covered: Sequence[Period]) -> Iterator[Period]:
    edges: list[tuple[datetime, datetime]] = [(period.start, period.start)]
    edges += [(one.start, one.end) for one in covered]
    edges.append((period.end, period.end))
    for (_, end), (start, _) in pairwise(edges):
        if end < start:
            yield Period(start=end, end=start)
