"""Charge rules over the wire: begun, found, ended, and kept out of closed months."""

from datetime import UTC, date, datetime
from typing import Any

import asyncpg
import pytest
from google.type.money_pb2 import Money
from tollhouse.admin.v1 import charge_rules_pb2 as pb
from tollhouse_server.audit.store import list_events
from tollhouse_server.chargeback.rates import rate_entries
from tollhouse_server.errors import EtagMismatch, InvalidRequest, PeriodClosed, PermissionDenied, ResourceExists

from tests.drivers.postgres import TestDatabase
from tests.integration.admin.limits import ledger_of
from tests.integration.admin.plane import Plane
from tests.unit.charges.facts import fact, month_of

NAME = "tenants/acme/chargeRules/overhead"
NOVEMBER = month_of("2026-11")


def asked(rule: str = "overhead", parent: str = "tenants/acme", **fields: Any) -> pb.CreateChargeRuleRequest:
    """A mark-up of 5 % from November on, or what `fields` say."""
    given: dict[str, Any] = {"reason": "Overhead", "start_date": "2026-11-01"}
    if not {"steps", "monthly_amount"} & fields.keys():
        given["rate_millionths"] = 50_000
    return pb.CreateChargeRuleRequest(
        parent=parent, charge_rule_id=rule, charge_rule=pb.ChargeRule(**{**given, **fields})
    )


async def close_month(database: TestDatabase, month: str, tenant: str = "acme") -> None:
    """Close a month past the code that closes months."""
    first = datetime.fromisoformat(f"{month}-01").replace(tzinfo=UTC)
    after = first.replace(month=first.month + 1)
    async with ledger_of(database.root_dsn) as connection:
        await connection.execute(
            "INSERT INTO billing_period (tenant_id, month, state, starts_at, ends_at, time_zone, is_fiscal) "
            "VALUES ($1, $2, 'CLOSED', $3, $4, 'UTC', false)",
            *(tenant, month, first, after),
        )


async def entries(plane: Plane, tenant: str = "acme") -> list[tuple[str, str, int]]:
    """What the rules in force make of $1 of department sales in November, seen by the tenant."""
    async with plane.database.within(tenant) as session:
        found = await rate_entries(session, tenant, NOVEMBER, [fact("sales")])
    return [(one.rule, one.department, one.amount_nanos) for one in found]


async def test_a_month_has_the_days_of_its_own_time_zone(plane: Plane) -> None:
    """The tenant's may have become another one since the month was previewed; the last evening is still November."""
    await plane.tenant("acme")
    await plane.call(asked("december", monthly_amount=Money(units=30), start_date="2026-12-01"))

    async with plane.database.within("acme") as session:
        found = await rate_entries(session, "acme", month_of("2026-11", "America/Los_Angeles"), [])

    assert found == ()


async def test_rules_of_the_platform_and_of_the_tenant_add_up(plane: Plane) -> None:
    """A rule of the platform is for all tenants, or for one; a tenant's own is for nobody else."""
    await plane.tenant("acme")
    await plane.tenant("bolt")
    await plane.call(asked("all", "", rate_millionths=10_000))
    await plane.call(asked("for-bolt", "", scope="tenants/bolt", rate_millionths=-20_000))
    await plane.call(asked("own", scope="tenants/acme/departments/sales"))

    sales = "tenants/{}/departments/sales".format
    assert await entries(plane) == [
        ("chargeRules/all", sales("acme"), 10_000_000),
        ("tenants/acme/chargeRules/own", sales("acme"), 50_000_000),
    ]
    assert await entries(plane, "bolt") == [
        ("chargeRules/all", sales("bolt"), 10_000_000),
        ("chargeRules/for-bolt", sales("bolt"), -20_000_000),
    ]


async def test_a_rule_is_ended_and_never_changed(plane: Plane) -> None:
    """Its end can come earlier and not go away; one that ends as it begins never was."""
    await plane.tenant("acme")
    made = await plane.call(asked())

    ended = await plane.call(pb.EndChargeRuleRequest(name=NAME, end_date="2026-12-01", etag=made.etag))

    assert (ended.end_date, ended.rate_millionths) == ("2026-12-01", 50_000)
    with pytest.raises(EtagMismatch):
        await plane.call(pb.EndChargeRuleRequest(name=NAME, end_date="2026-11-20", etag=made.etag))
    with pytest.raises(InvalidRequest, match="after"):
        await plane.call(pb.EndChargeRuleRequest(name=NAME, end_date="2027-01-01"))
    with pytest.raises(InvalidRequest, match="before"):
        await plane.call(pb.EndChargeRuleRequest(name=NAME, end_date="2026-10-31"))
    await plane.call(pb.EndChargeRuleRequest(name=NAME, end_date="2026-11-01"))
    assert await entries(plane) == []


async def test_no_rule_touches_a_closed_month(plane: Plane, fresh_database: TestDatabase) -> None:
    """Neither by its beginning nor by its end, and not past the server either."""
    await plane.tenant("acme")
    await plane.call(asked(start_date="2026-09-01"))
    await close_month(fresh_database, "2026-10")

    with pytest.raises(PeriodClosed, match="2026-10"):
        await plane.call(asked("late", start_date="2026-10-31"))
    with pytest.raises(PeriodClosed, match="2026-10"):
        await plane.call(asked("all", "", start_date="2026-10-31"))
    with pytest.raises(PeriodClosed, match="2026-10"):
        await plane.call(pb.EndChargeRuleRequest(name=NAME, end_date="2026-10-15"))
    async with ledger_of(fresh_database.root_dsn) as connection:
        with pytest.raises(asyncpg.PostgresError, match="is closed"):
            await connection.execute("UPDATE charge_rule SET ends_on = '2026-10-15'")
    await plane.call(pb.EndChargeRuleRequest(name=NAME, end_date="2026-11-01"))


async def test_a_dry_run_changes_nothing_and_a_repetition_is_answered_alike(plane: Plane) -> None:
    """And what was done is on the trail."""
    await plane.tenant("acme")
    request = asked()
    request.request_id = "4f3c2e0e-9f5a-4d7e-8a51-0d4f60a1b111"
    request.validate_only = True
    dry = await plane.call(request)
    request.validate_only = False

    first, again = await plane.call(request), await plane.call(request)

    assert (dry.name, first) == (NAME, again)
    with pytest.raises(ResourceExists):
        await plane.call(asked())
    async with plane.database.transaction() as session:
        trail = [event for event in await list_events(session, "acme") if event.resource == NAME]
    assert [event.permission for event in trail] == ["chargeRules.create"]


async def test_rules_are_listed_in_pages_by_scope_and_by_day(plane: Plane) -> None:
    """Ended ones too, unless a day is named."""
    await plane.tenant("acme")
    sales = "tenants/acme/departments/sales"
    await plane.call(asked("aa", end_date="2026-11-15"))
    await plane.call(asked("bb", scope=sales, monthly_amount=Money(units=-5)))
    steps = pb.ChargeSteps(steps=[pb.ChargeStep(above=Money(currency_code="USD", units=100), rate_millionths=-100_000)])
    await plane.call(asked("cc", steps=steps))

    page = await plane.call(pb.ListChargeRulesRequest(parent="tenants/acme", page_size=2))
    rest = await plane.call(
        pb.ListChargeRulesRequest(parent="tenants/acme", page_size=2, page_token=page.next_page_token)
    )
    of_sales = await plane.call(pb.ListChargeRulesRequest(parent="tenants/acme", scope=sales))
    on_day = await plane.call(pb.ListChargeRulesRequest(parent="tenants/acme", on_date="2026-11-15"))

    assert [rule.name[-1] for rule in page.charge_rules] == ["a", "b"]
    assert [(rule.name[-1], rule.steps) for rule in rest.charge_rules] == [("c", steps)]
    assert [(rule.name[-1], rule.monthly_amount.units) for rule in of_sales.charge_rules] == [("b", -5)]
    assert [rule.name[-1] for rule in on_day.charge_rules] == ["b", "c"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"start_date": "2026-11-31"}, "start_date"),
        ({"scope": "tenants/bolt"}, "scope"),
        ({"monthly_amount": Money(units=1), "selector": "tiers/pro"}, "selector"),
        ({"end_date": "2026-10-01"}, "end_date"),
        ({"reason": "  "}, "reason"),
        (
            {"steps": pb.ChargeSteps(steps=[pb.ChargeStep(above=Money(units=2)), pb.ChargeStep(above=Money(units=1))])},
            "steps",
        ),
    ],
)
async def test_a_rule_that_makes_no_sense_is_refused(plane: Plane, fields: dict[str, Any], said: str) -> None:
    """With the field that is wrong."""
    with pytest.raises(InvalidRequest, match=said):
        await plane.call(asked(**fields))


async def test_a_rule_on_what_is_not_in_the_catalogue_is_refused(plane: Plane) -> None:
    """It would never charge anything."""
    await plane.tenant("acme")

    with pytest.raises(InvalidRequest, match="none of the catalogue's tiers"):
        await plane.call(asked(selector="tiers/prooo"))


async def test_a_tenant_has_no_say_in_the_rules_of_the_platform(plane: Plane) -> None:
    """Neither may its administrator make one, nor end what is about the tenant."""
    await plane.tenant("acme")
    ann = await plane.key("acme", "ann", ("tenant-admin", "tenants/acme"))
    fay = await plane.key("acme", "fay", ("finance", "tenants/acme"))
    await plane.call(asked("all", ""))

    with pytest.raises(PermissionDenied):
        await plane.call(asked("mine", ""), key=ann)
    with pytest.raises(PermissionDenied):
        await plane.call(pb.EndChargeRuleRequest(name="chargeRules/all", end_date="2026-11-01"), key=ann)
    made = await plane.call(asked("own"), key=fay)
    assert made.creator == "tenants/acme/principals/fay"
    assert date.fromisoformat(made.start_date) == date(2026, 11, 1)
