"""What nothing explains blocks a close until somebody accepts it; then tenants are charged for it, exactly."""

from datetime import date
from zoneinfo import ZoneInfo

import pytest
from tollhouse_server.chargeback.statement import EntryKind
from tollhouse_server.chargeback.statements import StatementQuestion, make_statement
from tollhouse_server.errors import InvalidRequest, PeriodClosed
from tollhouse_server.names import TenantName
from tollhouse_server.reporting.periods import month_period
from tollhouse_server.reporting.store import begin_snapshot

from tests.drivers.bill_finance import (
    COST,
    LINE,
    OCTOBER,
    Finance,
    replaced,
    used,
)
from tests.drivers.google_bill import (
    changed,
    exported_later,
    with_other_price,
)

STRANGER = changed(LINE, project={"id": "google-gamma"})


async def test_what_nothing_explains_blocks_the_months_of_those_who_used_the_project(finance: Finance) -> None:
    """A project that nobody used blocks everybody; below the bounds nothing blocks."""
    before = (await finance.blocked("acme"), await finance.blocked("stranger"))
    await finance.found(replaced(with_other_price(LINE, 50)))
    dear = (await finance.blocked("acme"), await finance.blocked("stranger"))
    await finance.found([changed(STRANGER, cost=30.0)])
    strange = await finance.blocked("stranger")

    assert before == ([], [])
    assert dear == (["PRICE_MISMATCH"], [])
    assert strange == ["PROJECT_NOT_IN_LEDGER"]


async def test_what_is_accepted_is_charged_in_proportion_and_blocks_no_more(finance: Finance) -> None:
    """The parts of both tenants add up exactly, and a tenant sees only his own."""
    (found,) = await finance.found(replaced(with_other_price(LINE, 50)))

    accepted = await finance.accept(found.name)

    use = {tenant: used(tenant) for tenant in ("acme", "other")}
    charged = {tenant: await finance.charged(tenant) for tenant in use}
    amount = 49 * COST
    assert sum(charged.values()) == amount == accepted.accepted_nanos
    assert all(abs(charged[one] - amount * use[one] / sum(use.values())) < 1 for one in use)
    assert (await finance.blocked("acme"), await finance.charged("stranger")) == ([], 0)


async def test_what_is_accepted_stands_in_the_statement_with_its_reason(finance: Finance) -> None:
    """As an entry of the difference, in the charge and not in the cost."""
    (found,) = await finance.found(replaced(with_other_price(LINE, 50)))
    await finance.accept(found.name)

    async with finance.books.database.within("acme", begin=begin_snapshot) as session:
        stated = await make_statement(session, StatementQuestion(scope=TenantName("acme"), month=OCTOBER))

    (entry,) = stated.entries
    assert (entry.kind, entry.rule, entry.reason) == (EntryKind.TRUE_UP, found.name, "agreed with Google")
    assert entry.amount_nanos == await finance.charged("acme") > 0
    assert stated.totals.charge_nanos - stated.totals.cost_nanos == entry.amount_nanos


async def test_an_accepted_difference_stays_accepted_until_it_is_another_one(finance: Finance) -> None:
    """When Google takes it back, what was charged is open the other way round, and is given back exactly."""
    (found,) = await finance.found(replaced(with_other_price(LINE, 50)))
    await finance.accept(found.name)
    (again,) = await finance.found([])
    given_back = exported_later(changed(LINE, cost=-49 * LINE["cost"], usage={"amount": 0.0, "unit": "count"}))

    (open_again,) = await finance.found([given_back])
    await finance.accept(open_again.name)

    assert (again.state, again.is_blocking, open_again.state) == ("ACCEPTED", False, "OPEN")
    assert open_again.open_nanos == -49 * COST
    assert await finance.charged("acme") + await finance.charged("other") == 0


async def test_a_charge_can_be_put_into_a_later_period_and_never_before_the_use(finance: Finance) -> None:
    """A month that is closed does not change: what is found later is charged later."""
    (found,) = await finance.found(replaced(with_other_price(LINE, 50)))

    with pytest.raises(InvalidRequest):
        await finance.accept(found.name, day=date(2026, 10, 1))
    await finance.accept(found.name, day=date(2026, 11, 15))

    november = month_period("2026-11", ZoneInfo("Europe/Berlin"))
    charged = [await finance.charged(one, november) for one in ("acme", "other")]
    assert (await finance.charged("acme"), sum(charged)) == (0, 49 * COST)


async def test_what_the_platform_bears_is_charged_to_nobody(finance: Finance) -> None:
    """It is accepted all the same."""
    (found,) = await finance.found(replaced(with_other_price(LINE, 50)))

    accepted = await finance.accept(found.name, charges_tenants=False)

    assert (accepted.state, await finance.charged("acme"), await finance.blocked("acme")) == ("ACCEPTED", 0, [])


async def test_a_closed_month_takes_no_charge_and_a_later_one_does(finance: Finance) -> None:
    """Neither by the command nor by SQL; all of the acceptance is refused, for every tenant."""
    (found,) = await finance.found(replaced(with_other_price(LINE, 50)))
    await finance.books.view.connection.execute(
        "INSERT INTO billing_period (tenant_id, month, starts_at, ends_at, time_zone, is_fiscal, state) VALUES"
        " ('other', '2026-10', '2026-09-30 22:00Z', '2026-10-31 23:00Z', 'Europe/Berlin', false, 'CLOSED')"
    )

    with pytest.raises(PeriodClosed) as refused:
        await finance.accept(found.name)
    untouched = await finance.charged("acme")
    await finance.accept(found.name, day=date(2026, 11, 15))

    assert (refused.value.name, untouched) == ("tenants/other/periods/2026-10", 0)
