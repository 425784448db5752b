"""Shared costs over the wire, and what departments bear of them by the tree as it is."""

from typing import Any

import pytest
from google.type.money_pb2 import Money
from tollhouse.admin.v1 import departments_pb2
from tollhouse.admin.v1 import shared_costs_pb2 as pb
from tollhouse_server.chargeback.shared_costs import shared_entries
from tollhouse_server.errors import InvalidRequest, PeriodClosed, ResourceNotFound

from tests.drivers.postgres import TestDatabase
from tests.integration.admin.plane import Plane
from tests.integration.charges.test_charge_rules import close_month
from tests.unit.charges.facts import fact, month_of

NAME = "tenants/acme/sharedCosts/fee"
FIXED, BY_COST = pb.SHARED_COST_METHOD_FIXED, pb.SHARED_COST_METHOD_BY_COST


def share(department: str, weight: int = 0) -> pb.DepartmentShare:
    """A department of tenant acme with its share."""
    return pb.DepartmentShare(department=f"tenants/acme/departments/{department}", share=weight)


def asked(cost: str = "fee", **fields: Any) -> pb.CreateSharedCostRequest:
    """A fee of $10 from November on, by cost, or what `fields` say."""
    given: dict[str, Any] = {
        "display_name": "Platform fee",
        "amount": Money(units=10),
        "method": BY_COST,
        "reason": "Contract 7",
        "start_month": "2026-11",
    }
    return pb.CreateSharedCostRequest(
        parent="tenants/acme", shared_cost_id=cost, shared_cost=pb.SharedCost(**{**given, **fields})
    )


async def borne(plane: Plane, month: str = "2026-11") -> dict[str, int]:
    """What departments bear in a month in which sales and emea have used $1 each."""
    facts = [fact("sales"), fact("sales", "emea")]
    async with plane.database.within("acme") as session:
        found = await shared_entries(session, "acme", month_of(month), facts)
    return {one.department.rpartition("/")[2]: one.amount_nanos for one in found}


async def test_a_cost_is_of_each_month_until_it_is_ended(plane: Plane) -> None:
    """In halves here, to the nano-dollar."""
    await plane.tenant("acme")
    await plane.call(asked(amount=Money(units=10, nanos=1)))
    await plane.call(
        asked("once", amount=Money(units=-2), end_month="2026-12", method=FIXED, departments=[share("sales", 1)])
    )

    await plane.call(pb.EndSharedCostRequest(name=NAME, end_month="2027-01"))

    assert await borne(plane, "2026-10") == {}
    assert await borne(plane, "2026-12") == {"emea": 5_000_000_001, "sales": 5_000_000_000}
    assert await borne(plane, "2027-01") == {}
    async with plane.database.within("acme") as session:
        found = await shared_entries(session, "acme", month_of("2026-11"), [fact("sales")])
    assert [(one.rule.rsplit("/", 1)[1], one.amount_nanos) for one in found] == [
        ("fee", 10_000_000_001),
        ("once", -2_000_000_000),
    ]


async def test_the_share_of_a_merged_department_is_its_heirs(plane: Plane, fresh_database: TestDatabase) -> None:
    """From the month after on; in the month of the merge it still bears its own."""
    await plane.tenant("acme")
    await plane.call(asked(method=FIXED, departments=[share("sales", 1), share("emea", 3)]))

    await plane.call(
        departments_pb2.MergeDepartmentRequest(
            name="tenants/acme/departments/emea", into_department="tenants/acme/departments/sales"
        )
    )

    # The test's clock is that of the database: a month in which it is merged, and one long after it.
    assert await borne(plane, "2099-01") == {"sales": 10_000_000_000}


async def test_closed_months_keep_their_shared_costs(plane: Plane, fresh_database: TestDatabase) -> None:
    """None begins in one, none is taken away from one."""
    await plane.tenant("acme")
    await plane.call(asked(start_month="2026-09"))
    await close_month(fresh_database, "2026-10")

    with pytest.raises(PeriodClosed, match="2026-10"):
        await plane.call(asked("late", start_month="2026-10"))
    with pytest.raises(PeriodClosed, match="2026-10"):
        await plane.call(pb.EndSharedCostRequest(name=NAME, end_month="2026-10"))
    ended = await plane.call(pb.EndSharedCostRequest(name=NAME, end_month="2026-11"))
    assert ended.end_month == "2026-11"


async def test_shared_costs_are_listed_by_month(plane: Plane) -> None:
    """All of them, or those that a month has."""
    await plane.tenant("acme")
    await plane.call(asked("aa", end_month="2026-12"))
    await plane.call(asked("bb", start_month="2026-12"))

    listed = await plane.call(pb.ListSharedCostsRequest(parent="tenants/acme", page_size=1))
    rest = await plane.call(
        pb.ListSharedCostsRequest(parent="tenants/acme", page_size=1, page_token=listed.next_page_token)
    )
    november = await plane.call(pb.ListSharedCostsRequest(parent="tenants/acme", month="2026-11"))

    assert [one.name[-2:] for page in (listed, rest) for one in page.shared_costs] == ["aa", "bb"]
    assert [one.name[-2:] for one in november.shared_costs] == ["aa"]
    assert (
        await plane.call(pb.GetSharedCostRequest(name="tenants/acme/sharedCosts/aa"))
    ).kind == pb.SharedCost.KIND_OTHER


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"amount": Money()}, "amount"),
        ({"method": FIXED}, "departments"),
        ({"method": FIXED, "departments": [share("sales")]}, "share"),
        ({"departments": [share("sales", 1)]}, "share"),
        ({"departments": [share("sales"), share("sales")]}, "once"),
        ({"end_month": "2026-10"}, "end_month"),
    ],
)
async def test_a_cost_that_makes_no_sense_is_refused(plane: Plane, fields: dict[str, Any], said: str) -> None:
    """With the field that is wrong."""
    with pytest.raises(InvalidRequest, match=said):
        await plane.call(asked(**fields))


async def test_a_department_that_does_not_exist_bears_nothing(plane: Plane) -> None:
    """It is refused before anything is written."""
    await plane.tenant("acme")

    with pytest.raises(ResourceNotFound, match="departments/nobody"):
        await plane.call(asked(method=FIXED, departments=[share("nobody", 1)]))
