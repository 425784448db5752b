"""Forecasts, simulations and alternative costs through the administration plane."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from google.type.money_pb2 import Money
from tollhouse.admin.v1 import charge_rules_pb2, limits_pb2
from tollhouse.admin.v1 import outlook_pb2 as pb
from tollhouse_server.api.mutation import Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.services.charge_rules_service import ChargeRuleService
from tollhouse_server.api.services.outlook_service import OutlookService
from tollhouse_server.api.values import money, nanos_of
from tollhouse_server.chargeback.statements import StatementQuestion, make_statement
from tollhouse_server.errors import InvalidRequest, PermissionDenied, ResourceNotFound, WrongState
from tollhouse_server.names import TenantName
from tollhouse_server.pricing.book import seed_prices
from tollhouse_server.reporting.store import begin_snapshot

from tests.drivers.postgres import TestDatabase
from tests.integration.admin.plane import Plane, call_of

DOLLAR = 1_000_000_000
MODEL = "gemini-3.5-flash"
USAGE = json.dumps({"prompt": {"text": 1000}, "candidates": {"text": 500}})
_INSERT = """
INSERT INTO usage_record (tenant_id, attempt_id, settled_at, kind, request_id, dispatched_at, worker_epoch,
    department_path, project_id, credential_id, principal_id, method, tier, model, account_id, labels, price_version,
    requests, input_tokens, output_tokens, images, cost_nanos, ceiling_nanos, usage, lines, outcome, response_id)
VALUES ('acme', $1, $2, 'SETTLED', $1, $2, 1, $3, 'crm', 'k', 'robot', 'generateContent', 'flash', $4, 'main', '{}', 1,
    1, 1000, 500, 0, $5, $5, $6, '[]', 'SERVED', '')
"""


@pytest.fixture
async def company(plane: Plane, fresh_database: TestDatabase) -> Plane:
    """Tenant acme: department sales with emea below it, project crm; ten dollars on each of the last 40 days."""
    service = OutlookService(plane.database, Mutations(plane.database, b"f"), PageTokens(b"p"))
    plane.handlers["OutlookService"] = service
    await plane.tenant("acme")
    async with plane.database.transaction() as session:
        await seed_prices(session)
    root = await asyncpg.connect(fresh_database.root_dsn)
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    for back in range(40, 0, -1):
        path = ["sales", "emea"] if back % 2 else ["sales"]
        at = today - timedelta(days=back) + timedelta(hours=9)
        await root.execute(_INSERT, uuid4(), at, path, MODEL, 10 * DOLLAR, USAGE)
    await root.close()
    return plane


async def simulated(plane: Plane, request: pb.SimulateMonthRequest) -> pb.SimulationReport:
    """Replay, and return the report, which comes last."""
    principal = await plane.directory.authenticate(f"Bearer {plane.admin_key}", patience_seconds=5)
    call = call_of(principal, "tollhouse.admin.v1.OutlookService.SimulateMonth")
    answers = [answer async for answer in plane.handlers["OutlookService"].simulate_month(request, call)]
    report: pb.SimulationReport = answers[-1].report
    return report


def cost_limit(**changes: Any) -> limits_pb2.Limit:
    values: dict[str, Any] = {
        "scope": "tenants/acme",
        "metric": limits_pb2.LIMIT_METRIC_COST,
        "window": limits_pb2.LIMIT_WINDOW_MONTH,
        "amount": limits_pb2.LimitAmount(money=money(35 * DOLLAR)),
    }
    return limits_pb2.Limit(**(values | changes))


def last_month() -> tuple[str, int]:
    """Return last month, and for how many of its days there was a call."""
    now = datetime.now(UTC)
    last = now.replace(day=1) - timedelta(days=1)
    return f"{last:%Y-%m}", min(last.day, 40 - (now.day - 1))


async def test_a_forecast_says_what_it_was_made_from(company: Plane) -> None:
    """Of days that are all alike little can be wrong; a department has its own."""
    tenant = await company.call(pb.GetForecastRequest(parent="tenants/acme", reserve_percent=0))
    emea = await company.call(pb.GetForecastRequest(parent="tenants/acme/departments/emea", confidence_percent=80))

    assert (tenant.obstacle, tenant.history_days, tenant.confidence_percent) == (0, 40, 90)
    assert abs(tenant.level.units * DOLLAR + tenant.level.nanos - 10 * DOLLAR) < DOLLAR // 100
    assert tenant.recommended == tenant.expected
    assert list(tenant.weekday_permille) == [1000] * 7
    assert (emea.confidence_percent, emea.reserve_percent, emea.booked.units % 10) == (80, 20, 0)
    assert emea.expected.units < tenant.expected.units


async def test_a_statement_of_the_running_month_has_the_forecast_and_an_early_one_says_why_not(company: Plane) -> None:
    """The same figures; and somebody who has just begun is told so."""
    await company.tenant("newcomer")

    forecast = await company.call(pb.GetForecastRequest(parent="tenants/acme"))
    early = await company.call(pb.GetForecastRequest(parent="tenants/newcomer"))
    async with company.database.within("acme", begin=begin_snapshot) as session:
        stated = (await make_statement(session, StatementQuestion(scope=TenantName("acme")))).forecast

    assert stated is not None
    assert abs(stated.expected_nanos - forecast.expected.units * DOLLAR - forecast.expected.nanos) < DOLLAR // 10
    assert (forecast.expected_charge, forecast.low_charge) == (forecast.expected, forecast.low)
    assert (stated.expected_charge_nanos, stated.high_charge_nanos) == (stated.expected_nanos, stated.high_nanos)
    assert early.obstacle == pb.Forecast.OBSTACLE_TOO_FEW_DAYS
    assert not early.HasField("expected")


async def test_a_forecast_has_what_will_be_charged_beside_what_it_will_cost(company: Plane) -> None:
    """With a mark-up of 10 % and a fee, in the forecast and in the statement; a department has its own part of it."""
    mutations, pages = Mutations(company.database, b"f"), PageTokens(b"p")
    company.handlers["ChargeRuleService"] = ChargeRuleService(company.database, mutations, pages)
    first = f"{datetime.now(UTC):%Y-%m}-01"
    rule = charge_rules_pb2.ChargeRule(reason="Overhead", start_date=first, rate_millionths=100_000)
    await company.call(
        charge_rules_pb2.CreateChargeRuleRequest(parent="tenants/acme", charge_rule_id="overhead", charge_rule=rule)
    )

    tenant = await company.call(pb.GetForecastRequest(parent="tenants/acme"))
    emea = await company.call(pb.GetForecastRequest(parent="tenants/acme/departments/emea"))
    async with company.database.within("acme", begin=begin_snapshot) as session:
        stated = (await make_statement(session, StatementQuestion(scope=TenantName("acme")))).forecast

    assert stated is not None
    assert stated.expected_nanos <= stated.expected_charge_nanos < stated.recommended_charge_nanos
    for found in (tenant, emea):
        # On the first day of a month there is no cost yet that tells how much the mark-up is.
        elevenths = 11 if found.booked.units else 10
        for cost, charge in ((found.expected, found.expected_charge), (found.high, found.high_charge)):
            assert abs(10 * nanos_of(charge, "") - elevenths * nanos_of(cost, "")) <= 100
        assert abs(nanos_of(found.recommended_charge, "") - nanos_of(found.expected_charge, "") * 12 // 10) <= 1


async def test_limits_are_replayed_over_a_month(company: Plane) -> None:
    """Three calls of ten dollars fit; the others are refused, by the first limit without room."""
    month, days = last_month()
    limits = [cost_limit(), cost_limit(name="tenants/acme/limits/wide", amount={"money": money(9_000 * DOLLAR)})]

    report = await simulated(company, pb.SimulateMonthRequest(parent="tenants/acme", month=month, limits=limits))
    of_emea = await simulated(
        company, pb.SimulateMonthRequest(parent="tenants/acme/departments/emea", month=month, limits=limits)
    )

    first, second = report.limits
    assert (report.records, report.booked.units, report.simulated.units) == (days, 10 * days, 30)
    assert (report.refused_calls, first.refused_calls, second.refused_calls) == (days - 3, days - 3, 0)
    assert (first.limit.name, second.limit.name) == ("tenants/acme/limits/limit-1", "tenants/acme/limits/wide")
    assert (first.refused_cost.units, first.peak.money.units) == (10 * (days - 3), 30)
    assert of_emea.records in {days // 2, days // 2 + 1}


async def test_routes_are_replayed_over_a_month(company: Plane) -> None:
    """Another model's price for the same usage; a model that nobody knows, or both questions at once, is refused."""
    month, days = last_month()
    route = pb.SimulatedRoute(source="tiers/flash", model="gemini-2.5-flash-lite")
    request = pb.SimulateMonthRequest(parent="tenants/acme", month=month, routes=[route])

    (move,) = (await simulated(company, request)).moves

    assert (move.calls, move.unpriced_calls, move.booked.units) == (days, 0, 10 * days)
    assert 0 < move.simulated.nanos < DOLLAR
    for wrong in (
        pb.SimulateMonthRequest(parent="tenants/acme", month=month),
        pb.SimulateMonthRequest(parent="tenants/acme", month=month, routes=[route], limits=[cost_limit()]),
        pb.SimulateMonthRequest(
            parent="tenants/acme", month=month, routes=[pb.SimulatedRoute(source="tiers/flash", model="nobody")]
        ),
        pb.SimulateMonthRequest(parent="tenants/acme", month=month, limits=[cost_limit(scope="tenants/other")]),
    ):
        with pytest.raises(InvalidRequest):
            await simulated(company, wrong)


def ticket(**changes: Any) -> pb.AlternativeCost:
    values: dict[str, Any] = {
        "name": "tenants/acme/alternativeCosts/tickets",
        "subject": "projects/crm",
        "unit": "answered ticket",
        "amount": Money(currency_code="USD", units=4),
        "counting": pb.AlternativeCost.COUNTING_CALLS,
        "start_date": "2026-01-01",
    }
    return pb.AlternativeCost(**(values | changes))


async def test_alternative_costs_stand_in_statements(company: Plane) -> None:
    """From what was stated last; units that are given count once they are recorded."""
    month, days = last_month()
    given = ticket(name="tenants/acme/alternativeCosts/given", counting=pb.AlternativeCost.COUNTING_GIVEN)
    await company.call(pb.SetAlternativeCostRequest(alternative_cost=ticket(amount=Money(units=3))))
    await company.call(pb.SetAlternativeCostRequest(alternative_cost=ticket()))
    await company.call(
        pb.SetAlternativeCostRequest(alternative_cost=ticket(start_date="2026-02-01"), validate_only=True)
    )
    await company.call(pb.SetAlternativeCostRequest(alternative_cost=given))

    await company.call(pb.RecordUnitsRequest(name=given.name, month=month, units=500))
    first = await company.call(pb.ListAlternativeCostsRequest(parent="tenants/acme", page_size=1))
    rest = await company.call(
        pb.ListAlternativeCostsRequest(parent="tenants/acme", page_size=1, page_token=first.next_page_token)
    )
    async with company.database.within("acme", begin=begin_snapshot) as session:
        stated = (await make_statement(session, StatementQuestion(scope=TenantName("acme"), month=month))).returns

    assert [one.name.rpartition("/")[2] for one in (*first.alternative_costs, *rest.alternative_costs)] == [
        "given",
        "tickets",
    ]
    assert rest.next_page_token == ""
    assert [(one.unit, one.units, one.alternative_nanos, one.actual_nanos) for one in stated] == [
        ("answered ticket (crm)", 500, 2000 * DOLLAR, 10 * days * DOLLAR),
        ("answered ticket (crm)", days, 4 * days * DOLLAR, 10 * days * DOLLAR),
    ]
    for name, error in (("tickets", WrongState), ("nobody", ResourceNotFound)):
        with pytest.raises(error):
            await company.call(
                pb.RecordUnitsRequest(name=f"tenants/acme/alternativeCosts/{name}", month=month, units=1)
            )


async def test_departments_look_ahead_for_themselves_alone(company: Plane) -> None:
    """Whoever administers a department forecasts it, and states nothing for the tenant."""
    key = await company.key("acme", "head", ("department-admin", "tenants/acme/departments/emea"))

    await company.call(pb.GetForecastRequest(parent="tenants/acme/departments/emea"), key=key)

    for refused in (
        pb.GetForecastRequest(parent="tenants/acme"),
        pb.SetAlternativeCostRequest(alternative_cost=ticket()),
    ):
        with pytest.raises(PermissionDenied):
            await company.call(refused, key=key)
