"""What is reported of the ledger."""

from prometheus_client import CollectorRegistry

from tollhouse_server.telemetry.declarations import ledger as declared
from tollhouse_server.telemetry.families import counter, gauge, histogram


class LedgerMetrics:
    """What is reported of the ledger; part of `Metrics`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._tick_duration = histogram(declared.TICK_DURATION, registry)
        self._tick_batch = histogram(declared.TICK_BATCH, registry)
        self._tick_failures = counter(declared.TICK_FAILURES, registry)
        self._queued_works = gauge(declared.QUEUED_WORKS, registry)
        self._in_flight_attempts = gauge(declared.IN_FLIGHT_ATTEMPTS, registry)
        self._suspense_attempts = gauge(declared.SUSPENSE_ATTEMPTS, registry)
        self._tenants_behind = gauge(declared.TENANTS_BEHIND, registry)
        self._rollup_differences = gauge(declared.ROLLUP_DIFFERENCES, registry)
        self._ledger_findings = gauge(declared.LEDGER_FINDINGS, registry)
        self._ledger_verified = gauge(declared.LEDGER_VERIFIED, registry)

    def tick_finished(self, *, seconds: float, works: int) -> None:
        """Note one committed ledger transaction."""
        self._tick_duration.observe(seconds)
        self._tick_batch.observe(works)

    def tick_failed(self, *, cause: str) -> None:
        """Note one failed ledger transaction; a `cause` that is a sentence is counted under `other`."""
        self._tick_failures[(cause,)].inc()

    def queued_works(self, count: int) -> None:
        """Set how many works wait for this process's next tick."""
        self._queued_works.set(count)

    def ledger_attempts(self, *, in_flight: int, suspense: int) -> None:
        """Set what the ledger holds open; only the housekeeper reports it."""
        self._in_flight_attempts.set(in_flight)
        self._suspense_attempts.set(suspense)

    def tenants_behind(self, count: int) -> None:
        """Set how many tenants have days that still have to be rolled up."""
        self._tenants_behind.set(count)

    def rollup_differences(self, count: int) -> None:
        """Set in how many values rolled-up days differ from the records."""
        self._rollup_differences.set(count)

    def ledger_verified(self, *, findings: int, at_seconds: float) -> None:
        """Set what the last nightly verification found, and when (since 1970); only the housekeeper reports it."""
        self._ledger_findings.set(findings)
        self._ledger_verified.set(at_seconds)
