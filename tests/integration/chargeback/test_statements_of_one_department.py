"""A department's statement is read by itself, without the thousands beside it; it is the one of a reading of all."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import date
from typing import Any

import asyncpg
import pytest
from tollhouse_server.chargeback.canonical import canonical_json
from tollhouse_server.chargeback.cells import MonthBooks
from tollhouse_server.chargeback.composing import compose, forecast_of
from tollhouse_server.chargeback.forecast import ForecastTerms
from tollhouse_server.chargeback.statement import PeriodState
from tollhouse_server.chargeback.statements import (
    StatementQuestion,
    make_statement,
    read_books,
    read_running,
    statement_month,
)
from tollhouse_server.database.engine import Database
from tollhouse_server.names import DepartmentName, TenantName
from tollhouse_server.pricing.book import seed_prices
from tollhouse_server.reporting.rollup_store import build_next_day
from tollhouse_server.reporting.store import begin_snapshot
from tollhouse_server.tenancy.store import read_clock

from tests.drivers.postgres import Preparation, TestDatabase
from tests.drivers.recorded_month import MAY, Company, shapes

ACME = Company(tenant="acme", departments=9)
MONTH = "2026-05"


class Moved(Company):
    """The same company with d1, and what is below it, in d3 instead of d0."""

    def path(self, number: int) -> tuple[str, ...]:
        return ("d3", "d1") if number == 1 else super().path(number)


_RULE = """
INSERT INTO charge_rule (tenant_id, rule_id, scope, selector, kind, rate_millionths, amount_nanos, steps, reason,
    starts_on, ends_on, creator)
VALUES ('acme', $1, $2, $3, $4, $5, $6, $7, 'because', '2026-01-01', $8, 'finance')
"""
_OF_PLACES = (
    ("overhead", "tenants/acme", "", "PERCENT", 70_000, 0, "[]", None),
    ("flash", "tenants/acme/departments/d0", "tiers/flash", "PERCENT", -3_333, 0, "[]", None),
    ("fee", "tenants/acme/departments/d1", "", "FIXED", 0, 7_919, "[]", None),
    ("steps", "tenants/acme/departments/d3", "", "STEPS", 0, 0, "[[1000, 12345]]", None),
    ("until-the-12th", "tenants/acme", "tiers/pro", "PERCENT", 90_001, 0, "[]", date(2026, 5, 12)),
)
_STEPS_OF_ALL = ("all", "tenants/acme", "tiers/pro", "STEPS", 0, 0, "[[1000, 54321]]", None)

_COST = """
INSERT INTO shared_cost (tenant_id, cost_id, display_name, kind, amount_nanos, method, shares, reason, starts_on,
    creator) VALUES ('acme', $1, 'Fee', 'PLATFORM_FEE', $2, $3, $4, 'the platform', '2026-05-01', 'finance')
"""
_STATED_SHARES = (("fixed", 101, "FIXED", '{"d1": 2, "d6": 1}'), ("named", 103, "EVENLY", '{"d0": 1, "d4": 1}'))
_SHARES_OF_USE = (
    ("evenly", 100_000_000_003, "EVENLY", "{}"),
    ("cost", 999_999_999_989, "BY_COST", "{}"),
    ("calls", -7_919, "BY_CALLS", '{"d0": 1, "d3": 1}'),
    ("tokens", 31, "BY_TOKENS", "{}"),
)

_OTHERS = (
    "INSERT INTO adjustment (tenant_id, adjustment_id, month, department_id, amount_nanos, reason, created_by)"
    " VALUES ('acme', 'credit', '2026-05', 'd1', -1009, 'because', 'ann')",
    "INSERT INTO alternative_cost (tenant_id, alternative_cost_id, starts_on, subject, unit, unit_nanos, counted_by,"
    " creator) VALUES ('acme', 'calls', '2026-01-01', 'labels/stage=live', 'call', 11, 'CALLS', 'finance'),"
    " ('acme', 'given', '2026-01-01', 'labels/feature=f1', 'task', 13, 'GIVEN', 'finance'),"
    " ('acme', 'project', '2026-01-01', 'projects/p1-a', 'page', 17, 'GIVEN', 'finance')",
    "INSERT INTO unit_count (tenant_id, alternative_cost_id, month, units)"
    " VALUES ('acme', 'given', '2026-05', 5), ('acme', 'project', '2026-05', 7)",
    'INSERT INTO usage_limit (tenant_id, name, scope, metric, "window", amount, selector) VALUES'
    " ('acme', 'all', 'tenants/acme', 'COST', 'MONTH', 1000, ''),"
    " ('acme', 'moved', 'tenants/acme/departments/d1', 'COST', 'MONTH', 1000, ''),"
    " ('acme', 'flash', 'tenants/acme/departments/d0', 'COST', 'MONTH', 1000, 'tiers/flash'),"
    " ('acme', 'one', 'tenants/acme/departments/d1/projects/p1-a', 'COST', 'MONTH', 1000, '')",
)

_EXTRA: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "nothing of the others": ((), ()),
    "what all have used": ((), _SHARES_OF_USE),
    "the tenant's steps": ((_STEPS_OF_ALL,), _SHARES_OF_USE),
}


async def with_a_month(place: TestDatabase) -> None:
    """Prepare a month in which a department was moved, a third of it rolled up, with entries of every kind."""
    database = Database(place.app_dsn)
    async with database.transaction() as session:
        await seed_prices(session)
    root = await asyncpg.connect(place.root_dsn)
    await ACME.found(root)
    for seed, company in enumerate((ACME, Moved(tenant="acme", departments=9))):
        await company.call(root, shapes(), calls=400, seed=seed)
    await root.executemany(_RULE, _OF_PLACES)
    await root.executemany(_COST, _STATED_SHARES)
    for statement in _OTHERS:
        await root.execute(statement)
    await root.close()
    for _ in range(10):
        async with database.transaction() as session:
            await build_next_day(session, "acme", MAY.replace(month=7))
    await database.close()


@pytest.fixture
def preparation() -> Preparation:
    """What all of these tests start from."""
    return with_a_month


@pytest.fixture(params=_EXTRA, ids=str)
async def database(request: pytest.FixtureRequest, fresh_database: TestDatabase) -> AsyncIterator[Database]:
    """The month, with the entries of the parameter."""
    rules, costs = _EXTRA[request.param]
    root = await asyncpg.connect(fresh_database.root_dsn)
    await root.executemany(_RULE, rules)
    await root.executemany(_COST, costs)
    await root.close()
    database = Database(fresh_database.app_dsn)
    yield database
    await database.close()


def departments() -> list[DepartmentName]:
    """Return every department of the company."""
    return [DepartmentName("acme", f"d{number}") for number in range(ACME.departments)]


async def read_all(database: Database) -> MonthBooks:
    """Read the month of all departments at once, as a close does."""
    async with database.within("acme", begin=begin_snapshot) as session:
        month, _ = await statement_month(session, StatementQuestion(scope=TenantName("acme"), month=MONTH))
        return await read_books(session, "acme", month, await read_clock(session, "acme"))


async def test_the_statement_of_a_department_is_that_of_a_reading_of_all(database: Database) -> None:
    """Byte for byte, also of those that a moved department was below, and whatever its entries depend on."""
    books = await read_all(database)

    for scope in departments():
        async with database.within("acme", begin=begin_snapshot) as session:
            made = await make_statement(session, StatementQuestion(scope=scope, month=MONTH))

        assert canonical_json(made) == canonical_json(compose(books, scope, PeriodState.OPEN)), scope
        assert "tenants/acme/chargeRules/until-the-12th" in {one.rule for one in made.entries}
        assert bool(made.budgets) == (scope.department in {"d0", "d1"})


async def test_only_what_a_department_needs_is_read(database: Database) -> None:
    """Of a department that nothing was moved through: its own rows, and those of labels with an alternative."""
    async with database.within("acme", begin=begin_snapshot) as session:
        month, _ = await statement_month(session, StatementQuestion(scope=TenantName("acme"), month=MONTH))
        books = await read_books(session, "acme", month, await read_clock(session, "acme"), department="d6")

    assert {one.department_path for one in books.skus if one.project != "p1-a"} == {("d6",)}
    assert {one.department_path for one in books.days} > {("d6",)}
    assert {one.label for one in books.labels if one.department_path != ("d6",)} == {"stage", "feature"}
    assert {f"{one.label}={one.value}" for one in books.labels if one.department_path != ("d6",)} == {
        "stage=live",
        "feature=f1",
    }


async def test_the_forecast_of_a_department_is_that_of_a_reading_of_all(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the month that runs, with the weeks before it."""

    async def in_may(*_: object) -> str:
        return MONTH

    monkeypatch.setattr("tollhouse_server.chargeback.statements.running_month", in_may)
    async with database.within("acme", begin=begin_snapshot) as session:
        clock = await read_clock(session, "acme")
        clock = replace(clock, now=MAY.replace(day=20))
        whole = await read_running(session, "acme", clock)
        for scope in departments():
            part = await read_running(session, "acme", clock, department=scope.department)

            of_part, of_whole = (forecast_of(books, scope.department, ForecastTerms()) for books in (part, whole))
            assert of_part == of_whole
            assert of_part.forecast is not None
