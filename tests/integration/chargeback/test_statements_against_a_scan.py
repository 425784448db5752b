"""A month of three tenants, on all models: statements at every level against a scan in plain Python with decimals."""

from collections import Counter
from collections.abc import AsyncIterator
from datetime import date

import asyncpg
import pytest
from tollhouse_server.chargeback.canonical import canonical_json, statement_of
from tollhouse_server.chargeback.cells import MonthBooks
from tollhouse_server.chargeback.composing import compose
from tollhouse_server.chargeback.periods import tenant_month
from tollhouse_server.chargeback.statement import PeriodState, Statement
from tollhouse_server.chargeback.statements import StatementQuestion, make_statement, read_books
from tollhouse_server.database.engine import Database
from tollhouse_server.documents.formats import format_of
from tollhouse_server.names import DepartmentName, Scope, TenantName
from tollhouse_server.pricing.book import seed_prices
from tollhouse_server.reporting.rollup_store import build_next_day
from tollhouse_server.reporting.store import begin_snapshot
from tollhouse_server.reporting.sums import Dimension
from tollhouse_server.tenancy.store import read_clock

from tests.drivers.postgres import TestDatabase
from tests.drivers.recorded_month import MAY, Company, scan, shapes
from tests.drivers.statements import hold_against

COMPANIES = (
    Company(tenant="acme", time_zone="Europe/Berlin"),
    Company(tenant="globex", time_zone="America/Los_Angeles", departments=5),
    Company(tenant="initech", departments=1),
)
CALLS = 600


@pytest.fixture
async def database(fresh_database: TestDatabase) -> AsyncIterator[Database]:
    """A database with the packaged prices and a month of three companies."""
    database = Database(fresh_database.app_dsn)
    async with database.transaction() as session:
        await seed_prices(session)
    root = await asyncpg.connect(fresh_database.root_dsn)
    known = shapes()
    for seed, company in enumerate(COMPANIES):
        await company.found(root)
        await company.call(root, known, calls=CALLS, seed=seed)
    await root.close()
    yield database
    await database.close()


async def statement(database: Database, scope: Scope, month: str = "2026-05") -> Statement:
    """Make a statement as the server does."""
    async with database.within(scope.tenant, begin=begin_snapshot) as session:
        return await make_statement(session, StatementQuestion(scope=scope, month=month))


async def roll_up(database: Database, tenant: str, days: int) -> None:
    """Roll up the first days of a tenant."""
    for _ in range(days):
        async with database.transaction() as session:
            await build_next_day(session, tenant, MAY.replace(month=7))


async def read_month(database: Database, company: Company) -> MonthBooks:
    """Read the month of a company."""
    async with database.within(company.tenant, begin=begin_snapshot) as session:
        clock = await read_clock(session, company.tenant)
        return await read_books(session, company.tenant, tenant_month("2026-05", clock), clock)


async def every_statement(database: Database, company: Company) -> list[Statement]:
    """Make the statements of a tenant and all of its departments from one reading, as a close does."""
    books = await read_month(database, company)
    departments = [company.path(number)[-1] for number in range(company.departments)]
    scopes: list[Scope] = [TenantName(company.tenant), *(DepartmentName(company.tenant, one) for one in departments)]
    return [compose(books, scope, PeriodState.OPEN) for scope in scopes]


@pytest.mark.parametrize("company", COMPANIES, ids=lambda company: company.tenant)
async def test_statements_at_every_level_equal_a_plain_scan(
    database: Database, fresh_database: TestDatabase, company: Company
) -> None:
    """Department by department, in every breakdown."""
    root = await asyncpg.connect(fresh_database.root_dsn)
    found = await scan(root, company.tenant, company.time_zone)
    await root.close()

    stated = await every_statement(database, company)

    assert len(stated) == company.departments + 1
    for one in stated:
        hold_against(found, one)


async def test_statements_from_rolled_up_days_are_the_same_bytes(database: Database) -> None:
    """From records, from both, and from roll-ups alone."""
    fresh = [canonical_json(one) for one in await every_statement(database, COMPANIES[2])]
    await roll_up(database, "initech", 9)
    mixed = [canonical_json(one) for one in await every_statement(database, COMPANIES[2])]
    await roll_up(database, "initech", 22)
    rolled_up = [canonical_json(one) for one in await every_statement(database, COMPANIES[2])]

    assert fresh == mixed == rolled_up


async def test_the_days_of_all_places_are_those_of_their_departments(database: Database) -> None:
    """Also where a part is rolled up; a rule of some days and the breakdown by day reckon with the same."""
    await roll_up(database, "acme", 9)

    books = await read_month(database, COMPANIES[0])

    costs: Counter[tuple[date, tuple[str, ...]]] = Counter()
    for cell in books.cells:
        assert sum(cell.daily_nanos.values()) == cell.cost_nanos
        for day, nanos in cell.daily_nanos.items():
            costs[day, cell.department_path] += nanos
    assert costs == {(one.day, one.department_path): one.cost_nanos for one in books.days}


async def test_the_same_statement_is_the_same_bytes_and_can_be_read_back(database: Database) -> None:
    """JSON and CSV do not know when they were made."""
    first, second = [await statement(database, TenantName("acme")) for _ in range(2)]

    for name in ("json", "csv"):
        assert format_of(name).document(first) == format_of(name).document(second)
    assert statement_of(canonical_json(first), generated_at=first.generated_at, seal=None) == first


async def test_savings_are_what_the_same_use_would_have_cost_at_list_price(database: Database) -> None:
    """Cached tokens and the flex tier, both of the recorded traffic, have saved something; nothing has been lost."""
    stated = await statement(database, TenantName("acme"))

    assert stated.savings.cache_nanos > 0
    assert stated.savings.batch_nanos > 0
    assert stated.price_versions == (1,)
    assert Dimension.DAY in stated.breakdowns
