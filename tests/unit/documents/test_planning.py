"""When statements go out that go by a day: as that day begins where the tenant is."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from tollhouse_server.chargeback.periods import tenant_month
from tollhouse_server.documents.planning import due_at
from tollhouse_server.tenancy.store import Clock

NOW = datetime(2026, 12, 31, tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "first", "month", "day", "due"),
    [
        # The clocks are set back on November 1st, and on March 8th forward: between the month's end and the day.
        ("America/New_York", 1, "2026-10", 10, "2026-11-10T00:00-05:00"),
        ("America/New_York", 1, "2026-02", 10, "2026-03-10T00:00-04:00"),
        ("Europe/Berlin", 15, "2026-09", 20, "2026-11-03T00:00+01:00"),
        # There is no midnight on the day on which the clocks are set forward.
        ("America/Santiago", 1, "2026-08", 6, "2026-09-06T01:00-03:00"),
        ("Asia/Kathmandu", 1, "2026-05", 1, "2026-06-01T00:00+05:45"),
        ("UTC", 28, "2026-01", 28, "2026-03-27T00:00+00:00"),
    ],
)
def test_a_statement_is_due_as_the_day_begins_in_its_zone(
    zone: str, first: int, month: str, day: int, due: str
) -> None:
    """An hour early is the day before."""
    clock = Clock(now=NOW, zone=ZoneInfo(zone), fiscal_month_start_day=first)

    assert due_at(tenant_month(month, clock), day) == datetime.fromisoformat(due)
