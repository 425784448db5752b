"""What is told of upstream targets: attempts, breakers, places and the limits of accounts."""

from tollhouse_server.telemetry.declarations.declaration import CALL_BUCKETS, Declaration, counter, gauge, histogram

UPSTREAM_ATTEMPTS = counter(
    "tollhouse_upstream_attempts_total",
    "Attempts at an upstream target, by how they were booked.",
    "target",
    "model",
    "outcome",
)
UPSTREAM_DURATION = histogram(
    "tollhouse_upstream_attempt_duration_seconds",
    "Time of one upstream attempt, its booking included.",
    CALL_BUCKETS,
    "target",
    "model",
)
UPSTREAM_FIRST_CHUNK = histogram(
    "tollhouse_upstream_first_chunk_seconds",
    "Time from sending a streamed call upstream to its first chunk.",
    CALL_BUCKETS,
    "target",
    "model",
)
BREAKER_STATE = gauge(
    "tollhouse_breaker_state",
    "What the breaker of a target does with calls, the worst over processes: 0 closed, 1 half-open, 2 open.",
    "livemax",
    "account",
    "region",
    "model",
)
BREAKER_FORCED = gauge(
    "tollhouse_breaker_forced",
    "1 while an operator's order holds the breaker of a target open or closed, else 0.",
    "livemax",
    "account",
    "region",
    "model",
)
BREAKER_CHANGES = counter(
    "tollhouse_breaker_changes_total",
    "Changes of a target's breaker in one of the processes, by the state it came to.",
    "account",
    "region",
    "model",
    "state",
)
RETRIES_REFUSED = counter(
    "tollhouse_retries_refused_total",
    "Further attempts that were not made, because they would have been more than a tenth of the calls.",
)
WAITING_CALLS = gauge(
    "tollhouse_waiting_calls", "Calls that wait for a place at an upstream target.", "livesum", "priority"
)
CALL_WAIT = histogram(
    "tollhouse_call_wait_seconds",
    "Time that calls which had to wait for a place upstream have waited until they got it.",
    CALL_BUCKETS,
    "priority",
)
SHED_CALLS = counter(
    "tollhouse_shed_calls_total", "Calls that were refused because too many waited for a place upstream.", "priority"
)
PLACED_CALLS = gauge("tollhouse_placed_calls", "Calls that have a place upstream now.", "livesum")
ACCOUNT_USED = gauge(
    "tollhouse_account_used_amount",
    "What is used of an upstream account's limit in its running window, in the limit's own unit.",
    "livesum",
    "account",
    "model",
    "metric",
)
ACCOUNT_LIMIT = gauge(
    "tollhouse_account_limit_amount",
    "An upstream account's limit as configured or learned, the lowest that a process knows.",
    "livemin",
    "account",
    "model",
    "metric",
)
ACCOUNT_COOLING = gauge(
    "tollhouse_account_cooling_seconds",
    "For how long an upstream account still gets no calls for a model after a 429.",
    "livemax",
    "account",
    "model",
)

DECLARATIONS: tuple[Declaration, ...] = (
    UPSTREAM_ATTEMPTS,
    UPSTREAM_DURATION,
    UPSTREAM_FIRST_CHUNK,
    BREAKER_STATE,
    BREAKER_FORCED,
    BREAKER_CHANGES,
    RETRIES_REFUSED,
    WAITING_CALLS,
    CALL_WAIT,
    SHED_CALLS,
    PLACED_CALLS,
    ACCOUNT_USED,
    ACCOUNT_LIMIT,
    ACCOUNT_COOLING,
)
