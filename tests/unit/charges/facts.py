"""Facts of November 2026 as tests tell them."""

from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import strategies as st
from tollhouse_server.chargeback.cells import Month
from tollhouse_server.chargeback.statement import UsageFact
from tollhouse_server.reporting.periods import month_period

DAYS = tuple(date(2026, 11, day) for day in range(1, 31))
PATHS = (("research",), ("research", "vision"), ("sales",), ("sales", "emea"), ())


def month_of(name: str, zone: str = "UTC") -> Month:
    """A calendar month."""
    return Month(name=name, period=month_period(name, ZoneInfo(zone)), time_zone=zone, is_fiscal=False)


def fact(*path: str, **fields: Any) -> UsageFact:
    """A fact of a department on 10 November; ten calls at $1 together, unless `fields` say otherwise."""
    given: dict[str, Any] = {
        "project": "p",
        "tier": "flash",
        "model": "gemini-3.5-flash",
        "calls": 10,
        "cost_nanos": 1_000_000_000,
        "tokens": 1000,
    }
    return _of_day(department_path=path, **{**given, **fields})


def _of_day(*, day: date = date(2026, 11, 10), cost_nanos: int, **fields: Any) -> UsageFact:
    return UsageFact(daily_nanos={day: cost_nanos}, cost_nanos=cost_nanos, **fields)


FACTS = st.lists(
    st.builds(
        _of_day,
        day=st.sampled_from(DAYS),
        department_path=st.sampled_from(PATHS),
        project=st.just("p"),
        tier=st.sampled_from(["flash", "pro"]),
        model=st.sampled_from(["gemini-3.5-flash", "gemini-3.5-pro"]),
        calls=st.integers(0, 10**6),
        cost_nanos=st.integers(-(10**6), 10**13),
        tokens=st.integers(0, 10**12),
    ),
    max_size=30,
)
