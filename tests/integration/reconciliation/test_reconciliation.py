"""A bill made from what the ledger booked agrees with it; each mistake planted in it is named, and nothing else."""

from datetime import datetime

import pytest
from tollhouse_server.pricing import store as price_store
from tollhouse_server.pricing.price_file import import_prices
from tollhouse_server.reconciliation.variances import Reason

from tests.drivers.bill_finance import (
    BILL,
    CALLS,
    COST,
    FLASH_INPUT,
    LINE,
    PRICE_BOOK,
    Finance,
    reasons_of,
    replaced,
    same_key,
)
from tests.drivers.google_bill import (
    PACIFIC,
    BilledCall,
    Row,
    book,
    changed,
    cost_nanos,
    exported_later,
    google_bill,
    moved,
    suspend,
    with_credit,
    with_other_price,
)


async def test_a_bill_of_exactly_what_was_booked_has_no_difference(finance: Finance) -> None:
    """Every line meets its own, over both tenants, projects, models and the six days."""
    found = await finance.found(BILL)

    result = await finance.reconcile()
    assert found == []
    assert result.booked_nanos == result.billed_nanos == sum(call.cost_nanos for call in CALLS)
    assert (result.compared_count > 40, result.blocking_count) == (True, 0)


def without_project(project: str) -> list[Row]:
    """Return the bill without a project."""
    return [row for row in BILL if row["project"]["id"] != f"google-{project}"]


STRANGER = changed(LINE, project={"id": "google-gamma"})
TAX = changed(LINE, cost=7.0, cost_type="tax", project={}, usage={}, sku={"id": "TAX", "description": "VAT"})
UNKNOWN = changed(LINE, sku={"id": "F00D", "description": "Telepathy token count gemini 3.8 flash"})
ADJUSTED = changed(LINE, cost=-1.5, cost_type="adjustment", usage={"amount": 0})

PLANTED: dict[str, tuple[list[Row], list[tuple[Reason, int]]]] = {
    "project missing in the ledger": ([*BILL, STRANGER], [(Reason.PROJECT_NOT_IN_LEDGER, COST)]),
    "price": (replaced(with_other_price(LINE, 2)), [(Reason.PRICE_MISMATCH, COST)]),
    "double line": (replaced(LINE, LINE), [(Reason.DOUBLE_LINE, COST)]),
    "double line, exported later": (replaced(LINE, exported_later(LINE)), [(Reason.DOUBLE_LINE, COST)]),
    "late usage": (replaced(moved(LINE, hours=24)), [(Reason.LATE_USAGE, -COST), (Reason.LATE_USAGE, COST)]),
    "rounding": (replaced(changed(LINE, cost=LINE["cost"] + 6e-7)), [(Reason.ROUNDING, 600)]),
    "credits": (replaced(with_credit(LINE, "-2.5")), [(Reason.CREDITS, -2_500_000_000)]),
    "free tier": (replaced(with_credit(LINE, "-0.5", "FREE_TIER")), [(Reason.FREE_TIER, -500_000_000)]),
    "use at no cost": (replaced(changed(LINE, cost=0.0)), [(Reason.FREE_TIER, -COST)]),
    "unknown SKU": ([*BILL, UNKNOWN], [(Reason.UNKNOWN_SKU, COST)]),
    "tax": ([*BILL, TAX], [(Reason.TAX, 7_000_000_000)]),
    "adjustment": ([*BILL, ADJUSTED], [(Reason.ADJUSTMENT, -1_500_000_000)]),
}


@pytest.mark.parametrize("planted", PLANTED)
async def test_each_mistake_in_a_bill_is_named_and_nothing_else(finance: Finance, planted: str) -> None:
    """One mistake at a time, with its exact amount."""
    rows, expected = PLANTED[planted]

    found = await finance.found(rows)

    assert reasons_of(found) == expected
    assert sum(one.line.variance_nanos for one in found) == sum(amount for _, amount in expected)


async def test_a_project_that_the_bill_lacks_is_named_on_each_of_its_lines(finance: Finance) -> None:
    """All that was booked on it is missing."""
    found = await finance.found(without_project("beta"))

    booked = sum(call.cost_nanos for call in CALLS if call.account == "beta")
    assert {reason for reason, _ in reasons_of(found)} == {Reason.PROJECT_NOT_IN_BILL}
    assert sum(one.line.variance_nanos for one in found) == -booked


async def test_mistakes_planted_together_do_not_hide_each_other(finance: Finance) -> None:
    """Some meet on one line of the comparison: a price and late usage, a double line and rounding."""
    places = [place for place, row in enumerate(BILL) if "output" in row["sku"]["description"]]
    bill = [*BILL, STRANGER, TAX, UNKNOWN]
    price, double, late, rounding, credit = places[0:10:2]
    bill[price] = with_other_price(BILL[price], 3)
    bill[late] = moved(BILL[late], hours=24)
    bill[rounding] = changed(BILL[rounding], cost=BILL[rounding]["cost"] - 4e-7)
    bill[credit] = with_credit(BILL[credit], "-1.25")
    bill.append(BILL[double])

    found = await finance.found(bill)

    assert sorted(reasons_of(found)) == sorted(
        [
            (Reason.PRICE_MISMATCH, 2 * cost_nanos(BILL[price])),
            (Reason.DOUBLE_LINE, cost_nanos(BILL[double])),
            (Reason.LATE_USAGE, -cost_nanos(BILL[late])),
            (Reason.LATE_USAGE, cost_nanos(BILL[late])),
            (Reason.ROUNDING, -400),
            (Reason.CREDITS, -1_250_000_000),
            (Reason.PROJECT_NOT_IN_LEDGER, COST),
            (Reason.TAX, 7_000_000_000),
            (Reason.UNKNOWN_SKU, COST),
        ]
    )


async def test_a_price_that_explains_what_is_billed_is_named(finance: Finance) -> None:
    """Flash costs twice as much from 2027 on; a bill that has that price already is told by it."""
    async with finance.books.database.transaction() as session:
        await price_store.put_in_force(session, import_prices(PRICE_BOOK.read_text("utf-8")))
    day = [row for row in BILL if same_key(row, LINE)]
    bill = [with_other_price(row, 2) if row in day else row for row in BILL]

    (found,) = await finance.found(bill)

    assert found.line.findings[0].detail == (
        "Billed at $1.50 a million, booked at $0.75; "
        "$1.50 is the list price of input_text of gemini-3.8-flash from 2027-01-01 on, standard."
    )


async def test_use_that_is_billed_on_the_first_of_the_next_month_is_late_and_not_missing(finance: Finance) -> None:
    """The neighbour of the last day is in a month of its own, and both months say the same of it."""
    last = BilledCall(
        tenant="acme",
        at=datetime(2026, 10, 31, 23, 30, tzinfo=PACIFIC),
        account="alpha",
        model="gemini-4-argon",
        tokens={"input_text": 70_000},
    )
    await finance.books.view.connection.execute("DELETE FROM account WHERE account_id = 'alpha'")
    await book(finance.books.view.connection, [last])
    (late,) = google_bill([last])

    found = await finance.found([*BILL, moved(late, hours=13)])
    await finance.reconcile("2026-11")

    cost = last.cost_nanos
    assert reasons_of(found) == [(Reason.LATE_USAGE, -cost)]
    assert reasons_of(await finance.variances("2026-11"))[0] == (Reason.PROJECT_NOT_IN_LEDGER, cost)


async def test_a_call_of_unknown_outcome_explains_what_is_billed_for_it(finance: Finance) -> None:
    """It is booked at what was expected, and Google bills what it was."""
    lost = BilledCall(
        tenant="acme",
        at=datetime(2026, 10, 7, 12, tzinfo=PACIFIC),
        account="alpha",
        model="gemini-3.8-flash",
        tokens={"input_text": 10_000, "output_text": 1_000},
    )
    await suspend(finance.books.view.connection, lost, booked_nanos=3 * lost.cost_nanos)

    found = await finance.found(google_bill([*CALLS, lost]))

    assert {reason for reason, _ in reasons_of(found)} == {Reason.SUSPENSE}
    assert sum(one.line.variance_nanos for one in found) == -2 * lost.cost_nanos
    assert [one.unexplained_nanos for one in found] == [0] * len(found)


async def test_a_bill_in_euros_is_compared_at_its_own_rate(finance: Finance) -> None:
    """At the rate of the bill it agrees but for rounding; a rate that is a little off is named as the currency's."""

    def in_euros(row: Row, *, booked_rate: float = 0.92) -> Row:
        return changed(row, cost=row["cost"] * booked_rate, currency="EUR", currency_conversion_rate=0.92)

    bill = [in_euros(row) for row in BILL]
    bill[FLASH_INPUT] = in_euros(LINE, booked_rate=0.9225)

    found = await finance.found(bill)

    named = {reason for reason, amount in reasons_of(found) if abs(amount) > 1000}
    assert (named, {one.unexplained_nanos for one in found}) == ({Reason.CURRENCY}, {0})


async def test_the_same_and_overlapping_files_count_once_in_any_notation(finance: Finance) -> None:
    """A line that is in two files is one line; a line that is twice in one file is two."""
    half = len(BILL) // 2
    first = await finance.take_in(BILL[: half + 10])
    overlapping = await finance.take_in(BILL[half - 10 :], as_csv_file=True)
    again = await finance.take_in(BILL)
    twice = await finance.take_in([*BILL, LINE])

    assert (first.new_line_count, overlapping.new_line_count) == (half + 10, len(BILL) - half - 10)
    assert (overlapping.line_count, again.new_line_count, twice.new_line_count) == (len(BILL) - half + 10, 0, 1)


async def test_a_later_correction_adds_to_what_was_billed(finance: Finance) -> None:
    """Google corrects by further lines with a later export time: a line too dear and what is given back are right."""
    await finance.found(replaced(with_other_price(LINE, 2)))

    given_back = exported_later(changed(LINE, cost=-LINE["cost"], usage={"amount": 0.0, "unit": "count"}))
    found = await finance.found([given_back])

    assert found == []
