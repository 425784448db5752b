"""A month laid out for all departments at once says of each what it says when laid out for it alone."""

import random
from datetime import UTC, date, datetime

import pytest
from tollhouse_server.chargeback.canonical import canonical_json
from tollhouse_server.chargeback.cells import Department, MoneyLimit, Month, MonthBooks, Saved, SkuCell
from tollhouse_server.chargeback.composing import compose, compose_from
from tollhouse_server.chargeback.layout import TENANT, lay_out
from tollhouse_server.chargeback.statement import Entry, EntryKind, PeriodState
from tollhouse_server.names import DepartmentName, TenantName
from tollhouse_server.reporting.detail_store import LabelCost
from tollhouse_server.reporting.periods import Period

from tests.drivers.cells import cell_of, days_of

MAY = Period(start=datetime(2026, 5, 1, tzinfo=UTC), end=datetime(2026, 6, 1, tzinfo=UTC))
# The department x was moved from a to b in the month.
PATHS = (("a",), ("a", "x"), ("b",), ("b", "x"), ("b", "x", "y"), ("c",))
IDS = ("a", "b", "c", "idle", "x", "y")


def month(seed: int) -> MonthBooks:
    """Build the books of a month at random."""
    chance = random.Random(seed)
    cells = [
        cell_of(date(2026, 5, day), path, "p", chance.choice(("flash", "pro")), "m", *(1, 10, 0, 5, 0, 0, nanos, 0, 0))
        for day in range(1, 4)
        for path in PATHS
        if (nanos := chance.randrange(3))
    ]
    entries = [
        Entry(kind=EntryKind.RATE, amount_nanos=chance.randrange(-9, 99), rule="r", reason="why", department=charged)
        for charged in ("", *(str(DepartmentName("acme", one)) for one in IDS))
    ]
    scopes = ["tenants/acme", *(str(DepartmentName("acme", one)) for one in IDS)]
    return MonthBooks(
        tenant="acme",
        display_name="Acme",
        month=Month(name="2026-05", period=MAY, time_zone="UTC", is_fiscal=False),
        read_at=MAY.end,
        cells=cells,
        days=days_of(cells),
        skus=[SkuCell(cell.department_path, "p", cell.tier, "m", "s", 1, 10, cell.cost_nanos) for cell in cells],
        entries=entries,
        labels=[
            LabelCost(department_path=path, label="k", value=str(place), calls=1, cost_nanos=place)
            for place, path in enumerate(PATHS)
        ],
        saved=[Saved(department_path=path, cache_nanos=1, batch_nanos=2) for path in PATHS],
        avoided_nanos=dict.fromkeys(PATHS, 3),
        price_versions={path: frozenset({place % 3}) for place, path in enumerate(PATHS)},
        limits=[
            MoneyLimit(name=f"l{place}", scope=scope, selector=chance.choice(("", "tiers/pro")), amount_nanos=5)
            for place, scope in enumerate(scopes)
        ],
        departments={"idle": Department(display_name="Idle", path=("a", "idle"))},
    )


@pytest.mark.parametrize("seed", range(20))
def test_statements_of_one_layout_are_those_of_each_department_alone(seed: int) -> None:
    """To the letter, also where a department was moved, or has no use at all."""
    books = month(seed)

    layout = lay_out(books, [TENANT, *IDS])

    for department in (TENANT, *IDS):
        scope = DepartmentName("acme", department) if department else TenantName("acme")
        made = canonical_json(compose_from(layout, scope, PeriodState.CLOSED))
        assert made == canonical_json(compose(books, scope, PeriodState.CLOSED))


def test_what_a_department_has_is_what_was_below_it() -> None:
    """Of cells, entries and limits; of the tenant, everything."""
    books = month(1)

    layout = lay_out(books, [TENANT, "b"])

    assert layout.own[TENANT].cells == books.cells
    assert layout.own["b"].days == [day for day in books.days if "b" in day.department_path]
    assert layout.own["b"].cells == [cell for cell in books.cells if "b" in cell.department_path]
    charged = {entry.department.rpartition("/")[2] for entry in layout.own["b"].entries}
    assert charged == {"b", "x", "y"}
    halves = [entry for one in "ab" for entry in lay_out(books, [one]).own[one].entries if "x" in entry.department]
    assert sum(one.amount_nanos for one in halves) == sum(e.amount_nanos for e in books.entries if "x" in e.department)
    assert {limit.scope.rpartition("/")[2] for limit in layout.own["b"].limits} == {"b"}
