"""Where a limit's window begins and ends, in a tenant's calendar; and the days for which a request id is remembered."""

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from tollhouse_server.ledger.terms import Calendar, Window

TOTAL_START = datetime(1970, 1, 1, tzinfo=UTC)

_ROLLING_MINUTES = 10

_MIDNIGHT_IS_NEAR = timedelta(minutes=5)
"""Far longer than any tick lasts: after it nobody is still claiming request ids for the day before."""

_LENGTHS = {
    Window.MINUTE: timedelta(minutes=1),
    Window.ROLLING_10_MINUTES: timedelta(minutes=_ROLLING_MINUTES + 1),
    Window.HOUR: timedelta(hours=1),
}


@lru_cache(maxsize=4096)
def moment(seconds: int) -> datetime:
    """Return the moment so many seconds after 1970 began, in UTC. Few windows are open at a time."""
    return datetime.fromtimestamp(seconds, UTC)


def window_start(window: Window, at: datetime, calendar: Calendar) -> datetime:
    """Return the start, in UTC, of the window that holds the aware moment `at`.

    A rolling window has a counter for each minute: its start here is that of the minute.
    """
    if window is Window.TOTAL:
        return TOTAL_START
    if window in {Window.MINUTE, Window.ROLLING_10_MINUTES}:
        return at.astimezone(UTC).replace(second=0, microsecond=0)
    if window is Window.HOUR:
        return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    day = at.astimezone(calendar.zone).date()
    return midnight(_first_day(window, day, calendar), calendar.zone)


def _first_day(window: Window, day: date, calendar: Calendar) -> date:
    if window is Window.MONTH:
        return day.replace(day=1)
    if window is Window.FISCAL_MONTH:
        start_day = calendar.fiscal_month_start_day
        in_month = day if day.day >= start_day else day.replace(day=1) - timedelta(days=1)
        return in_month.replace(day=start_day)
    return day


def window_end(window: Window, start: datetime, calendar: Calendar) -> datetime | None:
    """Return the moment, in UTC, at which nothing of the window that began at `start` counts any more.

    None for TOTAL, which never ends.
    """
    if window in _LENGTHS:
        return start + _LENGTHS[window]
    day = start.astimezone(calendar.zone).date()
    match window:
        case Window.DAY:
            # 23 or 25 hours away when the clocks change.
            return midnight(day + timedelta(days=1), calendar.zone)
        case Window.MONTH:
            return midnight(month_after(day), calendar.zone)
        case Window.FISCAL_MONTH:
            return midnight(month_after(day).replace(day=calendar.fiscal_month_start_day), calendar.zone)
        case _:
            return None


def counted_starts(window: Window, start: datetime) -> tuple[datetime, ...]:
    """Return the starts of all counters that count for a call whose own counter begins at `start`.

    A rolling window counts the ten minutes before, and the next one too: another server's clock reading may be from
    just after the minute, this one's from just before.
    """
    if window is not Window.ROLLING_10_MINUTES:
        return (start,)
    return tuple(start + timedelta(minutes=offset) for offset in range(-_ROLLING_MINUTES, 2))


def midnight(day: date, zone: ZoneInfo) -> datetime:
    """Return, in UTC, the first moment of a calendar day; where the clocks skip midnight, the moment they do."""
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


def month_after(day: date) -> date:
    """Return the first day of the month after that of `day`."""
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


class ClaimDays(NamedTuple):
    """Days (UTC). A request id may be taken on any of the first two, and must be claimed for those in `claimed`;
    `earlier` is the one without a claim, None where both have one."""

    yesterday: date
    today: date
    claimed: list[date]
    earlier: date | None


def days_of_claims(now: datetime) -> ClaimDays:
    """Return the days of the claims made at the aware moment `now`.

    Just after midnight another tick may still be claiming for the day before: then both days are claimed.
    """
    today = now.astimezone(UTC).date()
    yesterday = today - timedelta(days=1)
    if now - datetime(today.year, today.month, today.day, tzinfo=UTC) < _MIDNIGHT_IS_NEAR:
        return ClaimDays(yesterday, today, claimed=[yesterday, today], earlier=None)
    return ClaimDays(yesterday, today, claimed=[today], earlier=yesterday)
