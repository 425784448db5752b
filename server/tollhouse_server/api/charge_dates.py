"""Days and months as they are written on the wire: `2026-12-01`, `2026-12`."""

from datetime import date

from tollhouse_server.names import invalid


def day_of(text: str, field: str) -> date:
    """Return a day.

    Raises:
        InvalidRequest: it is absent, or no day of the calendar.
    """
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise invalid(field, "must be a day of the calendar, YYYY-MM-DD") from None


def optional_day(text: str, field: str) -> date | None:
    """Return a day, None for an empty text."""
    return day_of(text, field) if text else None


def month_of(text: str, field: str) -> date:
    """Return the first day of a month.

    Raises:
        InvalidRequest: it is absent, or no month.
    """
    if len(text) != len("2026-12"):
        raise invalid(field, "must be a month, YYYY-MM")
    return day_of(f"{text}-01", field)


def optional_month(text: str, field: str) -> date | None:
    """Return the first day of a month, None for an empty text."""
    return month_of(text, field) if text else None


def end_after(ends: date, *, starts: date, ended: date | None, field: str) -> date:
    """Return an end that is not before the start and not after the end that there is.

    Raises:
        InvalidRequest: it is not.
    """
    if ends < starts:
        raise invalid(field, f"must not be before {starts}, when it begins")
    if ended is not None and ends > ended:
        raise invalid(field, f"must not be after {ended}, when it ends already; begin a new one instead")
    return ends
