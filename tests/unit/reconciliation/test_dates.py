"""Google's days and tenants' months: every day belongs to one month of a tenant, and to one only."""

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest
from tollhouse_server.reconciliation.dates import days_within, google_day
from tollhouse_server.reporting.periods import month_period

ZONES = ("UTC", "Europe/Berlin", "America/Los_Angeles", "Asia/Shanghai", "Pacific/Kiritimati")


def test_a_day_begins_at_midnight_in_california_summer_and_winter() -> None:
    """Seven hours after UTC's in July, eight in December."""
    moments = [datetime(2026, 7, 2, 6, 59, tzinfo=UTC), datetime(2026, 12, 2, 7, 59, tzinfo=UTC)]

    assert [google_day(at) for at in moments] == [date(2026, 7, 1), date(2026, 12, 1)]


@pytest.mark.parametrize("zone", ZONES)
def test_the_months_of_a_tenant_follow_upon_each_other_without_a_gap(zone: str) -> None:
    """Where one ends the next begins, whatever the time zone."""
    months = [f"2026-{month:02}" for month in range(1, 13)]

    days = [days_within(month_period(month, ZoneInfo(zone))) for month in months]

    assert [end for _, end in days[:-1]] == [start for start, _ in days[1:]]


@pytest.mark.parametrize(
    ("zone", "first", "behind"),
    [
        # Midnight of 1 October is the afternoon of 30 September in California, or the night of 1 October there.
        ("UTC", date(2026, 10, 1), date(2026, 11, 1)),
        ("Asia/Shanghai", date(2026, 10, 1), date(2026, 11, 1)),
        ("Pacific/Honolulu", date(2026, 10, 2), date(2026, 11, 2)),
    ],
)
def test_a_day_belongs_to_the_month_that_its_midnight_is_in(zone: str, first: date, behind: date) -> None:
    """One that has begun before the month does is the month's before, however many of its hours are in this one."""
    assert days_within(month_period("2026-10", ZoneInfo(zone))) == (first, behind)


def test_a_month_in_california_has_the_days_of_its_calendar() -> None:
    """There a tenant's month is Google's."""
    assert days_within(month_period("2026-10", ZoneInfo("America/Los_Angeles"))) == (
        date(2026, 10, 1),
        date(2026, 11, 1),
    )
