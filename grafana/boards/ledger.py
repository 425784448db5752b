"""Ledger and limits: does every call get booked, how fast, and do the books add up."""

from typing import Final

from grafana.board import Board
from grafana.panels import Question, number
from grafana.queries import increase, largest, median_and_tail, newest, quantile, rate, series, total

_SLOW: Final = "Ledger transactions fail or are slow"
_SUSPENSE: Final = "Attempts in suspense"
FINDINGS: Final = newest("tollhouse_ledger_findings", "tollhouse_ledger_verified_timestamp_seconds")
"""What the newest verification found, whichever server's housekeeper led it."""

_NOW = (
    number(
        "Do the books add up?",
        "Places in which the ledger did not add up when it was last verified at night. Must be 0.",
        "short",
        FINDINGS,
        runbook="The ledger does not add up",
        bad=1,
    ),
    number(
        "When were they verified?",
        "Time since the ledger was last verified to the end; a day, when all is well.",
        "s",
        f"time() - {largest('tollhouse_ledger_verified_timestamp_seconds')}",
        runbook="The ledger does not add up",
        warn=100_000,
        bad=200_000,
    ),
    number(
        "How long does booking take?",
        "99th percentile of one committed ledger transaction.",
        "s",
        quantile("tollhouse_tick_duration_seconds", "0.99"),
        runbook=_SLOW,
        warn=0.1,
        bad=0.25,
    ),
    number(
        "Are outcomes unknown?",
        "Attempts that may have been served and charged, and wait for reconciliation.",
        "short",
        largest("tollhouse_suspense_attempts"),
        runbook=_SUSPENSE,
        warn=1,
        bad=100,
    ),
    number(
        "For how long?",
        "Age of the oldest attempt in suspense.",
        "s",
        largest("tollhouse_suspense_oldest_seconds"),
        runbook=_SUSPENSE,
        warn=3600,
        bad=86_400,
    ),
    number(
        "Is next month's room made?",
        "Days for which partitions of usage records exist already.",
        "d",
        f"min({series('tollhouse_ledger_partitions_ahead_seconds')}) / 86400",
        runbook="Partitions run out",
        warn=21,
        bad=7,
    ),
)

_BOOKING = (
    Question(
        asks="How long does booking take?",
        means="One committed ledger transaction.",
        unit="s",
        queries=median_and_tail("tollhouse_tick_duration_seconds"),
        runbook=_SLOW,
    ),
    Question(
        asks="How many calls share a commit?",
        means="Reservations and settlements in one transaction; and those that wait for the next.",
        unit="short",
        queries={
            **median_and_tail("tollhouse_tick_batch_works"),
            "queued": total(series("tollhouse_queued_works")),
        },
        runbook=_SLOW,
    ),
    Question(
        asks="Do transactions fail?",
        means="A second, by cause; they are tried again. A plan that did not hold is none: a spent budget has some.",
        unit="reqps",
        queries={"{{cause}}": rate("tollhouse_tick_failures_total", "cause", cause_not="PlanFailedError")},
        runbook=_SLOW,
        bad=0.1,
    ),
    Question(
        asks="How many attempts are open?",
        means="Dispatched and not settled, and of unknown outcome.",
        unit="short",
        queries={
            "in flight": largest("tollhouse_in_flight_attempts"),
            "suspense": largest("tollhouse_suspense_attempts"),
        },
        runbook=_SUSPENSE,
    ),
    Question(
        asks="Was too little held?",
        means="Calls that cost more than was held for them, an hour. Must be 0.",
        unit="short",
        queries={"{{model}}": increase("tollhouse_settled_above_hold_total", "1h", "model")},
        runbook="A call cost more than was held for it",
        bad=1,
    ),
    Question(
        asks="Are days rolled up?",
        means="Tenants with a day that is over and not rolled up; values that differ from the records. Must be 0.",
        unit="short",
        queries={
            "behind": largest("tollhouse_rollup_behind_tenants"),
            "different": largest("tollhouse_rollup_differences"),
        },
        runbook="The ledger does not add up",
        bad=1,
    ),
)

_LIMITS = (
    Question(
        asks="Which limits are nearly full?",
        means="Money limits by how much of them is settled or held.",
        unit="percentunit",
        queries={
            "{{tenant}} {{scope}} {{limit}}": (
                f"topk(10, {largest('tollhouse_budget_used_ratio', 'tenant, scope, limit')})"
            )
        },
        runbook="A budget will not last",
        warn=0.8,
        bad=0.95,
        width=12,
    ),
    Question(
        asks="Whom do limits refuse?",
        means="Refusals a second by a limit, and answers that were cut off for want of room.",
        unit="reqps",
        queries={"{{reason}}": rate("tollhouse_refusals_total", "reason", reason="LIMIT_EXCEEDED|BUDGET_CUT_OFF")},
        runbook="Callers are refused and say that it is too early",
        width=12,
    ),
)

BOARD: Final = Board(
    uid="ledger",
    title="ledger and limits",
    means="Every upstream call is booked exactly once, and limits hold. tollhouse ledger verify proves it.",
    rows=(("Now", _NOW), ("Booking", _BOOKING), ("Limits", _LIMITS)),
)
