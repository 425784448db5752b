"""Mark-ups and discounts: from a month's facts and the rules in force to entries, each with its basis and reason.

All rules that apply add up, each on the cost itself and not on what another rule makes of it. So their order does not
matter, each entry can be checked alone, and a rule further down the tree can never undo one from above. Who is to be
spared a rule from above gets another one of the opposite sign, which the statement then shows.
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Final

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.chargeback import rate_store
from tollhouse_server.chargeback.cells import Month
from tollhouse_server.chargeback.charge_tables import ChargeRuleRow
from tollhouse_server.chargeback.statement import Entry, EntryKind, UsageFact
from tollhouse_server.database.rows import kept_alive
from tollhouse_server.money import divided, marginal, nanos_to_dollars, spread
from tollhouse_server.names import PLATFORM, ChargeRuleName, DepartmentName, PlatformChargeRuleName
from tollhouse_server.reporting.periods import days_of

WHOLE: Final = 1_000_000
"""Rates are millionths of the cost: 1 % is 10,000."""


class RuleKind(StrEnum):
    """How a rule reckons."""

    PERCENT = "PERCENT"
    """A part of the cost, from each department's own."""

    FIXED = "FIXED"
    """An amount for each month; for a month that it is not in force throughout, by its days."""

    STEPS = "STEPS"
    """Rates that change with the month's cost of the whole scope, each for what is above its step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargeRule:
    """A rule. `department` is an id, empty for the whole tenant; `selector` is `tiers/...`, `models/...` or empty.

    `steps` are (from nano-dollars, rate) pairs, ascending. `ends_on` is the first day on which it is not in force.
    """

    name: str
    kind: RuleKind
    reason: str
    starts_on: date
    ends_on: date | None = None
    department: str = ""
    selector: str = ""
    rate_millionths: int = 0
    amount_nanos: int = 0
    steps: tuple[tuple[int, int], ...] = ()

    def is_in_force(self, day: date) -> bool:
        """Tell whether it holds on a day."""
        return self.starts_on <= day and (self.ends_on is None or day < self.ends_on)

    def covers(self, fact: UsageFact) -> bool:
        """Tell whether it reckons with a fact, on the days on which it holds: its department then, or one below it."""
        return (not self.department or self.department in fact.department_path) and (
            self.selector in ("", f"tiers/{fact.tier}", f"models/{fact.model}")
        )


async def rate_entries(
    session: AsyncSession, tenant: str, month: Month, facts: Sequence[UsageFact]
) -> tuple[Entry, ...]:
    """Return the entries of every rule that is in force for a tenant on a day of the month."""
    days = tuple(day.date for day in days_of(month.period, month.zone))
    rules = await _rules(session, tenant, month)
    # It takes the processor for as long as there are rules and facts; others must not wait for it.
    made = asyncio.to_thread(charges, rules, facts, days=days, tenant=tenant)
    return tuple(await kept_alive(session, made))


async def steps_reach_beyond(session: AsyncSession, tenant: str, month: Month, departments: Collection[str]) -> bool:
    """Tell whether steps reckon with what others than some departments, with all below them, have used in a month."""
    rules = await _rules(session, tenant, month)
    return any(rule.kind is RuleKind.STEPS and rule.department not in departments for rule in rules)


async def _rules(session: AsyncSession, tenant: str, month: Month) -> list[ChargeRule]:
    rows = await rate_store.rules_in_force(session, tenant, month.first_day, month.last_day)
    return [rule_of(row) for row in rows]


def charges(
    rules: Iterable[ChargeRule], facts: Sequence[UsageFact], *, days: Sequence[date], tenant: str
) -> list[Entry]:
    """Return what rules make of a tenant's facts of these days, in the order of the rules, then of the departments."""
    reckoning = {RuleKind.PERCENT: _percent, RuleKind.FIXED: _fixed, RuleKind.STEPS: _steps}
    return [entry for rule in rules for entry in reckoning[rule.kind](rule, facts, days, tenant)]


def rule_of(row: ChargeRuleRow) -> ChargeRule:
    """Return the rule that a row keeps."""
    return ChargeRule(
        name=name_of(row),
        kind=RuleKind(row.kind),
        reason=row.reason,
        starts_on=row.starts_on,
        ends_on=row.ends_on,
        department=row.scope.partition("/departments/")[2],
        selector=row.selector,
        rate_millionths=row.rate_millionths,
        amount_nanos=row.amount_nanos,
        steps=tuple((start, rate) for start, rate in row.steps),
    )


def name_of(row: ChargeRuleRow) -> str:
    """Return the resource name of a row's rule."""
    if row.tenant_id == PLATFORM:
        return str(PlatformChargeRuleName(row.rule_id))
    return str(ChargeRuleName(row.tenant_id, row.rule_id))


def _percent(rule: ChargeRule, facts: Sequence[UsageFact], days: Sequence[date], tenant: str) -> Iterator[Entry]:
    said = f"{percent(rule.rate_millionths)} {_what(rule.rate_millionths)}"
    for department, basis in _costs(rule, facts, days):
        amount = divided(basis * rule.rate_millionths, WHOLE)
        yield _entry(rule, amount, said, department=_name(tenant, department), basis=basis)


def _fixed(rule: ChargeRule, _: Sequence[UsageFact], days: Sequence[date], tenant: str) -> Iterator[Entry]:
    in_force = sum(map(rule.is_in_force, days))
    if in_force == 0:
        return
    said = f"${nanos_to_dollars(rule.amount_nanos)} a month"
    if in_force < len(days):
        said += f", for {in_force} of {len(days)} days"
    amount = divided(rule.amount_nanos * in_force, len(days))
    yield _entry(rule, amount, said, department=_name(tenant, rule.department), basis=None)


def _steps(rule: ChargeRule, facts: Sequence[UsageFact], days: Sequence[date], tenant: str) -> Iterator[Entry]:
    costs = dict(_costs(rule, facts, days))
    basis = sum(costs.values())
    # Rounded once for the scope; the departments' parts sum to that exactly.
    total = marginal(basis, dict(rule.steps), whole=WHOLE)
    if total == 0:
        return
    steps = ", ".join(f"{percent(rate)} above ${nanos_to_dollars(start)}" for start, rate in rule.steps)
    said = f"part of ${nanos_to_dollars(total)}, by steps on ${nanos_to_dollars(basis)} ({steps})"
    for department, amount in spread(total, costs).items():
        yield _entry(rule, amount, said, department=_name(tenant, department), basis=costs[department])


def _costs(rule: ChargeRule, facts: Iterable[UsageFact], days: Sequence[date]) -> list[tuple[str, int]]:
    """Return what the rule reckons with, by the department to which it was charged."""
    costs: dict[str, int] = defaultdict(int)
    in_force = [day for day in days if rule.is_in_force(day)]
    for fact in filter(rule.covers, facts):
        nanos = fact.cost_nanos
        if len(in_force) < len(days):
            nanos = sum(fact.daily_nanos.get(day, 0) for day in in_force)
        costs[fact.department_path[-1] if fact.department_path else ""] += nanos
    return sorted((department, cost) for department, cost in costs.items() if cost)


def _entry(rule: ChargeRule, amount: int, said: str, *, department: str, basis: int | None) -> Entry:
    kind, _, chosen = rule.selector.partition("/")
    return Entry(
        kind=EntryKind.RATE,
        amount_nanos=amount,
        rule=rule.name,
        reason=f"{rule.reason} ({said})",
        department=department,
        tier=chosen if kind == "tiers" else "",
        model=chosen if kind == "models" else "",
        basis_nanos=basis,
    )


def _name(tenant: str, department: str) -> str:
    return str(DepartmentName(tenant, department)) if department else ""


def percent(millionths: int) -> str:
    """Return a rate as people read it: `-2.5 %`."""
    whole, rest = divmod(abs(millionths), 10_000)
    decimals = f".{rest:04d}".rstrip("0").rstrip(".")
    return f"{'-' if millionths < 0 else ''}{whole}{decimals} %"


def _what(rate_millionths: int) -> str:
    return "discount" if rate_millionths < 0 else "mark-up"
