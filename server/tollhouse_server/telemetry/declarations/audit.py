"""What is told of the audit trail."""

from tollhouse_server.telemetry.declarations.declaration import Declaration, counter, gauge

AUDIT_UNSIGNED = gauge(
    "tollhouse_audit_unsigned_seconds",
    "Age of the oldest audit event that no checkpoint vouches for yet; a few minutes at the most are expected.",
    "livemostrecent",
)
AUDIT_ANCHORED = gauge(
    "tollhouse_audit_anchored_timestamp_seconds",
    "When all checkpoints of audit were last seen in the anchor outside the database, since 1970; absent before that.",
    "livemostrecent",
)
AUDIT_FAILURES = counter(
    "tollhouse_audit_failures_total",
    "Rounds of audit that failed, by cause: vault, store, anchor, and broken for a trail that is not what it was.",
    "cause",
)
AUDIT_REFUSALS = counter(
    "tollhouse_audit_refusals_total",
    "Refused credentials and denied permissions noted for the audit trail, by whether their details are kept.",
    "details",
)

DECLARATIONS: tuple[Declaration, ...] = (
    AUDIT_UNSIGNED,
    AUDIT_ANCHORED,
    AUDIT_FAILURES,
    AUDIT_REFUSALS,
)
