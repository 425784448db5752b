"""Stretches of time: months and days are those of a time zone's calendar, whatever the clocks do in it."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from tollhouse_server.ledger.windows import midnight, month_after


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """From `start`, inclusive, to `end`, exclusive; both aware."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """A calendar day and the moment at which it began in its time zone."""

    date: date
    start: datetime


def month_of(at: datetime, zone: ZoneInfo) -> str:
    """Return the calendar month, `YYYY-MM`, that the aware moment `at` is in."""
    return f"{at.astimezone(zone):%Y-%m}"


def month_period(month: str, zone: ZoneInfo) -> Period:
    """Return the period of a month written `YYYY-MM`."""
    first = date.fromisoformat(f"{month}-01")
    return Period(start=midnight(first, zone), end=midnight(month_after(first), zone))


def day_after(moment: datetime, zone: ZoneInfo) -> Period:
    """Return the rest of the calendar day that the moment is in: up to the next midnight of the zone.

    Where a tenant has changed his time zone, the day that follows on the last one of the old zone is longer or shorter.
    """
    day = moment.astimezone(zone).date()
    while (end := midnight(day, zone)) <= moment:
        day += timedelta(days=1)
    return Period(start=moment, end=end)


def calendar_month(first: date) -> Period:
    """Return the month of UTC that begins with the day `first`: what one partition of the records holds."""
    return month_period(f"{first:%Y-%m}", ZoneInfo("UTC"))


def days_of(period: Period, zone: ZoneInfo) -> tuple[Day, ...]:
    """Return the calendar days that have a part in the period, in order."""
    return tuple(_days(period, zone))


def _days(period: Period, zone: ZoneInfo) -> Iterator[Day]:
    day = period.start.astimezone(zone).date()
    while (start := midnight(day, zone)) < period.end:
        following = day + timedelta(days=1)
        # Samoa had no 30 December 2011: a day without a moment is none.
        if midnight(following, zone) > start:
            yield Day(date=day, start=start)
        day = following
