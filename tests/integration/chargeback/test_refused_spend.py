"""What limits have kept from being spent, from the refused call to the statement."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import asyncpg
import pytest
from tollhouse_server.chargeback.refusals import MOST_WAITING, RefusedSpend
from tollhouse_server.chargeback.statement import Refusals
from tollhouse_server.chargeback.statements import StatementQuestion, make_statement
from tollhouse_server.database.engine import Database
from tollhouse_server.errors import StoreUnavailable
from tollhouse_server.ledger.terms import Amounts, CallTerms
from tollhouse_server.names import DepartmentName, Scope, TenantName
from tollhouse_server.reporting.store import begin_snapshot

from tests.drivers.ledger import terms
from tests.drivers.postgres import TestDatabase
from tests.drivers.recorded_month import Company

NIGHT = datetime(2026, 5, 31, 15, 30, tzinfo=UTC)
"""Half past midnight of 1 June in Tokyo."""


@pytest.fixture
async def database(fresh_database: TestDatabase) -> AsyncIterator[Database]:
    """A company in Tokyo: departments d0, and d1 and d2 below it."""
    database = Database(fresh_database.app_dsn)
    root = await asyncpg.connect(fresh_database.root_dsn)
    await Company(tenant="acme", time_zone="Asia/Tokyo", departments=3).found(root)
    await root.close()
    yield database
    await database.close()


def refused(*path: str, nanos: int = 500, tenant: str = "acme") -> CallTerms:
    """Build a call of a department that would have held so much."""
    call = terms()
    scope = replace(call.scope, tenant_id=tenant, department_path=path)
    return call._replace(scope=scope, ceiling=Amounts(requests=1, cost_nanos=nanos))


async def refusals(database: Database, scope: Scope, month: str) -> Refusals:
    """Read what a statement says of refused spend."""
    async with database.within(scope.tenant, begin=begin_snapshot) as session:
        return (await make_statement(session, StatementQuestion(scope=scope, month=month))).refusals


async def test_refused_calls_are_in_the_statements_of_their_departments_and_of_their_day(database: Database) -> None:
    """Also of departments above; a day is the tenant's own; what is written later is added."""
    now = [NIGHT]
    spend = RefusedSpend(database, clock=lambda: now[0])

    for call in (refused("d0", "d1"), refused("d0", "d1"), refused("d0", "d2", nanos=7), refused("x", tenant="gone")):
        spend.note(call)
    await spend.write()
    now[0] = NIGHT.replace(hour=14)
    spend.note(refused("d0", "d1", nanos=2**62))
    spend.note(refused("d0", "d1", nanos=2**62))
    await spend.write()

    assert await refusals(database, TenantName("acme"), "2026-06") == Refusals(calls=3, ceiling_nanos=1007)
    assert await refusals(database, DepartmentName("acme", "d1"), "2026-06") == Refusals(calls=2, ceiling_nanos=1000)
    assert await refusals(database, DepartmentName("acme", "d0"), "2026-05") == Refusals(calls=2, ceiling_nanos=2**63)


async def test_an_outage_keeps_what_was_counted_within_bounds(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is forgotten, and nothing grows for ever."""
    spend = RefusedSpend(database, clock=lambda: NIGHT)
    gone = Database("postgresql://nobody@127.0.0.1:1/nothing")

    monkeypatch.setattr(spend, "_database", gone)
    for number in range(MOST_WAITING + 5):
        spend.note(refused("d0", f"d{number}"))
    with pytest.raises(StoreUnavailable):
        await spend.write()
    monkeypatch.setattr(spend, "_database", database)
    await spend.write()
    await spend.write()

    found = await refusals(database, TenantName("acme"), "2026-06")
    assert found == Refusals(calls=MOST_WAITING, ceiling_nanos=500 * MOST_WAITING)
    await gone.close()
