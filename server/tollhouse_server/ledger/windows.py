"""Where a limit's window begins and ends; days and months are those of a time zone's calendar."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from tollhouse_server.ledger.terms import Window

TOTAL_START = datetime(1970, 1, 1, tzinfo=UTC)


def window_start(window: Window, at: datetime, zone: ZoneInfo) -> datetime:
    """Return the start, in UTC, of the window that holds the aware moment `at`."""
    if window is Window.TOTAL:
        return TOTAL_START
    if window is Window.MINUTE:
        return at.astimezone(UTC).replace(second=0, microsecond=0)
    if window is Window.HOUR:
        return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    day = at.astimezone(zone).date()
    return midnight(day.replace(day=1) if window is Window.MONTH else day, zone)


def window_end(window: Window, start: datetime, zone: ZoneInfo) -> datetime | None:
    """Return the moment, in UTC, at which the window that began at `start` is over; None for TOTAL."""
    match window:
        case Window.TOTAL:
            return None
        case Window.MINUTE:
            return start + timedelta(minutes=1)
        case Window.HOUR:
            return start + timedelta(hours=1)
        case Window.DAY:
            # 23 or 25 hours away when the clocks change.
            return midnight(start.astimezone(zone).date() + timedelta(days=1), zone)
        case Window.MONTH:
            return midnight(month_after(start.astimezone(zone).date()), zone)


def midnight(day: date, zone: ZoneInfo) -> datetime:
    """Return, in UTC, the first moment of a calendar day; where the clocks skip midnight, the moment they do."""
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


def month_after(day: date) -> date:
    """Return the first day of the month after that of `day`."""
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)
