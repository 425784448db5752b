"""Every metric, declared once; `metrics.py` builds them, `docs/metrics.md` and the dashboards are checked against this.

Names follow Prometheus: base units, the unit last, counters in `_total`. Labels are bounded: tiers, models, target
kinds and reasons are catalogue data or enums. Tenants, departments, callers and keys are never labels: ask the ledger.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class Kind(StrEnum):
    """The three metric types used."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


Aggregation = Literal["livesum", "livemax", "livemin", "livemostrecent"]
"""How the gauges of the living processes become one; those of dead processes do not count."""

# From a local refusal (1 ms) to a long thinking answer (minutes).
CALL_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
TICK_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
BATCH_BUCKETS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """One metric as it appears in the exposition, `_total` included."""

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    aggregation: Aggregation | None = None


def _counter(name: str, meaning: str, *labels: str) -> Declaration:
    return Declaration(name=name, kind=Kind.COUNTER, meaning=meaning, labels=labels)


def _gauge(name: str, meaning: str, aggregation: Aggregation, *labels: str) -> Declaration:
    return Declaration(name=name, kind=Kind.GAUGE, meaning=meaning, labels=labels, aggregation=aggregation)


def _histogram(name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Declaration:
    return Declaration(name=name, kind=Kind.HISTOGRAM, meaning=meaning, labels=labels, buckets=buckets)


CALLS = _counter("tollhouse_calls_total", "RPCs finished, by RPC and gRPC status code.", "rpc", "code")
CALL_DURATION = _histogram(
    "tollhouse_call_duration_seconds",
    "Time from the arrival of an RPC to its last message.",
    CALL_BUCKETS,
    "rpc",
)
IN_FLIGHT_CALLS = _gauge("tollhouse_in_flight_calls", "RPCs being served now.", "livesum", "rpc")
REFUSALS = _counter(
    "tollhouse_refusals_total", "RPCs that ended in an error of Tollhouse, by documented reason.", "reason"
)
CREDENTIALS_REFUSED = _counter(
    "tollhouse_credentials_refused_total", "Calls refused for their credential, by what was wrong with it.", "fault"
)
CERTIFICATE_EXPIRY = _gauge(
    "tollhouse_tls_certificate_expiry_seconds",
    "Time until the certificate that new connections are shown expires; negative when it has.",
    "livemin",
)
CERTIFICATE_RELOADS = _counter(
    "tollhouse_tls_certificate_reloads_total",
    "Times that a new certificate was put in force, and that one was refused and the old one kept, by outcome.",
    "outcome",
)
TOKENS = _counter(
    "tollhouse_tokens_total",
    "Tokens that Gemini reported, by kind; `cached` ones are part of `prompt`.",
    "tier",
    "model",
    "kind",
)
IMAGES = _counter("tollhouse_images_total", "Images made, as reported by Gemini.", "tier", "model")
GROUNDING_QUERIES = _counter(
    "tollhouse_grounding_queries_total", "Searches that Gemini made to ground an answer.", "tier", "model"
)
COST = _counter(
    "tollhouse_cost_dollars_total",
    "Cost of settled calls in US dollars, rounded to a float; the exact integers are in the ledger.",
    "tier",
    "model",
)
USAGE_MISSING = _counter(
    "tollhouse_usage_missing_total", "Answers without a usage report; they are in suspense.", "tier", "model"
)
CONTENTS = _counter(
    "tollhouse_contents_total",
    "Calls whose content was to be kept: `kept`, `dropped` (served and not kept) or `refused` (as their tenant wants).",
    "outcome",
)
CONTENTS_WAITING = _gauge("tollhouse_content_waiting_calls", "Calls whose content waits to be written.", "livesum")
DATA_FOUND = _counter(
    "tollhouse_data_found_total",
    "Values that data policies found in calls, by detector (CUSTOM: tenants' own patterns), direction and action.",
    "detector",
    "direction",
    "action",
)
DATA_FINDINGS_LOST = _counter(
    "tollhouse_data_findings_lost_total",
    "Findings of data policies that were counted but not written down, because too many waited; 0 is expected.",
)
LABEL_VALUES_BEYOND = _counter(
    "tollhouse_label_values_beyond_total",
    "Calls booked with a label's value `other`, because their tenant's month has as many values as it may.",
)
SETTLED_ABOVE_HOLD = _counter(
    "tollhouse_settled_above_hold_total", "Calls that cost more than was held for them; none is expected.", "model"
)
UPSTREAM_ATTEMPTS = _counter(
    "tollhouse_upstream_attempts_total",
    "Attempts at an upstream target, by how they were booked.",
    "target",
    "model",
    "outcome",
)
UPSTREAM_DURATION = _histogram(
    "tollhouse_upstream_attempt_duration_seconds",
    "Time of one upstream attempt, its booking included.",
    CALL_BUCKETS,
    "target",
    "model",
)
UPSTREAM_FIRST_CHUNK = _histogram(
    "tollhouse_upstream_first_chunk_seconds",
    "Time from sending a streamed call upstream to its first chunk.",
    CALL_BUCKETS,
    "target",
    "model",
)
TICK_DURATION = _histogram("tollhouse_tick_duration_seconds", "Time of one committed ledger transaction.", TICK_BUCKETS)
TICK_BATCH = _histogram(
    "tollhouse_tick_batch_works", "Reservations and settlements booked by one ledger transaction.", BATCH_BUCKETS
)
TICK_FAILURES = _counter(
    "tollhouse_tick_failures_total", "Ledger transactions that failed and are tried again, by cause.", "cause"
)
QUEUED_WORKS = _gauge(
    "tollhouse_queued_works", "Reservations and settlements that wait for the next ledger transaction.", "livesum"
)
IN_FLIGHT_ATTEMPTS = _gauge(
    "tollhouse_in_flight_attempts", "Attempts in the ledger that are dispatched and not settled.", "livemostrecent"
)
SUSPENSE_ATTEMPTS = _gauge(
    "tollhouse_suspense_attempts",
    "Attempts whose outcome is unknown and that wait for reconciliation.",
    "livemostrecent",
)
TENANTS_BEHIND = _gauge(
    "tollhouse_rollup_behind_tenants",
    "Tenants with a day that is over and not rolled up, after the last round; 0 is expected.",
    "livemostrecent",
)
ROLLUP_DIFFERENCES = _gauge(
    "tollhouse_rollup_differences",
    "Values of rolled-up days that were not what the records say, at the last nightly comparison; 0 is expected.",
    "livemostrecent",
)
LEDGER_FINDINGS = _gauge(
    "tollhouse_ledger_findings",
    "Places in which the ledger did not add up when it was last verified at night; must be 0.",
    "livemostrecent",
)
LEDGER_VERIFIED = _gauge(
    "tollhouse_ledger_verified_timestamp_seconds",
    "When the ledger was last verified at night to the end, since 1970; 0 in a server that has not done it yet.",
    "livemostrecent",
)
UPSTREAM_KEYS = _gauge("tollhouse_upstream_keys", "Upstream keys by state.", "livemax", "state")
UPSTREAM_KEY_AGE = _gauge(
    "tollhouse_upstream_key_age_seconds", "Age of the oldest upstream key, by state.", "livemax", "state"
)
BREAKER_STATE = _gauge(
    "tollhouse_breaker_state",
    "What the breaker of a target does with calls, the worst over processes: 0 closed, 1 half-open, 2 open.",
    "livemax",
    "account",
    "region",
    "model",
)
BREAKER_FORCED = _gauge(
    "tollhouse_breaker_forced",
    "1 while an operator's order holds the breaker of a target open or closed, else 0.",
    "livemax",
    "account",
    "region",
    "model",
)
BREAKER_CHANGES = _counter(
    "tollhouse_breaker_changes_total",
    "Changes of a target's breaker in one of the processes, by the state it came to.",
    "account",
    "region",
    "model",
    "state",
)
RETRIES_REFUSED = _counter(
    "tollhouse_retries_refused_total",
    "Further attempts that were not made, because they would have been more than a tenth of the calls.",
)
KEY_REFUSALS = _counter(
    "tollhouse_upstream_key_refusals_total",
    "Upstream keys that a process took out of use because the upstream refused them (401, 403, API_KEY_INVALID).",
    "account",
)
KEY_ROTATIONS = _gauge(
    "tollhouse_upstream_key_rotations",
    "Rotations and revocations of upstream keys under way, by the step that they are at.",
    "livemostrecent",
    "step",
)
KEY_ROTATION_AGE = _gauge(
    "tollhouse_upstream_key_rotation_age_seconds",
    "Time since the oldest rotation at a step came to it; at STAGE with provider MANUAL a person has to bring a key.",
    "livemostrecent",
    "step",
)
KEY_ROTATIONS_FAILING = _gauge(
    "tollhouse_upstream_key_rotations_failing",
    "Rotations and revocations under way whose last try of a step failed; 0 is expected.",
    "livemostrecent",
)
KEYS_OVERDUE = _gauge(
    "tollhouse_upstream_keys_overdue",
    "Active upstream keys that are older than their account's policy allows.",
    "livemostrecent",
)
UNUSUAL_KEY_USE = _counter(
    "tollhouse_unusual_key_use_total",
    "Hours in which an upstream key was used far more than in its past, by what was counted.",
    "account",
    "metric",
)
WAITING_CALLS = _gauge(
    "tollhouse_waiting_calls", "Calls that wait for a place at an upstream target.", "livesum", "priority"
)
CALL_WAIT = _histogram(
    "tollhouse_call_wait_seconds",
    "Time that calls which had to wait for a place upstream have waited until they got it.",
    CALL_BUCKETS,
    "priority",
)
SHED_CALLS = _counter(
    "tollhouse_shed_calls_total", "Calls that were refused because too many waited for a place upstream.", "priority"
)
PLACED_CALLS = _gauge("tollhouse_placed_calls", "Calls that have a place upstream now.", "livesum")
ACCOUNT_USED = _gauge(
    "tollhouse_account_used_amount",
    "What is used of an upstream account's limit in its running window, in the limit's own unit.",
    "livesum",
    "account",
    "model",
    "metric",
)
ACCOUNT_LIMIT = _gauge(
    "tollhouse_account_limit_amount",
    "An upstream account's limit as configured or learned, the lowest that a process knows.",
    "livemin",
    "account",
    "model",
    "metric",
)
ACCOUNT_COOLING = _gauge(
    "tollhouse_account_cooling_seconds",
    "For how long an upstream account still gets no calls for a model after a 429.",
    "livemax",
    "account",
    "model",
)
AUDIT_UNSIGNED = _gauge(
    "tollhouse_audit_unsigned_seconds",
    "Age of the oldest audit event that no checkpoint vouches for yet; a few minutes at the most are expected.",
    "livemostrecent",
)
AUDIT_ANCHORED = _gauge(
    "tollhouse_audit_anchored_timestamp_seconds",
    "When all checkpoints of audit were last seen in the anchor outside the database, since 1970; 0 before that.",
    "livemostrecent",
)
AUDIT_FAILURES = _counter(
    "tollhouse_audit_failures_total",
    "Rounds of audit that failed, by cause: vault, store, anchor, and broken for a trail that is not what it was.",
    "cause",
)
AUDIT_REFUSALS = _counter(
    "tollhouse_audit_refusals_total",
    "Refused credentials and denied permissions noted for the audit trail, by whether their details are kept.",
    "details",
)
# A label, so that a process which never looks into a part says nothing of it; without one it would say 0.
PART_UP = _gauge(
    "tollhouse_part_up",
    "1 when the last look into the part (vault, database) succeeded in every process that looks, else 0.",
    "livemin",
    "part",
)
EPOCH_STALENESS = _gauge(
    "tollhouse_epoch_staleness_seconds",
    "Time since the most stale process learned of changed keys and policies.",
    "livemax",
)
PROCESSES = _gauge("tollhouse_processes", "Living processes by role.", "livesum", "role")

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
    DATA_FOUND,
    DATA_FINDINGS_LOST,
    LABEL_VALUES_BEYOND,
    CONTENTS,
    CONTENTS_WAITING,
    SETTLED_ABOVE_HOLD,
    UPSTREAM_ATTEMPTS,
    UPSTREAM_DURATION,
    UPSTREAM_FIRST_CHUNK,
    TICK_DURATION,
    TICK_BATCH,
    TICK_FAILURES,
    QUEUED_WORKS,
    IN_FLIGHT_ATTEMPTS,
    SUSPENSE_ATTEMPTS,
    LEDGER_FINDINGS,
    LEDGER_VERIFIED,
    AUDIT_UNSIGNED,
    AUDIT_ANCHORED,
    AUDIT_FAILURES,
    AUDIT_REFUSALS,
    TENANTS_BEHIND,
    ROLLUP_DIFFERENCES,
    UPSTREAM_KEYS,
    UPSTREAM_KEY_AGE,
    BREAKER_STATE,
    BREAKER_FORCED,
    BREAKER_CHANGES,
    RETRIES_REFUSED,
    KEY_REFUSALS,
    KEY_ROTATIONS,
    KEY_ROTATION_AGE,
    KEY_ROTATIONS_FAILING,
    KEYS_OVERDUE,
    UNUSUAL_KEY_USE,
    WAITING_CALLS,
    CALL_WAIT,
    SHED_CALLS,
    PLACED_CALLS,
    ACCOUNT_USED,
    ACCOUNT_LIMIT,
    ACCOUNT_COOLING,
    PART_UP,
    EPOCH_STALENESS,
    PROCESSES,
)


def series_names(declaration: Declaration) -> tuple[str, ...]:
    """Return the names under which Prometheus stores one metric."""
    if declaration.kind is Kind.HISTOGRAM:
        return tuple(f"{declaration.name}_{part}" for part in ("bucket", "count", "sum"))
    return (declaration.name,)
