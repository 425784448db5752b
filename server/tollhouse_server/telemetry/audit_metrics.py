"""What is reported of the audit trail."""

from prometheus_client import CollectorRegistry

from tollhouse_server.telemetry.declarations import audit as declared
from tollhouse_server.telemetry.families import counter, gauge


class AuditMetrics:
    """What is reported of the audit trail; part of `Metrics`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._audit_failures = counter(declared.AUDIT_FAILURES, registry)
        self._audit_refusals = counter(declared.AUDIT_REFUSALS, registry)
        self._audit_unsigned = gauge(declared.AUDIT_UNSIGNED, registry)
        self._audit_anchored = gauge(declared.AUDIT_ANCHORED, registry)

    def audit_unsigned(self, *, oldest_seconds: float) -> None:
        """Set how old the oldest event is that no checkpoint vouches for; only the housekeeper reports it."""
        self._audit_unsigned.set(oldest_seconds)

    def audit_anchored(self, *, at_seconds: float) -> None:
        """Set when all checkpoints were in the anchor (since 1970); only the housekeeper reports it."""
        self._audit_anchored.set(at_seconds)

    def audit_failed(self, *, cause: str) -> None:
        """Note a round of checkpoints, anchor or retention that failed, or a broken trail."""
        self._audit_failures[(cause,)].inc()

    def audit_refusals(self, *, count: int, details: str) -> None:
        """Note refusals on their way to the trail, with details `kept` or `dropped`."""
        self._audit_refusals[(details,)].inc(count)
