"""From what is known of a running month to its forecast: which days count, and how much of today is still to come."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from tollhouse_server.chargeback.cells import Cell, DailyCost, Month
from tollhouse_server.chargeback.charge_forecast import with_charge
from tollhouse_server.chargeback.forecast import (
    HISTORY_DAYS,
    ForecastTerms,
    History,
    NoForecast,
    Outlook,
    outlook,
)
from tollhouse_server.chargeback.statement import Entry
from tollhouse_server.ledger.windows import midnight

_WHOLE = 1_000_000


def is_running(month: Month, now: datetime) -> bool:
    """Tell whether a month has begun and is not over."""
    return month.period.start <= now < month.period.end


def outlook_of(
    month: Month,
    *,
    now: datetime,
    cells: Sequence[Cell],
    entries: Sequence[Entry],
    daily: Sequence[DailyCost],
    department: str,
    terms: ForecastTerms,
) -> Outlook:
    """Return what a month will have cost; `cells` and `entries` are what it has until `now`, of that scope alone.

    `daily` is what the days before today have cost, of the whole tenant; `department` empty means all of it.
    """
    booked_nanos = sum(cell.cost_nanos for cell in cells)
    if not is_running(month, now):
        return Outlook(forecast=None, reason=NoForecast.NOT_RUNNING, booked_nanos=booked_nanos)
    zone = month.zone
    today = now.astimezone(zone).date()
    start, end = midnight(today, zone), midnight(today + timedelta(days=1), zone)
    history = History(
        today=today,
        costs=costs_of_days(daily, department, now=now, zone=zone),
        booked_nanos=booked_nanos,
        days_to_come=(month.last_day - today).days + 1,
        share_of_today_millionths=(end - now) * _WHOLE // (end - start),
    )
    found = outlook(history, terms)
    if found.forecast is None:
        return found
    return replace(found, forecast=with_charge(found.forecast, booked_nanos=booked_nanos, entries=entries))


def costs_of_days(daily: Sequence[DailyCost], department: str, *, now: datetime, zone: ZoneInfo) -> list[int]:
    """Return the cost of the days before today, one behind the other, of a department with everything below it."""
    today = now.astimezone(zone).date()
    found = dict.fromkeys((today - timedelta(days=back) for back in range(HISTORY_DAYS, 0, -1)), 0)
    for one in daily:
        if one.day in found and (not department or department in one.department_path):
            found[one.day] += one.cost_nanos
    return list(found.values())
