"""Where a limit's window begins and ends."""

from datetime import UTC, datetime, timedelta
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
    local = at.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if window is Window.MONTH:
        local = local.replace(day=1)
    return local.astimezone(UTC)


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
            # Midnight of the next calendar day: 23 or 25 hours away when the clocks change.
            local = start.astimezone(zone).replace(tzinfo=None) + timedelta(days=1)
        case Window.MONTH:
            local = (start.astimezone(zone).replace(tzinfo=None, day=1) + timedelta(days=32)).replace(day=1)
    return local.replace(tzinfo=zone).astimezone(UTC)
