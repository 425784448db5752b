"""What will be charged for a month whose cost is forecast."""

from tollhouse_server.chargeback.charge_forecast import with_charge
from tollhouse_server.chargeback.statement import Entry, EntryKind, Forecast

FORECAST = Forecast(
    expected_nanos=300,
    low_nanos=200,
    high_nanos=500,
    confidence_percent=90,
    reserve_percent=20,
    recommended_nanos=360,
)


def entry(kind: EntryKind, amount_nanos: int) -> Entry:
    """Build an entry of the month until now."""
    return Entry(kind=kind, amount_nanos=amount_nanos, rule="r", reason="why")


def charges(*entries: Entry, booked_nanos: int = 100) -> tuple[int, int, int, int]:
    """Return the band of the charge, what is expected, and what is to be set aside."""
    found = with_charge(FORECAST, booked_nanos=booked_nanos, entries=entries)
    assert (found.expected_nanos, found.low_nanos, found.high_nanos, found.recommended_nanos) == (300, 200, 500, 360)
    return found.low_charge_nanos, found.expected_charge_nanos, found.high_charge_nanos, found.recommended_charge_nanos


def test_without_entries_the_charge_is_the_cost() -> None:
    """To the nano-dollar, with its reserve."""
    assert charges() == (200, 300, 500, 360)


def test_mark_ups_grow_with_the_cost_and_shared_costs_and_credits_do_not() -> None:
    """Ten per cent until now are ten per cent of what is to come; a platform fee comes once."""
    found = charges(
        entry(EntryKind.RATE, 10),
        entry(EntryKind.SHARED, 1_000),
        entry(EntryKind.ADJUSTMENT, -100),
        entry(EntryKind.TRUE_UP, 7),
    )

    assert found == (220 + 907, 330 + 907, 550 + 907, 1237 + 247)


def test_a_discount_of_more_than_everything_turns_the_band_round() -> None:
    """Low stays below high."""
    assert charges(entry(EntryKind.RATE, -200)) == (-500, -300, -200, -360)


def test_a_month_without_cost_yet_has_what_is_added_to_it() -> None:
    """There is nothing that a rate could be a part of."""
    assert charges(entry(EntryKind.SHARED, 50), booked_nanos=0) == (250, 350, 550, 420)
