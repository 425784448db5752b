"""What a month would have cost at other prices, from records that went through the real ledger."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from tollhouse.admin.v1 import prices_pb2 as pb
from tollhouse_server.api.services.rerate_service import RerateService
from tollhouse_server.api.values import money
from tollhouse_server.errors import InvalidRequest, PriceFileInvalid, ResourceNotFound
from tollhouse_server.names import PLATFORM
from tollhouse_server.pricing import store
from tollhouse_server.pricing.book import seed_prices
from tollhouse_server.pricing.price import Priced, price
from tollhouse_server.pricing.price_file import import_prices
from tollhouse_server.pricing.terms import PriceBook
from tollhouse_server.pricing.usage import Tokens, Usage

from tests.drivers.books import Books, in_project
from tests.integration.api.callers import by

SEPTEMBER = datetime(2026, 9, 15, tzinfo=UTC)
CRM = in_project("crm", "sales")
LITE = "gemini-2.5-flash-lite"
DEARER = (
    f'[[prices]]\nmodel = "{LITE}"\neffective_from = 2025-01-01\nsource = "s"\n'
    'input = "0.30"\ncached = "0.03"\noutput = "1.20"\n'
)
USAGE = Usage(prompt=Tokens(text=1_000), cached=Tokens(text=400), candidates=Tokens(text=100))
AS_BOOKED = 600 * 100 + 400 * 10 + 100 * 400


@dataclass(frozen=True, slots=True)
class Ledger:
    """Books with the packaged prices, and the service over them."""

    books: Books
    service: RerateService
    book: PriceBook

    async def call(self, usage: Usage = USAGE, *, tier: str = "standard", **changes: Any) -> Priced:
        """Book a call at its price."""
        priced = price(self.book.terms(LITE, SEPTEMBER), usage, tier)
        await self.books.book(
            priced.cost_nanos,
            at=SEPTEMBER,
            usage=usage,
            lines=priced.lines,
            model=LITE,
            price_version=priced.price_version,
            **changes,
        )
        await self.books.view.connection.execute("UPDATE usage_record SET dispatched_at = settled_at")
        return priced

    async def report(self, *, domain: str = "acme", **asked: Any) -> pb.RerateReport:
        """Ask what September would have cost."""
        request = pb.GetRerateReportRequest(**{"parent": "tenants/acme", "month": "2026-09", **asked})
        return await self.service.get_rerate_report(request, by(domain=domain))


@pytest.fixture
async def ledger(books: Books) -> Ledger:
    """The books of tenant acme."""
    await books.add_tenant(time_zone="Europe/Berlin")
    async with books.database.transaction() as session:
        await seed_prices(session)
    async with books.database.transaction() as session:
        book = await store.load(session)
    return Ledger(books, RerateService(books.database), book)


async def test_a_month_on_batch_costs_what_batch_costs(ledger: Ledger) -> None:
    """From records' lines, per model and SKU; the calls' own tier is read from their price."""
    await ledger.call()
    await ledger.call(scope=CRM)
    await ledger.call(tier="batch")

    report = await ledger.report(service_tier="batch")

    on_batch = 600 * 50 + 400 * 10 + 100 * 200
    assert report.booked == money(2 * AS_BOOKED + on_batch)
    assert report.rerated == money(3 * on_batch)
    assert report.unrated == money(0)
    assert [(line.sku, line.service_tier, line.quantity, line.rerated) for line in report.lines] == [
        ("cached_text", "batch", 1_200, money(1_200 * 10)),
        ("input_text", "batch", 600, money(600 * 50)),
        ("input_text", "batch", 1_200, money(1_200 * 50)),
        ("output_text", "batch", 100, money(100 * 200)),
        ("output_text", "batch", 200, money(200 * 200)),
    ]


async def test_a_file_is_reckoned_with_and_not_imported(ledger: Ledger) -> None:
    """Three times the prices; the book stays, and so does every record."""
    await ledger.call()
    rows = await ledger.books.view.connection.fetch("SELECT * FROM usage_record")

    report = await ledger.report(format=pb.PRICE_FILE_FORMAT_TOML, content=DEARER)

    assert (report.booked, report.rerated) == (money(AS_BOOKED), money(3 * AS_BOOKED))
    assert report.version == 1
    assert await ledger.books.view.connection.fetch("SELECT * FROM usage_record") == rows
    assert await ledger.books.view.count("price_book_version") == 1


async def test_a_version_is_reckoned_with(ledger: Ledger) -> None:
    """Its lists of the calls' own days."""
    await ledger.call()
    async with ledger.books.database.transaction() as session:
        await store.put_in_force(session, import_prices(DEARER))

    old, new = [await ledger.report(version=version) for version in (1, 2)]

    assert (old.rerated, new.rerated) == (money(AS_BOOKED), money(3 * AS_BOOKED))
    with pytest.raises(ResourceNotFound):
        await ledger.report(version=9)


async def test_a_scope_and_all_tenants(ledger: Ledger) -> None:
    """A department with what is below it; without a parent, everybody, each in his own time zone."""
    await ledger.books.add_tenant("beta")
    await ledger.call()
    await ledger.call(scope=CRM)
    await ledger.call(scope=in_project("crm", "sales", tenant="beta"))

    sales = await ledger.report(parent="tenants/acme/departments/sales", service_tier="batch")
    everybody = await ledger.report(parent="", service_tier="batch", domain=PLATFORM)

    assert sales.booked == money(AS_BOOKED)
    assert everybody.booked == money(3 * AS_BOOKED)
    assert everybody.rerated == money(3 * (600 * 50 + 400 * 10 + 100 * 200))


async def test_what_has_no_lines_is_the_same_in_both(ledger: Ledger) -> None:
    """A call in suspense is booked at its ceiling: nobody knows what it used."""
    await ledger.call()
    await ledger.books.suspend(at=SEPTEMBER, cost_nanos=7)

    report = await ledger.report(service_tier="batch")

    assert (report.unrated, report.booked) == (money(7), money(AS_BOOKED + 7))
    assert report.rerated == money(600 * 50 + 400 * 10 + 100 * 200 + 7)


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({}, "version"),
        ({"version": 1, "content": DEARER, "format": pb.PRICE_FILE_FORMAT_TOML}, "content"),
        ({"content": DEARER}, "format"),
    ],
)
async def test_a_question_without_sense_is_refused(ledger: Ledger, asked: dict[str, Any], problem: str) -> None:
    """The field is named."""
    with pytest.raises(InvalidRequest, match=problem):
        await ledger.report(**asked)


async def test_a_file_with_a_fault_is_refused(ledger: Ledger) -> None:
    """As its import would be."""
    with pytest.raises(PriceFileInvalid, match="not a known field"):
        await ledger.report(format=pb.PRICE_FILE_FORMAT_TOML, content=DEARER + "inputs = 1\n")
