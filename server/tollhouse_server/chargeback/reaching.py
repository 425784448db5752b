"""How much of a tenant's month the statement of one department is made from, where it has thousands of others."""

from collections.abc import Mapping, Sequence
from datetime import date

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.chargeback import usage_store
from tollhouse_server.chargeback.cells import Department, Month
from tollhouse_server.chargeback.returns import LABEL, PROJECT, Alternative, in_force
from tollhouse_server.reporting.questions import Reach


async def reach_of(
    session: AsyncSession,
    tenant: str,
    month: Month,
    department: str,
    *,
    departments: Mapping[str, Department],
    alternatives: Sequence[Alternative] = (),
) -> Reach:
    """Return what is read for a department.

    That is all of every department that was, or is now, the same or below it: also what one of them cost elsewhere, as
    its entries are divided by that. Of work that an alternative is stated for, it is the whole.
    """
    ways = [*await usage_store.read_paths(session, tenant, month.period, department), (department,)]
    ways += [one.path for one in departments.values() if department in one.path]
    subjects = _subjects(alternatives, month.last_day)
    return Reach(
        departments=tuple(sorted({one for way in ways for one in way[way.index(department) :]})),
        projects=tuple(one.removeprefix(PROJECT) for one in subjects if one.startswith(PROJECT)),
        labels=tuple(one.removeprefix(LABEL) for one in subjects if one.startswith(LABEL)),
    )


def _subjects(alternatives: Sequence[Alternative], on: date) -> list[str]:
    return sorted({one.subject for one in in_force(alternatives, on)})
