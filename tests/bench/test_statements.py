"""A month of three tenants with forty departments each: right to the nano-dollar, how fast, and in how much memory."""

import resource
import time
from collections.abc import AsyncIterator

import asyncpg
import pytest
from tollhouse_server.chargeback.canonical import canonical_json
from tollhouse_server.chargeback.composing import compose
from tollhouse_server.chargeback.periods import tenant_month
from tollhouse_server.chargeback.record_store import stream_records
from tollhouse_server.chargeback.statement import PeriodState, Statement
from tollhouse_server.chargeback.statements import read_books
from tollhouse_server.database.engine import Database
from tollhouse_server.names import DepartmentName, Scope, TenantName
from tollhouse_server.pricing.book import seed_prices
from tollhouse_server.reporting.rollup_store import build_next_day
from tollhouse_server.reporting.store import begin_snapshot
from tollhouse_server.tenancy.store import read_clock

from tests.drivers.postgres import TestDatabase
from tests.drivers.recorded_month import MAY, Company, scan, shapes
from tests.drivers.statements import hold_against

CALLS = 30_000
"""Of all tenants together; 1,000,000 for the acceptance of the product (some ten minutes, 2 GB)."""

COMPANIES = tuple(Company(tenant=tenant, departments=40) for tenant in ("acme", "globex", "initech"))
STATEMENT_SECONDS = 5.0
LEAST_ROWS_A_SECOND = 100_000
MOST_BYTES = 500_000_000


@pytest.fixture
async def database(fresh_database: TestDatabase) -> AsyncIterator[Database]:
    """A month of three companies, rolled up."""
    database = Database(fresh_database.app_dsn)
    async with database.transaction() as session:
        await seed_prices(session)
    root = await asyncpg.connect(fresh_database.root_dsn)
    await root.execute("SELECT create_usage_partition('2026-05-01')")
    known = shapes()
    for seed, company in enumerate(COMPANIES):
        await company.found(root)
        await company.call(root, known, calls=CALLS // len(COMPANIES), seed=seed)
    await root.execute("VACUUM ANALYZE usage_record")
    for company in COMPANIES:
        await roll_up(database, company.tenant)
    await root.execute("VACUUM ANALYZE usage_rollup, usage_rollup_sku, usage_rollup_label, usage_rollup_price")
    await root.close()
    yield database
    await database.close()


async def roll_up(database: Database, tenant: str) -> None:
    """Roll up all that there is."""
    while True:
        async with database.transaction() as session:
            if await build_next_day(session, tenant, MAY.replace(month=6, day=1)) is None:
                return


async def statements(database: Database, company: Company) -> tuple[list[Statement], float]:
    """Make the statements of a tenant and all of its departments; return them, and the seconds for the tenant's."""
    started_at = time.perf_counter()
    async with database.within(company.tenant, begin=begin_snapshot) as session:
        clock = await read_clock(session, company.tenant)
        books = await read_books(session, company.tenant, tenant_month("2026-05", clock), clock)
    scopes: list[Scope] = [TenantName(company.tenant)]
    scopes += [DepartmentName(company.tenant, company.path(number)[-1]) for number in range(company.departments)]
    whole = compose(books, scopes[0], PeriodState.OPEN)
    seconds = time.perf_counter() - started_at
    print(f"{company.tenant}: {len(books.cells)} cells, {seconds:.2f} s")  # noqa: T201 - a figure
    return [whole, *(compose(books, scope, PeriodState.OPEN) for scope in scopes[1:])], seconds


async def test_statements_of_a_month_equal_a_plain_scan_and_are_made_in_time(
    database: Database, fresh_database: TestDatabase
) -> None:
    """At every level, and the second time the same bytes."""
    root, slowest = await asyncpg.connect(fresh_database.root_dsn), 0.0

    for company in COMPANIES:
        stated, seconds = await statements(database, company)
        again, _ = await statements(database, company)
        found = await scan(root, company.tenant, company.time_zone)

        assert [canonical_json(one) for one in stated] == [canonical_json(one) for one in again]
        for one in stated:
            hold_against(found, one)
        slowest = max(slowest, seconds)
    await root.close()
    assert slowest <= STATEMENT_SECONDS


async def test_records_of_a_month_stream_fast_in_little_memory(database: Database) -> None:
    """As many rows as there are records, and a header."""
    company, rows, size = COMPANIES[0], 0, 0
    started_at = time.perf_counter()
    async with database.within(company.tenant, begin=begin_snapshot) as session:
        clock = await read_clock(session, company.tenant)
        month = tenant_month("2026-05", clock)
        async for piece in stream_records(session, TenantName(company.tenant), month.period):
            rows += piece.count(b"\n")
            size += len(piece)
    rate = rows / (time.perf_counter() - started_at)
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{rows} rows, {size} bytes: {rate:.0f} rows/s, {peak_bytes / 1e6:.0f} MB at most")  # noqa: T201 - a figure

    assert rows == CALLS // len(COMPANIES) + 1
    assert rate >= LEAST_ROWS_A_SECOND
    assert peak_bytes < MOST_BYTES
