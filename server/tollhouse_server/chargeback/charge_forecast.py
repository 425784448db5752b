"""From the forecast of a month's cost to that of its charge; pure."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from tollhouse_server.chargeback.statement import Entry, EntryKind, Forecast
from tollhouse_server.money import divided

_HUNDRED: Final = 100


def with_charge(forecast: Forecast, *, booked_nanos: int, entries: Sequence[Entry]) -> Forecast:
    """Return a forecast of cost with what will be charged for it.

    Mark-ups and discounts go on as they were until now, in proportion to the cost; steps of volume that are not reached
    yet are not foreseen. Shared costs, credits and true-ups are what they are, however much is used.
    """
    rates = sum(entry.amount_nanos for entry in entries if entry.kind is EntryKind.RATE)
    others = sum(entry.amount_nanos for entry in entries if entry.kind is not EntryKind.RATE)

    def charge_of(cost_nanos: int) -> int:
        return cost_nanos + others + (divided(rates * cost_nanos, booked_nanos) if booked_nanos > 0 else rates)

    # A discount of more than everything turns the band round.
    low, high = sorted((charge_of(forecast.low_nanos), charge_of(forecast.high_nanos)))
    expected = charge_of(forecast.expected_nanos)
    return replace(
        forecast,
        expected_charge_nanos=expected,
        low_charge_nanos=low,
        high_charge_nanos=high,
        recommended_charge_nanos=expected + divided(expected * forecast.reserve_percent, _HUNDRED),
    )
