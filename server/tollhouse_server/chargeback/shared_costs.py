"""Costs that nobody's calls have caused alone, spread over departments so that the parts sum to the whole."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.chargeback import shared_cost_store
from tollhouse_server.chargeback.cells import Month
from tollhouse_server.chargeback.charge_tables import SharedCostRow
from tollhouse_server.chargeback.shared_cost_store import DepartmentLife
from tollhouse_server.chargeback.statement import Entry, EntryKind, UsageFact
from tollhouse_server.database.rows import kept_alive
from tollhouse_server.money import nanos_to_dollars, spread
from tollhouse_server.names import DepartmentName, SharedCostName
from tollhouse_server.reporting.periods import Period


class Method(StrEnum):
    """How a cost is spread."""

    FIXED = "FIXED"
    """By stated shares."""

    EVENLY = "EVENLY"
    """The same for each of the named departments; with none named, for each that has used something in the month."""

    BY_COST = "BY_COST"
    BY_CALLS = "BY_CALLS"
    BY_TOKENS = "BY_TOKENS"
    """In proportion to the month's use, with everything below, of the named departments, or of each by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedCost:
    """An amount of one month, which may be a credit, and how it is spread. `shares` are weights of departments."""

    name: str
    display_name: str
    amount_nanos: int
    method: Method
    shares: Mapping[str, int]
    reason: str


async def shared_entries(
    session: AsyncSession, tenant: str, month: Month, facts: Sequence[UsageFact]
) -> tuple[Entry, ...]:
    """Return what each of a tenant's departments bears of every shared cost of the month."""
    rows = await shared_cost_store.costs_of_month(session, tenant, month.first_day.replace(day=1))
    if not rows:
        return ()
    lives = await shared_cost_store.department_lives(session, tenant)
    costs, heirs = [cost_of(row) for row in rows], heirs_of(lives, month.period)

    def entries() -> tuple[Entry, ...]:
        return tuple(entry for cost in costs for entry in parts_of(cost, facts, heirs, tenant=tenant))

    # It takes the processor for as long as there are costs and facts; others must not wait for it.
    return await kept_alive(session, asyncio.to_thread(entries))


async def shares_reach_beyond(session: AsyncSession, tenant: str, month: Month) -> bool:
    """Tell whether a cost of the month is spread by what departments have used."""
    rows = await shared_cost_store.costs_of_month(session, tenant, month.first_day.replace(day=1))
    return any(
        row.method != Method.FIXED.value and not (row.method == Method.EVENLY.value and row.shares) for row in rows
    )


def cost_of(row: SharedCostRow) -> SharedCost:
    """Return the shared cost that a row keeps."""
    return SharedCost(
        name=str(SharedCostName(row.tenant_id, row.cost_id)),
        display_name=row.display_name,
        amount_nanos=row.amount_nanos,
        method=Method(row.method),
        shares=row.shares,
        reason=row.reason,
    )


def heirs_of(lives: Iterable[DepartmentLife], period: Period) -> dict[str, str]:
    """Return who bears the share of each department that had ended before the period, by id.

    One that was merged is followed by the one that it went into, another by the nearest above it that is alive; nobody,
    an empty text, stands for the tenant itself. A department that was moved keeps its own share.
    """
    by_id = {life.department_id: life for life in lives}
    return {department: _heir(by_id, department, period) for department in by_id}


def _heir(by_id: Mapping[str, DepartmentLife], department: str, period: Period) -> str:
    seen: set[str] = set()
    while department in by_id and department not in seen:
        seen.add(department)
        life = by_id[department]
        if life.ended_at is None or life.ended_at > period.start:
            return department
        department = life.merged_into or life.parent_id or ""
    return ""


def parts_of(cost: SharedCost, facts: Sequence[UsageFact], heirs: Mapping[str, str], *, tenant: str) -> list[Entry]:
    """Return one entry for each department with a part in the cost; they sum to it exactly.

    Without anybody to spread it over it is one entry of the tenant itself. `basis_nanos` is the whole cost.
    """
    weights = _weights(cost, facts, heirs)
    parts = spread(cost.amount_nanos, weights) or {"": cost.amount_nanos}
    whole = sum(weights.values())
    return [
        Entry(
            kind=EntryKind.SHARED,
            amount_nanos=amount,
            rule=cost.name,
            reason=f"{cost.display_name}: {cost.reason} ({_said(cost, weights.get(department, 0), whole)})",
            department=str(DepartmentName(tenant, department)) if department else "",
            basis_nanos=cost.amount_nanos,
        )
        for department, amount in parts.items()
        if amount
    ]


def _weights(cost: SharedCost, facts: Sequence[UsageFact], heirs: Mapping[str, str]) -> dict[str, int]:
    """Return the weight of each department, in the order of their ids."""
    named = _inherited(cost.shares, heirs)
    if cost.method is Method.FIXED:
        return named
    if cost.method is Method.EVENLY:
        return dict.fromkeys(named or sorted({_own(fact) for fact in facts}), 1)
    used: dict[str, int] = dict.fromkeys(named, 0)
    for fact in facts:
        department = _charged(fact, named)
        if department is not None:
            used[department] = used.get(department, 0) + _use(cost.method, fact)
    return {department: max(0, used[department]) for department in sorted(used)}


def _inherited(shares: Mapping[str, int], heirs: Mapping[str, str]) -> dict[str, int]:
    weights: dict[str, int] = defaultdict(int)
    for department, share in shares.items():
        weights[heirs.get(department, department)] += share
    return {department: weights[department] for department in sorted(weights)}


def _charged(fact: UsageFact, named: Mapping[str, int]) -> str | None:
    """Return the department whose use a fact is: the innermost that is named, or its own where none are named."""
    if not named:
        return _own(fact)
    return next((department for department in reversed(fact.department_path) if department in named), None)


def _own(fact: UsageFact) -> str:
    return fact.department_path[-1] if fact.department_path else ""


def _use(method: Method, fact: UsageFact) -> int:
    if method is Method.BY_CALLS:
        return fact.calls
    return fact.tokens if method is Method.BY_TOKENS else fact.cost_nanos


_UNITS = {Method.BY_COST: "of the cost", Method.BY_CALLS: "of the calls", Method.BY_TOKENS: "of the tokens"}


def _said(cost: SharedCost, weight: int, whole: int) -> str:
    amount = f"${nanos_to_dollars(cost.amount_nanos)}"
    if cost.method is Method.EVENLY or whole == 0:
        return f"part of {amount}, spread evenly"
    if cost.method is Method.FIXED:
        return f"{weight} of {whole} shares of {amount}"
    shown = (f"${nanos_to_dollars(weight)}", f"${nanos_to_dollars(whole)}") if cost.method is Method.BY_COST else None
    part, all_of_it = shown or (str(weight), str(whole))
    return f"part of {amount}, for {part} of {all_of_it} {_UNITS[cost.method]}"
