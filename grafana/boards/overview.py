"""Is it well, in one look: who is on call opens this board first."""

from typing import Final

from grafana.board import TIER, Board
from grafana.boards.ledger import FINDINGS
from grafana.panels import Question, number
from grafana.queries import increase, largest, median_and_tail, or_zero, quantile, rate, series, total

OURS: Final = "INTERNAL|UNAVAILABLE|UNKNOWN|DATA_LOSS"
"""Status codes that count against the availability that is promised; the others are the caller's or a limit's."""

_NOW = (
    number(
        "Are callers served?",
        "Share of RPCs that did not end in an error of ours. 99.95 % is promised.",
        "percentunit",
        f"1 - {or_zero(rate('tollhouse_calls_total', code=OURS))} / {rate('tollhouse_calls_total')}",
        runbook="Calls fail or are slow",
        warn=0.9995,
        bad=0.995,
    ),
    number(
        "How many calls come?",
        "RPCs finished a second, of all kinds.",
        "reqps",
        rate("tollhouse_calls_total"),
        runbook="Calls wait or are shed",
    ),
    number(
        "What do we add to a call?",
        "99th percentile of the time that a call spends in Tollhouse and not upstream; 0.1 s at the most is promised.",
        "s",
        quantile("tollhouse_added_latency_seconds", "0.99"),
        runbook="Calls fail or are slow",
        warn=0.05,
        bad=0.1,
    ),
    number(
        "What does an hour cost?",
        "Settled cost at the rate of now, at list price.",
        "currencyUSD",
        f"{rate('tollhouse_cost_dollars_total', tier='$tier')} * 3600",
        runbook="A budget will not last",
    ),
    number(
        "Is every part reachable?",
        "1 when every process reached PostgreSQL and Vault when it looked last, 0 when one did not.",
        "bool_yes_no",
        f"min({series('tollhouse_part_up')})",
        runbook="PostgreSQL cannot be reached",
        warn=1,
        bad=0.5,
    ),
    number(
        "Is a target cut off?",
        "Targets whose breaker is open in some process.",
        "short",
        or_zero(f"count(max by (account, region, model) ({series('tollhouse_breaker_state')}) == 2)"),
        runbook="Upstream refuses or breaks",
        warn=1,
        bad=3,
    ),
    number(
        "Are outcomes unknown?",
        "Attempts that may have been served and charged, and wait for reconciliation.",
        "short",
        largest("tollhouse_suspense_attempts"),
        runbook="Attempts in suspense",
        warn=1,
        bad=100,
    ),
    number(
        "Do the books add up?",
        "Places in which the ledger or its roll-ups did not add up when they were last compared. Must be 0.",
        "short",
        f"{FINDINGS} + {largest('tollhouse_rollup_differences')}",
        runbook="The ledger does not add up",
        bad=1,
    ),
    number(
        "Are budgets nearly used up?",
        "Money limits of which more than 90 % is settled or held.",
        "short",
        or_zero(f"count({largest('tollhouse_budget_used_ratio', 'tenant, scope, limit')} > 0.9)"),
        runbook="A budget will not last",
        warn=1,
        bad=10,
    ),
    number(
        "Do calls wait?",
        "Calls without a place at an upstream account yet.",
        "short",
        total(series("tollhouse_waiting_calls")),
        runbook="Calls wait or are shed",
        warn=10,
        bad=200,
    ),
    number(
        "Are changes heard?",
        "Time since the most stale process learned of changed keys, grants and limits; 2 s are promised.",
        "s",
        largest("tollhouse_epoch_staleness_seconds"),
        runbook="PostgreSQL cannot be reached",
        warn=2,
        bad=5,
    ),
    number(
        "Do processes die?",
        "Processes that were started again in the last hour.",
        "short",
        increase("tollhouse_process_restarts_total", "1h"),
        runbook="Processes die",
        warn=1,
        bad=3,
    ),
)

_CALLS = (
    Question(
        asks="How do calls end?",
        means="RPCs a second, by gRPC status code.",
        unit="reqps",
        queries={"{{code}}": rate("tollhouse_calls_total", "code")},
        runbook="Calls fail or are slow",
    ),
    Question(
        asks="How long do calls take?",
        means="From the arrival of an RPC to its last message, upstream included.",
        unit="s",
        queries=median_and_tail("tollhouse_call_duration_seconds", "rpc"),
        runbook="Calls fail or are slow",
    ),
    Question(
        asks="What are callers told?",
        means="Errors a second, by documented reason.",
        unit="reqps",
        queries={"{{reason}}": rate("tollhouse_refusals_total", "reason")},
        runbook="Callers are refused and say that it is too early",
    ),
    Question(
        asks="Which kinds of token are used?",
        means="Tokens a second; cached ones are part of prompt.",
        unit="short",
        queries={"{{kind}}": rate("tollhouse_tokens_total", "kind", tier="$tier")},
        runbook="A budget will not last",
    ),
    Question(
        asks="Which models are used?",
        means="Prompt and answer tokens a second.",
        unit="short",
        queries={"{{model}}": rate("tollhouse_tokens_total", "model", tier="$tier", kind_not="cached")},
        runbook="Upstream refuses or breaks",
    ),
    Question(
        asks="How much is under way?",
        means="RPCs that are being served now.",
        unit="short",
        queries={"{{rpc}}": total(series("tollhouse_in_flight_calls"), "rpc")},
        runbook="Calls wait or are shed",
    ),
)

BOARD: Final = Board(
    uid="overview",
    title="overview",
    means="Is it well? Green is; each figure links to the line of the runbook that helps when it is not.",
    rows=(("Is it well?", _NOW), ("Calls", _CALLS)),
    variables=(TIER,),
    since="now-1h",
)
