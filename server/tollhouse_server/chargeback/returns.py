"""Return on investment: what the month's units of work would have cost in the way that the tenant has stated."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Final

from tollhouse_server.chargeback.statement import Return
from tollhouse_server.reporting.detail_store import LabelCost

PROJECT: Final = "projects/"
LABEL: Final = "labels/"


class Counting(StrEnum):
    """How units of work are counted: every call is one, or a number is given for each month."""

    CALLS = "CALLS"
    GIVEN = "GIVEN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """What a unit of a subject's work costs otherwise; `units` are those that were given for the month, if any."""

    alternative_cost: str
    starts_on: date
    subject: str
    unit: str
    unit_nanos: int
    counting: Counting
    units: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What was done in one project of a department."""

    department_path: tuple[str, ...]
    project: str
    calls: int
    cost_nanos: int


def in_force(stated: Sequence[Alternative], on: date) -> list[Alternative]:
    """Return of each alternative cost what holds on a day, by name; one whose unit costs nothing has ended."""
    newest: dict[str, Alternative] = {}
    for one in stated:
        found = newest.get(one.alternative_cost)
        if one.starts_on <= on and (found is None or found.starts_on < one.starts_on):
            newest[one.alternative_cost] = one
    return [newest[name] for name in sorted(newest) if newest[name].unit_nanos]


def returns_of(
    alternatives: Sequence[Alternative], work: Sequence[Work], labels: Sequence[LabelCost], department: str
) -> Iterator[Return]:
    """Yield what each alternative comes to in a department with everything below it, or in the tenant.

    What was given for a month is of the whole subject: where only a part of the subject's calls is of the department,
    nothing is said. So it is where there were neither calls nor units.
    """
    for one in alternatives:
        whole = _calls_and_cost(one.subject, work, labels, "")
        calls, cost_nanos = _calls_and_cost(one.subject, work, labels, department)
        if one.counting is Counting.GIVEN and (calls, cost_nanos) != whole:
            continue
        units = calls if one.counting is Counting.CALLS else one.units
        if not units or (department and not calls):
            continue
        yield Return(
            unit=f"{one.unit} ({one.subject.partition('/')[2]})",
            units=units,
            alternative_nanos=units * one.unit_nanos,
            actual_nanos=cost_nanos,
        )


def subject_of_project(project: str) -> str:
    """Return the subject that the work of a project is of."""
    return f"{PROJECT}{project}"


def subject_of_label(cost: LabelCost) -> str:
    """Return the subject that calls with a label are of."""
    return f"{LABEL}{cost.label}={cost.value}"


def _calls_and_cost(
    subject: str, work: Sequence[Work], labels: Sequence[LabelCost], department: str
) -> tuple[int, int]:
    found: list[Work] | list[LabelCost]
    if subject.startswith(PROJECT):
        found = [one for one in work if subject_of_project(one.project) == subject]
    else:
        found = [one for one in labels if subject_of_label(one) == subject]
    mine = [one for one in found if not department or department in one.department_path]
    return sum(one.calls for one in mine), sum(one.cost_nanos for one in mine)
