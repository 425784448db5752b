"""Readings made of what was read: which labels they bear, and in which unit they are."""

from collections.abc import Mapping, Sequence

from tollhouse_server.money import NANOS_PER_DOLLAR
from tollhouse_server.readings.budget_store import BudgetUse
from tollhouse_server.readings.state_store import Reconciled, State
from tollhouse_server.telemetry.declarations import database, ledger, money
from tollhouse_server.telemetry.families import OTHER
from tollhouse_server.telemetry.readings import Reading, reading


def budget_readings(budgets: Sequence[BudgetUse]) -> tuple[Reading, ...]:
    """Return what is told of budgets; ratios only of those with a name, because that of a sum says nothing."""
    named = [one for one in budgets if one.name]
    return (
        Reading(declaration=money.BUDGET_AMOUNT, values={_whose(one): _dollars(one.amount_nanos) for one in budgets}),
        Reading(declaration=money.BUDGET_SETTLED, values={_whose(one): _dollars(one.settled_nanos) for one in budgets}),
        Reading(declaration=money.BUDGET_HELD, values={_whose(one): _dollars(one.held_nanos) for one in budgets}),
        Reading(declaration=money.BUDGET_USED, values={_whose(one): _used(one) for one in named}),
        Reading(
            declaration=money.BUDGET_ELAPSED,
            values={_whose(one): one.elapsed_ratio for one in named if one.elapsed_ratio is not None},
        ),
    )


def _whose(budget: BudgetUse) -> tuple[str, ...]:
    if not budget.name:
        return (OTHER, OTHER, OTHER)
    # `departments/sales` within the tenant that has a label of its own; `tenant` for the whole of it.
    scope = budget.scope.removeprefix(f"tenants/{budget.tenant_id}").removeprefix("/") or "tenant"
    return (budget.tenant_id, scope, budget.name)


def _used(budget: BudgetUse) -> float:
    # Nothing fits into an amount of nothing.
    return (budget.settled_nanos + budget.held_nanos) / budget.amount_nanos if budget.amount_nanos else 1.0


def department_reading(dearest: Mapping[tuple[str, str], int], others_nanos: int) -> Reading:
    """Return what departments cost, the others as one."""
    # What belongs to no department, such as a correction for a whole tenant, has none in its path.
    told: dict[tuple[str, ...], float] = {
        (tenant, department or "none"): _dollars(nanos) for (tenant, department), nanos in dearest.items()
    }
    # A tenant may have this very name.
    told[OTHER, OTHER] = told.get((OTHER, OTHER), 0.0) + _dollars(others_nanos)
    return Reading(declaration=money.DEPARTMENT_COST, values=told)


def reconciliation_readings(reconciled: Reconciled | None) -> tuple[Reading, ...]:
    """Return what is told of bills, nothing before the first."""
    if reconciled is None:
        return ()
    variance: dict[tuple[str, ...], float] = {
        (verdict,): _dollars(nanos) for verdict, nanos in reconciled.variance_nanos.items()
    }
    return (
        Reading(declaration=money.RECONCILIATION_VARIANCE, values=variance),
        reading(money.RECONCILIATION_AGE, reconciled.age_seconds),
    )


def state_readings(state: State) -> tuple[Reading, ...]:
    """Return what is told of upkeep and database."""
    connections: dict[tuple[str, ...], float] = {(name,): float(count) for name, count in state.connections.items()}
    return (
        reading(ledger.SUSPENSE_OLDEST, state.suspense_seconds),
        reading(money.PERIODS_CLOSED, state.closed_periods),
        reading(ledger.PARTITIONS_AHEAD, state.partition_seconds),
        Reading(declaration=database.CONNECTIONS, values=connections),
        reading(database.CONNECTIONS_LIMIT, state.most_connections),
        reading(database.SIZE, state.size_bytes),
    )


def _dollars(nanos: int) -> float:
    return nanos / NANOS_PER_DOLLAR
