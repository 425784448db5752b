"""Google's days: a day of a bill is one of US Pacific time, whatever the tenant's time zone.

Cloud Billing groups use from midnight to midnight Pacific time, and an invoice month is one of Pacific time too
(cloud.google.com/channel/docs/reference/rest/v1/DateRange; cloud.google.com/billing/docs/how-to/
export-data-bigquery-tables/standard-usage, both read November 2026).
"""

from datetime import date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from tollhouse_server.ledger.windows import midnight, month_after
from tollhouse_server.reporting.periods import Period

PACIFIC: Final = ZoneInfo("America/Los_Angeles")


def google_day(at: datetime) -> date:
    """Return the day of a bill that an aware moment is in."""
    return at.astimezone(PACIFIC).date()


def days_of_month(month: str) -> tuple[date, date]:
    """Return the first day of a month `YYYY-MM` and the first one behind it."""
    first = date.fromisoformat(f"{month}-01")
    return first, month_after(first)


def days_within(period: Period) -> tuple[date, date]:
    """Return the first of Google's days that begin within a period, and the first that does not any more.

    A day belongs to the period that its midnight is in, so that it belongs to one month of a tenant, and to one only,
    whatever his time zone and fiscal year.
    """
    return _first_from(period.start), _first_from(period.end)


def _first_from(moment: datetime) -> date:
    day = google_day(moment)
    return day if midnight(day, PACIFIC) >= moment else day + timedelta(days=1)
