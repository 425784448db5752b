"""Months and days of a time zone's calendar."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st
from tollhouse_server.ledger.windows import midnight
from tollhouse_server.reporting.periods import Period, days_of, month_of, month_period

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = st.sampled_from(
    ["UTC", "Europe/Berlin", "America/Havana", "Africa/Cairo", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia"]
)


def test_a_month_begins_and_ends_at_local_midnight() -> None:
    """March in Berlin begins in winter time and ends in summer time."""
    period = month_period("2026-03", BERLIN)

    assert period.start == datetime(2026, 2, 28, 23, tzinfo=UTC)
    assert period.end == datetime(2026, 3, 31, 22, tzinfo=UTC)


def test_december_ends_where_the_next_year_begins() -> None:
    """The year turns over."""
    assert month_period("2026-12", BERLIN).end == month_period("2027-01", BERLIN).start


def test_the_current_month_is_that_of_the_time_zone() -> None:
    """New year's eve in UTC is new year in Berlin."""
    assert month_of(datetime(2026, 12, 31, 23, 30, tzinfo=UTC), BERLIN) == "2027-01"


def test_a_day_whose_midnight_is_skipped_begins_when_the_clocks_jump() -> None:
    """Cairo goes from 23:59:59 to 01:00 on 26 April 2024."""
    start = midnight(date(2024, 4, 26), ZoneInfo("Africa/Cairo"))

    assert start == datetime(2024, 4, 25, 22, tzinfo=UTC)
    assert (start - timedelta(microseconds=1)).astimezone(ZoneInfo("Africa/Cairo")).date() == date(2024, 4, 25)


def test_an_empty_period_has_no_day_after_its_start() -> None:
    """A period that starts at midnight and is empty has no days."""
    start = midnight(date(2026, 5, 1), BERLIN)

    assert days_of(Period(start=start, end=start), BERLIN) == ()


def test_a_day_that_the_calendar_left_out_is_no_day() -> None:
    """Samoa went from 29 to 31 December 2011 when it changed sides of the date line."""
    apia = ZoneInfo("Pacific/Apia")
    period = Period(start=midnight(date(2011, 12, 29), apia), end=midnight(date(2012, 1, 1), apia))

    assert [day.date.day for day in days_of(period, apia)] == [29, 31]


@settings(deadline=None)
@given(st.datetimes(datetime(2010, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)), st.integers(1, 2000), ZONES)
def test_every_moment_of_a_period_is_in_exactly_the_day_that_a_calendar_shows(
    start: datetime, hours: int, name: str
) -> None:
    """The last day that began before a moment is the moment's date, in any zone, over any change of clocks."""
    zone = ZoneInfo(name)
    period = Period(start=start, end=start + timedelta(hours=hours))

    days = days_of(period, zone)

    assert [day.start for day in days] == sorted({day.start for day in days})
    for moment in (period.start + timedelta(hours=hour) for hour in range(0, hours, 7)):
        found = [day for day in days if day.start <= moment][-1]
        assert found.date == moment.astimezone(zone).date()
