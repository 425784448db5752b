"""What finance does with a bill, over a ledger with the calls of two tenants on two Google projects."""

import random
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib import resources
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from tollhouse_server import pricing
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
    cost_nanos,
    find,
    google_bill,
    some_calls,
)

OCTOBER = "2026-10"
PRICE_BOOK = resources.files(pricing).joinpath("price_book.toml")
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


FLASH_INPUT = find(
    BILL,
    lambda row: (
        row["sku"]["description"] == "Generate content input token count gemini 3.8 flash text"
        and row["usage_start_time"].startswith("2026-10-07")
        and row["project"]["id"] == "google-alpha"
    ),
)
LINE = BILL[FLASH_INPUT]
COST = cost_nanos(LINE)


def replaced(*rows: Row) -> list[Row]:
    """Return the bill with other lines in the place of one."""
    return [*BILL[:FLASH_INPUT], *rows, *BILL[FLASH_INPUT + 1 :]]


def same_key(row: Row, other: Row) -> bool:
    """Tell whether two lines are of one project, SKU and Pacific day, which is UTC's from 07:00 on."""
    start, end = (datetime.fromisoformat(one["usage_start_time"][:19]) for one in (row, other))
    return (row["project"], row["sku"], pacific(start)) == (other["project"], other["sku"], pacific(end))


def pacific(at: datetime) -> date:
    """Return the Pacific day of a moment of UTC."""
    return at.replace(tzinfo=UTC).astimezone(PACIFIC).date()


def used(tenant: str) -> int:
    """Return what a tenant used of the project, model, SKU and day of LINE."""
    day = pacific(datetime.fromisoformat(LINE["usage_start_time"][:19]))
    return sum(
        call.tokens["input_text"]
        for call in CALLS
        if (call.tenant, call.account, call.model) == (tenant, "alpha", "gemini-3.8-flash")
        and call.at.astimezone(PACIFIC).date() == day
    )
