"""Return on investment against what was stated."""

from datetime import date

from tollhouse_server.chargeback.returns import Alternative, Counting, Work, in_force, returns_of
from tollhouse_server.chargeback.statement import Return
from tollhouse_server.reporting.detail_store import LabelCost

DOLLAR = 1_000_000_000
WORK = [
    Work(department_path=("sales", "emea"), project="bot", calls=100, cost_nanos=30 * DOLLAR),
    Work(department_path=("sales",), project="crm", calls=7, cost_nanos=DOLLAR),
]
LABELS = [
    LabelCost(department_path=("sales", "emea"), label="stage", value="live", calls=60, cost_nanos=9),
    LabelCost(department_path=("hr",), label="stage", value="live", calls=40, cost_nanos=5),
]


def ticket(subject: str = "projects/bot", **changes: object) -> Alternative:
    """Build a ticket of four dollars, each call one."""
    values: dict[str, object] = {
        "alternative_cost": "tickets",
        "starts_on": date(2026, 1, 1),
        "subject": subject,
        "unit": "ticket",
        "unit_nanos": 4 * DOLLAR,
        "counting": Counting.CALLS,
    }
    return Alternative(**(values | changes))  # type: ignore[arg-type]


def returns(one: Alternative, department: str = "") -> list[Return]:
    """Return what an alternative comes to."""
    return list(returns_of([one], WORK, LABELS, department))


def test_every_call_of_a_project_is_a_unit() -> None:
    """In its department and above; elsewhere nothing is said."""
    expected = Return(unit="ticket (bot)", units=100, alternative_nanos=400 * DOLLAR, actual_nanos=30 * DOLLAR)

    assert returns(ticket()) == returns(ticket(), "sales") == returns(ticket(), "emea") == [expected]
    assert returns(ticket(), "hr") == []


def test_a_label_is_split_by_its_calls_but_a_given_number_is_not() -> None:
    """What was given for all is not told of a part."""
    called, given = (
        ticket("labels/stage=live", counting=counting, units=20) for counting in (Counting.CALLS, Counting.GIVEN)
    )

    assert [(one.units, one.actual_nanos) for one in returns(called, "emea")] == [(60, 9)]
    assert [(one.units, one.actual_nanos) for one in returns(given)] == [(20, 14)]
    assert returns(given, "emea") == []
    assert returns(ticket(counting=Counting.GIVEN, units=None)) == []


def test_the_newest_statement_counts_until_it_is_ended() -> None:
    """Of what begins later nothing is known yet; an amount of nothing ends it."""
    stated = [
        ticket(unit_nanos=5, starts_on=date(2026, 3, 1)),
        ticket(),
        ticket(unit_nanos=0, starts_on=date(2026, 6, 1)),
    ]

    assert [one.unit_nanos for one in in_force(stated, date(2026, 2, 28))] == [4 * DOLLAR]
    assert [one.unit_nanos for one in in_force(stated, date(2026, 3, 31))] == [5]
    assert in_force(stated, date(2026, 6, 30)) == []
