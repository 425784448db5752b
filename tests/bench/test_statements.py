"""A month of three tenants with forty departments each: right to the nano-dollar at every level, and at what cost.

`TOLLHOUSE_BENCH_STATEMENT_CALLS=1000000 pytest tests/bench/test_statements.py -s` is the acceptance of the product.
"""

import os
from collections import defaultdict
from collections.abc import AsyncIterator

import asyncpg
import pytest
from tollhouse_server.chargeback.composing import compose_from
from tollhouse_server.chargeback.layout import TENANT, lay_out
from tollhouse_server.chargeback.periods import tenant_month
from tollhouse_server.chargeback.shared_costs import Method
from tollhouse_server.chargeback.statement import EntryKind, PeriodState, Statement
from tollhouse_server.chargeback.statements import read_books
from tollhouse_server.database.engine import Database
from tollhouse_server.documents.formats import FORMATS
from tollhouse_server.names import DepartmentName, Scope, TenantName
from tollhouse_server.pricing.book import seed_prices
from tollhouse_server.reporting.rollup_store import build_next_day
from tollhouse_server.reporting.store import begin_snapshot
from tollhouse_server.tenancy.store import read_clock

from tests.bench.costs import cost, postmaster_of
from tests.bench.recorder import Recorder
from tests.drivers.postgres import TestDatabase
from tests.drivers.recorded_month import MAY, Company, scan, shapes
from tests.drivers.statements import hold_against

CALLS = int(os.environ.get("TOLLHOUSE_BENCH_STATEMENT_CALLS", "30000"))
"""Of all tenants together."""

COMPANIES = (
    Company(tenant="acme", departments=40),
    Company(tenant="globex", departments=40, time_zone="America/Los_Angeles"),
    Company(tenant="initech", departments=40, time_zone="Asia/Shanghai"),
)

# Primes: nothing divides them, so each spreading has a rest to give away.
SHARED = {
    Method.EVENLY: 100_000_000_003,
    Method.BY_COST: 999_999_999_989,
    Method.BY_CALLS: -7_919,
    Method.BY_TOKENS: 31,
}


@pytest.fixture
async def database(fresh_database: TestDatabase) -> AsyncIterator[Database]:
    """A month of three companies, rolled up, with costs that they share out."""
    database = Database(fresh_database.app_dsn)
    async with database.transaction() as session:
        await seed_prices(session)
    root = await asyncpg.connect(fresh_database.root_dsn)
    await root.execute("SELECT create_usage_partition('2026-05-01')")
    known = shapes()
    for seed, company in enumerate(COMPANIES):
        await company.found(root)
        await company.call(root, known, calls=CALLS // len(COMPANIES), seed=seed)
        await share_out(root, company.tenant)
    await root.execute("VACUUM ANALYZE usage_record")
    for company in COMPANIES:
        await roll_up(database, company.tenant)
    await root.execute("VACUUM ANALYZE usage_rollup, usage_rollup_sku, usage_rollup_label, usage_rollup_price")
    await root.close()
    yield database
    await database.close()


async def share_out(root: "asyncpg.Connection[asyncpg.Record]", tenant: str) -> None:
    """Give a tenant one cost of each kind to share out."""
    await root.executemany(
        "INSERT INTO shared_cost (tenant_id, cost_id, display_name, kind, amount_nanos, method, reason, starts_on,"
        " creator) VALUES ($1, $2, 'Fee', 'PLATFORM_FEE', $3, $4, 'the platform', '2026-05-01', 'finance')",
        [(tenant, method.value.lower().replace("_", "-"), nanos, method.value) for method, nanos in SHARED.items()],
    )


async def roll_up(database: Database, tenant: str) -> None:
    """Roll up all that there is."""
    while True:
        async with database.transaction() as session:
            if await build_next_day(session, tenant, MAY.replace(month=6, day=2)) is None:
                return


async def statements(database: Database, company: Company) -> list[Statement]:
    """Make the statements of a tenant and all of its departments."""
    async with database.within(company.tenant, begin=begin_snapshot) as session:
        clock = await read_clock(session, company.tenant)
        books = await read_books(session, company.tenant, tenant_month("2026-05", clock), clock)
    ids = [company.path(number)[-1] for number in range(company.departments)]
    layout = lay_out(books, [TENANT, *ids])
    scopes: list[Scope] = [TenantName(company.tenant)]
    scopes += [DepartmentName(company.tenant, one) for one in ids]
    return [compose_from(layout, scope, PeriodState.OPEN) for scope in scopes]


def hold_shared(stated: Statement) -> None:
    """Make sure that the parts of each shared cost sum to it, to the nano-dollar."""
    sums: dict[str, int] = defaultdict(int)
    for entry in stated.entries:
        if entry.kind is EntryKind.SHARED:
            sums[entry.rule.rpartition("/")[2]] += entry.amount_nanos
    assert sums == {method.value.lower().replace("_", "-"): nanos for method, nanos in SHARED.items()}


async def test_statements_of_a_month_equal_a_plain_scan(
    database: Database, fresh_database: TestDatabase, recorder: Recorder
) -> None:
    """At every level, shared costs to the last nano-dollar, and the second time the same bytes as CSV and JSON."""
    root = await asyncpg.connect(fresh_database.root_dsn)
    postmaster = await postmaster_of(root)

    for company in COMPANIES:
        with cost(postmaster) as made:
            stated = await statements(database, company)
        again = await statements(database, company)
        with cost(postmaster) as scanned:
            found = await scan(root, company.tenant, company.time_zone)

        for name in ("csv", "json"):
            document = FORMATS[name].document
            assert [document(one) for one in stated] == [document(one) for one in again]
        for one in stated:
            hold_against(found, one)
        hold_shared(stated[0])
        key, records = f"statement/{len(stated)}_of_{CALLS // len(COMPANIES)}_records", CALLS // len(COMPANIES)
        recorder.record(f"{key}/ms_each", made.wall_seconds / len(stated) * 1e3)
        recorder.record_all(key, made.figures(records, "records"))
        recorder.record(f"{key}/scan_ms", scanned.wall_seconds * 1e3)
    await root.close()
