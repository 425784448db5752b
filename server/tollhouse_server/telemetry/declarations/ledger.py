"""What is told of the ledger: its transactions, what is open, and whether it adds up."""

from tollhouse_server.telemetry.declarations.declaration import (
    BATCH_BUCKETS,
    TICK_BUCKETS,
    Declaration,
    counter,
    gauge,
    histogram,
    reading,
)

TICK_DURATION = histogram("tollhouse_tick_duration_seconds", "Time of one committed ledger transaction.", TICK_BUCKETS)
TICK_BATCH = histogram(
    "tollhouse_tick_batch_works", "Reservations and settlements booked by one ledger transaction.", BATCH_BUCKETS
)
TICK_FAILURES = counter(
    "tollhouse_tick_failures_total", "Ledger transactions that failed and are tried again, by cause.", "cause"
)
QUEUED_WORKS = gauge(
    "tollhouse_queued_works", "Reservations and settlements that wait for the next ledger transaction.", "livesum"
)
IN_FLIGHT_ATTEMPTS = gauge(
    "tollhouse_in_flight_attempts", "Attempts in the ledger that are dispatched and not settled.", "livemostrecent"
)
SUSPENSE_ATTEMPTS = gauge(
    "tollhouse_suspense_attempts",
    "Attempts whose outcome is unknown and that wait for reconciliation.",
    "livemostrecent",
)
LEDGER_FINDINGS = gauge(
    "tollhouse_ledger_findings",
    "Places in which the ledger did not add up when it was last verified at night; must be 0.",
    "livemostrecent",
)
LEDGER_VERIFIED = gauge(
    "tollhouse_ledger_verified_timestamp_seconds",
    "When the ledger was last verified at night to the end, since 1970; absent in a server that has not done it yet.",
    "livemostrecent",
)
TENANTS_BEHIND = gauge(
    "tollhouse_rollup_behind_tenants",
    "Tenants with a day that is over and not rolled up, after the last round; 0 is expected.",
    "livemostrecent",
)
ROLLUP_DIFFERENCES = gauge(
    "tollhouse_rollup_differences",
    "Values of rolled-up days that were not what the records say, at the last nightly comparison; 0 is expected.",
    "livemostrecent",
)

SUSPENSE_OLDEST = reading(
    "tollhouse_suspense_oldest_seconds", "Age of the oldest attempt that waits in suspense; 0 when none does."
)
PARTITIONS_AHEAD = reading(
    "tollhouse_ledger_partitions_ahead_seconds",
    "Time from now for which usage records have partitions of their own; weeks are expected.",
)

DECLARATIONS: tuple[Declaration, ...] = (
    TICK_DURATION,
    TICK_BATCH,
    TICK_FAILURES,
    QUEUED_WORKS,
    IN_FLIGHT_ATTEMPTS,
    SUSPENSE_ATTEMPTS,
    LEDGER_FINDINGS,
    LEDGER_VERIFIED,
    TENANTS_BEHIND,
    ROLLUP_DIFFERENCES,
    SUSPENSE_OLDEST,
    PARTITIONS_AHEAD,
)
