"""Mark-ups and discounts: every rule on the cost itself, every entry rounded once."""

from collections import defaultdict
from dataclasses import replace
from datetime import date
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tollhouse_server.chargeback.rates import WHOLE, ChargeRule, RuleKind, charges, percent
from tollhouse_server.chargeback.statement import Entry, EntryKind, UsageFact

from tests.unit.charges.facts import DAYS, FACTS, fact


def rule(kind: RuleKind = RuleKind.PERCENT, **fields: Any) -> ChargeRule:
    """A mark-up of 5 % on everything of the tenant, or what `fields` say."""
    given_fields: dict[str, Any] = {
        "name": "tenants/acme/chargeRules/overhead",
        "reason": "Overhead",
        "starts_on": date(2026, 1, 1),
        "rate_millionths": 50_000,
    }
    return ChargeRule(kind=kind, **{**given_fields, **fields})


def entries(*rules: ChargeRule, facts: list[UsageFact]) -> list[Entry]:
    """What the rules make of November."""
    return charges(rules, facts, days=DAYS, tenant="acme")


def test_a_mark_up_is_one_entry_for_each_department() -> None:
    """It names the rule, the basis and the reason."""
    made = entries(rule(), facts=[fact("sales"), fact("sales", cost_nanos=7), fact("research", "vision")])

    assert [(one.department.rsplit("/", 1)[1], one.basis_nanos, one.amount_nanos) for one in made] == [
        ("sales", 1_000_000_007, 50_000_000),
        ("vision", 1_000_000_000, 50_000_000),
    ]
    assert {(one.kind, one.rule, one.reason) for one in made} == {
        (EntryKind.RATE, "tenants/acme/chargeRules/overhead", "Overhead (5 % mark-up)")
    }


@given(FACTS, st.integers(-WHOLE, 10 * WHOLE))
def test_a_rate_is_rounded_once_for_each_department(facts: list[UsageFact], rate: int) -> None:
    """Half to even, on the sum and not on its parts."""
    costs: dict[str, int] = defaultdict(int)
    for one in facts:
        costs[one.department_path[-1] if one.department_path else ""] += one.cost_nanos

    made = entries(rule(rate_millionths=rate), facts=facts)

    found = {one.department.rpartition("/")[2]: one.amount_nanos for one in made}
    assert found == {key: round(Fraction(cost * rate, WHOLE)) for key, cost in costs.items() if cost}


@given(FACTS, st.integers(-WHOLE, WHOLE), st.integers(-WHOLE, WHOLE))
def test_rules_add_up_and_their_order_does_not_matter(facts: list[UsageFact], one: int, other: int) -> None:
    """None is reckoned on what another has made of the cost."""
    first, second = rule(rate_millionths=one), rule(rate_millionths=other, department="sales")

    together = entries(first, second, facts=facts)

    assert together == entries(first, facts=facts) + entries(second, facts=facts)
    assert sorted(map(repr, entries(second, first, facts=facts))) == sorted(map(repr, together))


def test_a_rule_holds_for_its_department_and_all_below_it_on_its_days_and_its_model() -> None:
    """By the tree as it was when the call was made."""
    found = rule(
        department="research",
        starts_on=date(2026, 11, 10),
        ends_on=date(2026, 11, 12),
        selector="models/gemini-3.5-flash",
    )
    facts = [
        fact("research", "vision", day=date(2026, 11, 10)),
        fact("research", day=date(2026, 11, 11), tier="pro"),
        fact("research", day=date(2026, 11, 9)),
        fact("research", day=date(2026, 11, 12)),
        fact("research", model="gemini-3.5-pro"),
        fact("sales"),
    ]

    made = entries(found, facts=facts)

    assert [(one.department, one.basis_nanos, one.model) for one in made] == [
        ("tenants/acme/departments/research", 1_000_000_000, "gemini-3.5-flash"),
        ("tenants/acme/departments/vision", 1_000_000_000, "gemini-3.5-flash"),
    ]


def test_a_rule_reckons_with_those_days_of_a_place_on_which_it_holds() -> None:
    """The last day of a rule is the one before it ends."""
    costs = {date(2026, 11, day): 10**day for day in (9, 10, 11, 12)}
    place = replace(fact("sales"), daily_nanos=costs, cost_nanos=sum(costs.values()))

    part = entries(rule(starts_on=date(2026, 11, 10), ends_on=date(2026, 11, 12)), facts=[place])
    whole = entries(rule(), facts=[place])

    assert [one.basis_nanos for one in (*part, *whole)] == [10**10 + 10**11, sum(costs.values())]


def test_the_entry_of_a_rule_for_a_tier_names_the_tier() -> None:
    """So that the statement charges it to no other."""
    made = entries(rule(selector="tiers/pro"), facts=[fact("sales", tier="pro"), fact("sales", tier="flash")])

    assert [(one.basis_nanos, one.tier, one.model) for one in made] == [(1_000_000_000, "pro", "")]


@pytest.mark.parametrize(
    ("starts_on", "ends_on", "amount"),
    [
        (date(2026, 1, 1), None, 100),
        (date(2026, 11, 16), None, 50),
        (date(2026, 1, 1), date(2026, 11, 16), 50),
        (date(2026, 11, 30), None, 3),
        (date(2026, 12, 1), None, None),
        (date(2026, 11, 10), date(2026, 11, 10), None),
    ],
)
def test_a_fixed_amount_is_by_the_days_of_the_month(starts_on: date, ends_on: date | None, amount: int | None) -> None:
    """A rule that is ended and begun anew within a month is so charged once, and not twice."""
    found = rule(RuleKind.FIXED, amount_nanos=100, starts_on=starts_on, ends_on=ends_on)

    made = entries(found, facts=[])

    assert [one.amount_nanos for one in made] == ([] if amount is None else [amount])


@given(FACTS, st.integers(1, 10**13))
def test_steps_are_rounded_once_for_the_scope_and_divided_exactly(facts: list[UsageFact], second: int) -> None:
    """Ten per cent off what is above a step, by the cost of all departments together."""
    found = rule(RuleKind.STEPS, steps=((0, 30_000), (second, -100_000)))
    basis = sum(one.cost_nanos for one in facts)

    made = entries(found, facts=facts)

    low, high = max(0, min(basis, second)), max(0, basis - second)
    assert sum(one.amount_nanos for one in made) == round(Fraction(low * 30_000 - high * 100_000, WHOLE))


def test_rates_are_written_as_people_write_them() -> None:
    """Exactly, whatever their fineness."""
    assert [percent(rate) for rate in (50_000, -25_000, 1, 0, 1_000_000)] == [
        "5 %",
        "-2.5 %",
        "0.0001 %",
        "0 %",
        "100 %",
    ]
