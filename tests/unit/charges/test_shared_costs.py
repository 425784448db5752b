"""Shared costs: what departments bear sums to the whole to the nano-dollar."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tollhouse_server.chargeback.shared_cost_store import DepartmentLife
from tollhouse_server.chargeback.shared_costs import Method, SharedCost, heirs_of, parts_of
from tollhouse_server.chargeback.statement import EntryKind, UsageFact
from tollhouse_server.reporting.periods import Period

from tests.unit.charges.facts import FACTS, fact

NOVEMBER = Period(start=datetime(2026, 11, 1, tzinfo=UTC), end=datetime(2026, 12, 1, tzinfo=UTC))


def cost(method: Method, amount: int = 100, **shares: int) -> SharedCost:
    """A platform fee."""
    return SharedCost(
        name="tenants/acme/sharedCosts/fee",
        display_name="Platform fee",
        amount_nanos=amount,
        method=method,
        shares=shares,
        reason="Contract 7",
    )


def borne(shared: SharedCost, facts: list[UsageFact], heirs: dict[str, str] | None = None) -> dict[str, int]:
    """What each department bears, by id."""
    parts = parts_of(shared, facts, heirs or {}, tenant="acme")
    return {part.department.rpartition("/")[2]: part.amount_nanos for part in parts}


def life(department: str, **fields: Any) -> DepartmentLife:
    """A department that is alive, or what `fields` say."""
    given_fields: dict[str, Any] = {"parent_id": None, "merged_into": None, "ended_at": None}
    return DepartmentLife(department_id=department, **{**given_fields, **fields})


@given(
    st.sampled_from(Method),
    st.integers(-(10**15), 10**15).filter(bool),
    st.dictionaries(st.sampled_from(["research", "vision", "sales", "gone"]), st.integers(0, 1000)),
    FACTS,
    st.dictionaries(st.sampled_from(["gone", "vision"]), st.sampled_from(["sales", "research", ""])),
)
def test_whatever_is_shared_is_borne_whole(
    method: Method, amount: int, shares: dict[str, int], facts: list[UsageFact], heirs: dict[str, str]
) -> None:
    """For every method, shares, use and sign, with departments that have ended."""
    parts = parts_of(cost(method, amount, **shares), facts, heirs, tenant="acme")

    assert sum(part.amount_nanos for part in parts) == amount
    assert {(part.kind, part.rule, part.basis_nanos) for part in parts} == {
        (EntryKind.SHARED, "tenants/acme/sharedCosts/fee", amount)
    }


@pytest.mark.parametrize(
    ("method", "parts"),
    [
        (Method.BY_COST, {"sales": 25, "vision": 75}),
        (Method.BY_CALLS, {"sales": 80, "vision": 20}),
        (Method.BY_TOKENS, {"sales": 90, "vision": 10}),
        (Method.EVENLY, {"sales": 50, "vision": 50}),
    ],
)
def test_use_decides_in_its_own_unit(method: Method, parts: dict[str, int]) -> None:
    """Without departments named it is each one's own use."""
    facts = [
        fact("sales", cost_nanos=1, calls=8, tokens=9),
        fact("research", "vision", cost_nanos=3, calls=2, tokens=1),
    ]

    assert borne(cost(method), facts) == parts


def test_a_named_department_bears_what_is_below_it_too() -> None:
    """The innermost that is named counts; use of others counts for nobody."""
    facts = [fact("research", "vision", cost_nanos=3), fact("research", cost_nanos=1), fact("sales", cost_nanos=100)]

    assert borne(cost(Method.BY_COST, research=0), facts) == {"research": 100}
    assert borne(cost(Method.BY_COST, research=0, vision=0), facts) == {"research": 25, "vision": 75}


def test_shares_are_kept_when_departments_move_and_follow_them_when_they_end() -> None:
    """A merged one is followed by the one it went into, a deleted one by the nearest above it."""
    before, within = datetime(2026, 10, 5, tzinfo=UTC), datetime(2026, 11, 5, tzinfo=UTC)
    heirs = heirs_of(
        [
            life("sales"),
            life("moved", parent_id="sales"),
            life("merged", merged_into="sales", ended_at=before),
            life("deleted", parent_id="merged", ended_at=before),
            life("top", ended_at=before),
            life("this-month", merged_into="sales", ended_at=within),
        ],
        NOVEMBER,
    )
    shares = {"sales": 1, "moved": 1, "merged": 1, "deleted": 1, "top": 1, "this-month": 5}

    parts = borne(cost(Method.FIXED, 100, **shares), [], heirs)

    assert parts == {"sales": 30, "moved": 10, "": 10, "this-month": 50}


def test_a_fee_is_borne_in_a_month_without_a_call() -> None:
    """Evenly by the departments that are named, else by the tenant itself."""
    assert borne(cost(Method.BY_COST, sales=0, research=0), []) == {"research": 50, "sales": 50}
    assert borne(cost(Method.BY_TOKENS), []) == {"": 100}


def test_the_rule_stands_in_the_entry() -> None:
    """So that whoever pays can check it."""
    (entry,) = parts_of(cost(Method.FIXED, 1_500_000_000, sales=3), [], {}, tenant="acme")

    assert entry.reason == "Platform fee: Contract 7 (3 of 3 shares of $1.50)"
