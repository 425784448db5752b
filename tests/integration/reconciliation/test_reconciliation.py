"""A bill made from what the ledger booked agrees with it; each mistake planted in it is named, and nothing else."""

import random
from dataclasses import dataclass
from datetime import date, datetime
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from tollhouse_server.names import BillVarianceName
from tollhouse_server.reconciliation import import_store
from tollhouse_server.reconciliation.acceptance import accept
from tollhouse_server.reconciliation.blocking import blocking_variances
from tollhouse_server.reconciliation.import_store import BillImport
from tollhouse_server.reconciliation.reader import BillFormat, read_piece
from tollhouse_server.reconciliation.reconcile import reconcile
from tollhouse_server.reconciliation.true_ups import true_up_entries
from tollhouse_server.reconciliation.variance_store import Reconciliation, VarianceFilter, list_variances
from tollhouse_server.reconciliation.variances import Reason, Variance
from tollhouse_server.reporting.periods import Period, month_period

from tests.drivers.books import Books
from tests.drivers.google_bill import (
    PACIFIC,
    Row,
    as_csv,
    as_jsonl,
    book,
    changed,
    cost_nanos,
    exported_later,
    find,
    google_bill,
    moved,
    some_calls,
    with_credit,
    with_other_price,
)

OCTOBER = "2026-10"
START = datetime(2026, 10, 5, tzinfo=PACIFIC)
DAY = date(2026, 10, 7)
BERLIN = month_period(OCTOBER, ZoneInfo("Europe/Berlin"))

CALLS = some_calls(random.Random(3), 160, start=START, days=6)
BILL = google_bill(CALLS)


@dataclass(frozen=True, slots=True)
class Finance:
    """What finance does with a bill."""

    books: Books

    async def take_in(self, rows: list[Row], *, as_csv_file: bool = False) -> BillImport:
        """Import rows as a file."""
        text = as_csv(rows) if as_csv_file else as_jsonl(rows)
        kind = BillFormat.CSV if as_csv_file else BillFormat.JSONL
        lines = read_piece(text, kind, first_line=2 if as_csv_file else 1)
        async with self.books.database.transaction() as session:
            found = await import_store.create_import(
                session, uuid4(), file_name="bill.jsonl", bill_format=kind.value, creator="ann"
            )
            await import_store.receive(session, found, lines)
            return await import_store.complete(session, found.import_id)

    async def reconcile(self, month: str = OCTOBER) -> Reconciliation:
        """Compare a month."""
        async with self.books.database.transaction() as session:
            return await reconcile(session, month, run_by="ann")

    async def variances(self, month: str = OCTOBER) -> list[Variance]:
        """Return all differences of a month."""
        async with self.books.database.transaction() as session:
            wanted = VarianceFilter(month=month)
            return await list_variances(session, wanted, after=(date(2026, 1, 1), ""), size=1000)

    async def found(self, rows: list[Row]) -> list[Variance]:
        """Import a bill and return what differs."""
        await self.take_in(rows)
        await self.reconcile()
        return await self.variances()

    async def accept(self, name: str, *, charges_tenants: bool = True, day: date | None = None) -> Variance:
        """Accept a difference."""
        async with self.books.database.transaction() as session:
            accepted, _ = await accept(
                session,
                BillVarianceName.parse(name),
                by="tenants/platform/principals/ann",
                reason="agreed with Google",
                charges_tenants=charges_tenants,
                effective_day=day,
            )
            return accepted

    async def charged(self, tenant: str, period: Period = BERLIN) -> int:
        """Return what a tenant is charged on top in a period, as his own session sees it."""
        async with self.books.database.within(tenant) as session:
            return sum(entry.amount_nanos for entry in await true_up_entries(session, tenant, period))

    async def blocked(self, tenant: str) -> list[str]:
        """Return the reasons that keep a tenant's October from being closed."""
        async with self.books.database.within(tenant) as session:
            found = await blocking_variances(session, tenant, BERLIN)
        return [finding.reason.value for one in found for finding in one.line.findings]


@pytest.fixture
async def finance(books: Books) -> Finance:
    """A ledger with the calls of two tenants, and the packaged prices."""
    await books.add_tenant()
    await books.add_tenant("other")
    for month in ("2026-09-01", "2026-10-01", "2026-11-01"):
        await books.view.connection.execute(f"SELECT create_usage_partition('{month}')")
    await book(books.view.connection, CALLS)
    return Finance(books)


def reasons_of(found: list[Variance]) -> list[tuple[Reason, int]]:
    """Return what was named, with amounts."""
    return [(finding.reason, finding.amount_nanos) for one in found for finding in one.line.findings]


async def test_a_bill_of_exactly_what_was_booked_has_no_difference(finance: Finance) -> None:
    """Every line meets its own, over both tenants, projects, models and the six days."""
    found = await finance.found(BILL)

    result = await finance.reconcile()
    assert found == []
    assert result.booked_nanos == result.billed_nanos == sum(call.cost_nanos for call in CALLS)
    assert (result.compared_count > 40, result.blocking_count) == (True, 0)


FLASH_INPUT = find(
    BILL,
    lambda row: (
        row["sku"]["description"].endswith("input token count gemini 3.8 flash text")
        and row["usage_start_time"].startswith("2026-10-07")
        and row["project"]["id"] == "google-alpha"
    ),
)
LINE = BILL[FLASH_INPUT]
COST = cost_nanos(LINE)


def replaced(*rows: Row) -> list[Row]:
    """Return the bill with other lines in the place of one."""
    return [*BILL[:FLASH_INPUT], *rows, *BILL[FLASH_INPUT + 1 :]]


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
