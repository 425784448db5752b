"""Where windows begin and end."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tollhouse_server.ledger.terms import Calendar, Window
from tollhouse_server.ledger.windows import window_end, window_start

BERLIN = Calendar(ZoneInfo("Europe/Berlin"), fiscal_month_start_day=26)
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/Los_Angeles", "Pacific/Apia"]).map(ZoneInfo)
TILING = [window for window in Window if window not in {Window.TOTAL, Window.ROLLING_10_MINUTES}]
MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC))


@pytest.mark.parametrize(
    ("window", "start", "end"),
    [
        (Window.MINUTE, datetime(2026, 3, 29, 10, 20, tzinfo=UTC), datetime(2026, 3, 29, 10, 21, tzinfo=UTC)),
        (Window.HOUR, datetime(2026, 3, 29, 10, 0, tzinfo=UTC), datetime(2026, 3, 29, 11, 0, tzinfo=UTC)),
        (Window.DAY, datetime(2026, 3, 28, 23, 0, tzinfo=UTC), datetime(2026, 3, 29, 22, 0, tzinfo=UTC)),
        (Window.MONTH, datetime(2026, 2, 28, 23, 0, tzinfo=UTC), datetime(2026, 3, 31, 22, 0, tzinfo=UTC)),
        (Window.FISCAL_MONTH, datetime(2026, 3, 25, 23, 0, tzinfo=UTC), datetime(2026, 4, 25, 22, 0, tzinfo=UTC)),
        (Window.TOTAL, datetime(1970, 1, 1, tzinfo=UTC), None),
    ],
)
def test_days_and_months_are_cut_in_the_tenants_time_zone(
    window: Window, start: datetime, end: datetime | None
) -> None:
    """On the day the clocks go forward in Berlin the day has 23 hours."""
    at = datetime(2026, 3, 29, 10, 20, 30, tzinfo=UTC)

    found = window_start(window, at, BERLIN)

    assert (found, window_end(window, found, BERLIN)) == (start, end)


@given(at=MOMENTS, zone=ZONES, window=st.sampled_from(TILING), day=st.integers(1, 28))
def test_windows_tile_time(at: datetime, zone: ZoneInfo, window: Window, day: int) -> None:
    """Every moment lies in its window, and the end of a window is the start of the next."""
    calendar = Calendar(zone, fiscal_month_start_day=day)
    start = window_start(window, at, calendar)

    end = window_end(window, start, calendar)

    assert end is not None
    assert start <= at < end
    assert window_start(window, end, calendar) == end
