"""Cost and budgets: for finance and for heads of department. The exact figures are in statements, not here."""

from typing import Final

from grafana.board import TENANT, TIER, Board
from grafana.panels import Look, Question, number
from grafana.queries import increase, largest, or_zero, rate, series, total

_BUDGETS: Final = "A budget will not last"
_BILL: Final = "The month does not agree with the bill"
_PICKED: Final = {"tenant": "$tenant"}
_WHOSE: Final = "tenant, scope, limit"
_LIMIT: Final = "{{tenant}} {{scope}} {{limit}}"
_CLOSED: Final = series("tollhouse_periods_closed_total")
_DEPARTMENTS: Final = largest("tollhouse_department_cost_dollars", "tenant, department", **_PICKED)

_NOW = (
    number(
        "What has the month cost?",
        "Settled cost of the running month at list price; departments beyond the largest are added up in one.",
        "currencyUSD",
        total(_DEPARTMENTS),
        runbook=_BUDGETS,
    ),
    number(
        "What does an hour cost?",
        "At the rate of now.",
        "currencyUSD",
        f"{rate('tollhouse_cost_dollars_total', tier='$tier')} * 3600",
        runbook=_BUDGETS,
    ),
    number(
        "How full is the fullest budget?",
        "Settled and held, as a share of its amount.",
        "percentunit",
        largest("tollhouse_budget_used_ratio", **_PICKED),
        runbook=_BUDGETS,
        warn=0.8,
        bad=0.95,
    ),
    number(
        "How much is reserved?",
        "Held for calls that are under way, on all money limits.",
        "currencyUSD",
        total(largest("tollhouse_budget_held_dollars", _WHOSE, **_PICKED)),
        runbook=_BUDGETS,
    ),
    number(
        "What do caches save?",
        "Share of prompt tokens that Gemini read from a cache, at a lower price.",
        "percentunit",
        f"{rate('tollhouse_tokens_total', tier='$tier', kind='cached')}"
        f" / {rate('tollhouse_tokens_total', tier='$tier', kind='prompt')}",
        runbook=_BUDGETS,
    ),
    number(
        "Which calls cost too much?",
        "Calls that cost more than was held for them, in a day. Must be 0.",
        "short",
        or_zero(increase("tollhouse_settled_above_hold_total", "1d")),
        runbook="A call cost more than was held for it",
        bad=1,
    ),
)

_WHO = (
    Question(
        asks="Who spends?",
        means="Settled cost of the running month by department, the largest 20.",
        unit="currencyUSD",
        queries={
            "{{tenant}} {{department}}": f"topk(20, {_DEPARTMENTS})",
        },
        runbook=_BUDGETS,
        look=Look.BARS,
        width=12,
    ),
    Question(
        asks="Which budgets are nearest to their end?",
        means="Settled and held as a share of the amount, the fullest 20.",
        unit="percentunit",
        queries={_LIMIT: f"topk(20, {largest('tollhouse_budget_used_ratio', _WHOSE, **_PICKED)})"},
        runbook=_BUDGETS,
        look=Look.BARS,
        warn=0.8,
        bad=0.95,
        width=12,
    ),
    Question(
        asks="Which budgets run ahead of their time?",
        means="Used share less the share of the window that is over: above 0 the budget ends too soon.",
        unit="percentunit",
        queries={
            _LIMIT: (
                f"topk(10, {largest('tollhouse_budget_used_ratio', _WHOSE, **_PICKED)}"
                f" - {largest('tollhouse_budget_elapsed_ratio', _WHOSE, **_PICKED)})"
            )
        },
        runbook=_BUDGETS,
        warn=0.0,
        bad=0.25,
        width=12,
    ),
    Question(
        asks="How much is left?",
        means="Dollars that are neither settled nor held: the ten budgets that have least left.",
        unit="currencyUSD",
        queries={
            _LIMIT: (
                f"bottomk(10, {largest('tollhouse_budget_amount_dollars', _WHOSE, **_PICKED)}"
                f" - {largest('tollhouse_budget_settled_dollars', _WHOSE, **_PICKED)}"
                f" - {largest('tollhouse_budget_held_dollars', _WHOSE, **_PICKED)})"
            )
        },
        runbook=_BUDGETS,
        width=12,
    ),
)

_WHAT = (
    Question(
        asks="Which tiers cost?",
        means="Settled cost in dollars an hour.",
        unit="currencyUSD",
        queries={"{{tier}}": f"{rate('tollhouse_cost_dollars_total', 'tier', tier='$tier')} * 3600"},
        runbook=_BUDGETS,
    ),
    Question(
        asks="Which models cost?",
        means="Settled cost in dollars an hour.",
        unit="currencyUSD",
        queries={"{{model}}": f"{rate('tollhouse_cost_dollars_total', 'model', tier='$tier')} * 3600"},
        runbook=_BUDGETS,
    ),
    Question(
        asks="What is bought besides tokens?",
        means="Images made and searches for grounding, an hour.",
        unit="short",
        queries={
            "images {{model}}": increase("tollhouse_images_total", "1h", "model", tier="$tier"),
            "searches {{model}}": increase("tollhouse_grounding_queries_total", "1h", "model", tier="$tier"),
        },
        runbook=_BUDGETS,
    ),
    Question(
        asks="Whom do limits refuse?",
        means="Calls an hour that a limit had no room for, by reason.",
        unit="short",
        queries={
            "{{reason}}": increase("tollhouse_refusals_total", "1h", "reason", reason="LIMIT_EXCEEDED|BUDGET_CUT_OFF")
        },
        runbook="Callers are refused and say that it is too early",
    ),
    Question(
        asks="Which thresholds were passed?",
        means="Alerts that limits raised in a day, by what they told.",
        unit="short",
        queries={"{{kind}} {{threshold}} %": increase("tollhouse_limit_alerts_total", "1d", "kind, threshold")},
        runbook=_BUDGETS,
    ),
    Question(
        asks="Are labels too many?",
        means="Calls an hour booked under `other`: their tenant's month has as many values of labels as it may.",
        unit="short",
        queries={"calls": increase("tollhouse_label_values_beyond_total", "1h")},
        runbook=_BUDGETS,
    ),
    Question(
        asks="Does Google's bill say the same?",
        means="What the last comparison with the bill found, by verdict; the unexplained keeps a month open.",
        unit="currencyUSD",
        queries={"{{verdict}}": largest("tollhouse_reconciliation_variance_dollars", "verdict")},
        runbook=_BILL,
    ),
    Question(
        asks="Are months compared and closed?",
        means="Days since the last comparison with a bill; and periods closed in the last 30 days.",
        unit="short",
        queries={
            "days since a comparison": f"{largest('tollhouse_reconciliation_age_seconds')} / 86400",
            # Not `increase`: servers tell it in turns, and a closed month stays closed.
            "closed": total(f"max by (environment) ({_CLOSED}) - min by (environment) (min_over_time({_CLOSED}[30d]))"),
        },
        runbook=_BILL,
    ),
)

BOARD: Final = Board(
    uid="costs",
    title="cost and budgets",
    means="Who spends how much, and which budgets will not last. Exact figures: tollhouse report show.",
    rows=(("Now", _NOW), ("Who", _WHO), ("What", _WHAT)),
    variables=(TENANT, TIER),
    since="now-7d",
)
