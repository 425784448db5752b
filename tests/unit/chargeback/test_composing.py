"""Statements from cells and entries, without a database: every breakdown adds up, in cost and in charge."""

from datetime import UTC, date, datetime

import pytest
from tollhouse_server.chargeback.cells import Cell, Department, Month, MonthBooks
from tollhouse_server.chargeback.composing import compose
from tollhouse_server.chargeback.statement import Entry, EntryKind, PeriodState, Statement
from tollhouse_server.names import DepartmentName, Scope, TenantName
from tollhouse_server.reporting.periods import Period
from tollhouse_server.reporting.sums import Dimension

from tests.drivers.cells import cell_of, days_of

MAY = Period(start=datetime(2026, 5, 1, tzinfo=UTC), end=datetime(2026, 6, 1, tzinfo=UTC))
TENANT = TenantName("acme")


def cell(path: str, cost_nanos: int, *, tier: str = "flash", model: str = "a", day: int = 1) -> Cell:
    """Build what a department cost on a day."""
    return cell_of(date(2026, 5, day), tuple(path.split(".")), "p", tier, model, *(1, 10, 0, 5, 0, 0, cost_nanos, 0, 0))


def entry(amount_nanos: int, department: str = "", *, tier: str = "", model: str = "") -> Entry:
    """Build an entry of a department, or of the tenant."""
    name = str(DepartmentName("acme", department)) if department else ""
    return Entry(
        kind=EntryKind.RATE,
        amount_nanos=amount_nanos,
        rule="r",
        reason="why",
        department=name,
        tier=tier,
        model=model,
    )


def stated(scope: Scope, cells: list[Cell], *entries: Entry) -> Statement:
    """Make a statement of cells and entries."""
    books = MonthBooks(
        tenant="acme",
        display_name="Acme",
        month=Month(name="2026-05", period=MAY, time_zone="UTC", is_fiscal=False),
        read_at=MAY.end,
        cells=cells,
        days=days_of(cells),
        skus=[],
        entries=entries,
        departments={"idle": Department(display_name="Idle", path=("a", "idle"))},
    )
    return compose(books, scope, PeriodState.OPEN)


def charges(statement: Statement, dimension: Dimension) -> dict[str, int]:
    """Return what is charged by the last ids of the keys."""
    return {part.key.rpartition("/")[2]: part.amounts.charge_nanos for part in statement.breakdowns[dimension]}


@pytest.mark.parametrize("amount", [100, -100, 1, -1, 7])
def test_charges_by_everything_add_up_to_the_charge(amount: int) -> None:
    """What an entry does not say itself is spread in proportion to the cost, without a nano-dollar lost."""
    cells = [cell("a.x", 3, model="m1"), cell("a.x", 3, model="m2", day=2), cell("b", 1, model="m3", day=3)]

    statement = stated(TENANT, cells, entry(amount), entry(amount, "x"), entry(amount, "b", model="m3"))

    assert statement.totals.charge_nanos == 7 + 3 * amount
    for parts in statement.breakdowns.values():
        assert sum(part.amounts.charge_nanos for part in parts) == statement.totals.charge_nanos
    assert charges(statement, Dimension.DEPARTMENT) == {"": amount, "x": 6 + amount, "b": 1 + amount}


def test_an_entry_of_a_tier_is_charged_to_that_tier_and_its_models_alone() -> None:
    """A mark-up on one tier makes no other one dearer."""
    cells = [cell("a", 3, tier="pro", model="m1"), cell("a", 1, tier="pro", model="m2"), cell("a", 90, model="m1")]

    statement = stated(TENANT, cells, entry(8, "a", tier="pro"))

    assert charges(statement, Dimension.TIER) == {"flash": 90, "pro": 4 + 8}
    assert charges(statement, Dimension.MODEL) == {"m1": 93 + 6, "m2": 1 + 2}


def test_an_entry_of_a_department_is_in_the_statements_of_those_above_it_and_of_no_other() -> None:
    """An entry of the tenant as a whole is in the tenant's alone; one without any use counts by where it is now."""
    cells = [cell("a.x", 3), cell("b", 1)]
    entries = [entry(10), entry(20, "x"), entry(30, "b"), entry(40, "idle")]

    def charge(department: str) -> int:
        return stated(DepartmentName("acme", department), cells, *entries).totals.charge_nanos

    assert stated(TENANT, cells, *entries).totals.charge_nanos == 104
    assert {one: charge(one) for one in ("a", "x", "b", "idle")} == {"a": 63, "x": 23, "b": 31, "idle": 40}


def test_an_entry_of_a_department_that_was_moved_is_shared_by_what_it_cost_at_either_place() -> None:
    """Both parts together are the entry."""
    cells = [cell("a.x", 2), cell("b.x", 1, day=9)]

    parts = [stated(DepartmentName("acme", one), cells, entry(100, "x")).entries for one in ("a", "b", "x")]

    assert [one.amount_nanos for (one,) in parts] == [67, 33, 100]
