"""What is told of calls: those that came in, what they used, and how they were refused."""

from tollhouse_server.telemetry.declarations.declaration import (
    ADDED_BUCKETS,
    CALL_BUCKETS,
    Declaration,
    counter,
    gauge,
    histogram,
)

CALLS = counter("tollhouse_calls_total", "RPCs finished, by RPC and gRPC status code.", "rpc", "code")
CALL_DURATION = histogram(
    "tollhouse_call_duration_seconds",
    "Time from the arrival of an RPC to its last message.",
    CALL_BUCKETS,
    "rpc",
)
IN_FLIGHT_CALLS = gauge("tollhouse_in_flight_calls", "RPCs being served now.", "livesum", "rpc")
REFUSALS = counter(
    "tollhouse_refusals_total", "RPCs that ended in an error of Tollhouse, by documented reason.", "reason"
)
CREDENTIALS_REFUSED = counter(
    "tollhouse_credentials_refused_total", "Calls refused for their credential, by what was wrong with it.", "fault"
)
CERTIFICATE_EXPIRY = gauge(
    "tollhouse_tls_certificate_expiry_seconds",
    "Time until the certificate that new connections are shown expires; negative when it has.",
    "livemin",
)
CERTIFICATE_RELOADS = counter(
    "tollhouse_tls_certificate_reloads_total",
    "Times that a new certificate was put in force, and that one was refused and the old one kept, by outcome.",
    "outcome",
)
TOKENS = counter(
    "tollhouse_tokens_total",
    "Tokens that Gemini reported, by kind; `cached` ones are part of `prompt`.",
    "tier",
    "model",
    "kind",
)
IMAGES = counter("tollhouse_images_total", "Images made, as reported by Gemini.", "tier", "model")
GROUNDING_QUERIES = counter(
    "tollhouse_grounding_queries_total", "Searches that Gemini made to ground an answer.", "tier", "model"
)
COST = counter(
    "tollhouse_cost_dollars_total",
    "Cost of settled calls in US dollars, rounded to a float; the exact integers are in the ledger.",
    "tier",
    "model",
)
USAGE_MISSING = counter(
    "tollhouse_usage_missing_total", "Answers without a usage report; they are in suspense.", "tier", "model"
)
SETTLED_ABOVE_HOLD = counter(
    "tollhouse_settled_above_hold_total", "Calls that cost more than was held for them; none is expected.", "model"
)

ADDED_LATENCY = histogram(
    "tollhouse_added_latency_seconds",
    "Time that Tollhouse added to a call that reached upstream: the RPC's time without the time spent upstream.",
    ADDED_BUCKETS,
)

DECLARATIONS: tuple[Declaration, ...] = (
    CALLS,
    CALL_DURATION,
    IN_FLIGHT_CALLS,
    REFUSALS,
    CREDENTIALS_REFUSED,
    CERTIFICATE_EXPIRY,
    CERTIFICATE_RELOADS,
    TOKENS,
    IMAGES,
    GROUNDING_QUERIES,
    COST,
    USAGE_MISSING,
    SETTLED_ABOVE_HOLD,
    ADDED_LATENCY,
)
