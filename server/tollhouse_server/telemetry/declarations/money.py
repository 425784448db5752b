"""What is told of budgets, of what departments spend, and of what Google bills. The ledger has the exact integers."""

from tollhouse_server.telemetry.declarations.declaration import Declaration, Source, counter, reading

_WHOSE = ("tenant", "scope", "limit")

BUDGET_AMOUNT = reading(
    "tollhouse_budget_amount_dollars",
    "Amount in force of a limit on money, increases included: those used most, all others summed as scope `other`.",
    *_WHOSE,
)
BUDGET_SETTLED = reading(
    "tollhouse_budget_settled_dollars",
    "Settled in the current window of a limit on money; scopes as of tollhouse_budget_amount_dollars.",
    *_WHOSE,
)
BUDGET_HELD = reading(
    "tollhouse_budget_held_dollars",
    "Held by calls in flight in the current window of a limit on money; scopes as of tollhouse_budget_amount_dollars.",
    *_WHOSE,
)
BUDGET_USED = reading(
    "tollhouse_budget_used_ratio",
    "Settled and held by amount of a limit on money, for those used most; 1 is all of it.",
    *_WHOSE,
)
BUDGET_ELAPSED = reading(
    "tollhouse_budget_elapsed_ratio",
    "How much of the current window of a limit on money is over, for those used most that have an end; 1 is all of it.",
    *_WHOSE,
)
DEPARTMENT_COST = reading(
    "tollhouse_department_cost_dollars",
    "Cost of a department itself since its tenant's calendar month began: the dearest ones, all others as `other`.",
    "tenant",
    "department",
)
LIMIT_ALERTS = counter(
    "tollhouse_limit_alerts_total",
    "Alerts that limits raised, by kind (threshold, passed, above_hold) and the threshold in per cent by tens.",
    "kind",
    "threshold",
)
LABEL_VALUES_BEYOND = counter(
    "tollhouse_label_values_beyond_total",
    "Calls booked with a label's value `other`, because their tenant's month has as many values as it may.",
)
RECONCILIATION_VARIANCE = reading(
    "tollhouse_reconciliation_variance_dollars",
    "Differences, without their signs, between bill and ledger in the month reconciled last, by verdict: "
    "blocking, tolerated, accepted.",
    "verdict",
)
RECONCILIATION_AGE = reading(
    "tollhouse_reconciliation_age_seconds",
    "Time since a bill was last reconciled with the ledger; absent until the first time.",
)
PERIODS_CLOSED = counter(
    "tollhouse_periods_closed_total",
    "Months of tenants that are closed, as the database has them: a closed month is never open again.",
    source=Source.LEADER,
)

DECLARATIONS: tuple[Declaration, ...] = (
    BUDGET_AMOUNT,
    BUDGET_SETTLED,
    BUDGET_HELD,
    BUDGET_USED,
    BUDGET_ELAPSED,
    DEPARTMENT_COST,
    LIMIT_ALERTS,
    LABEL_VALUES_BEYOND,
    RECONCILIATION_VARIANCE,
    RECONCILIATION_AGE,
    PERIODS_CLOSED,
)
