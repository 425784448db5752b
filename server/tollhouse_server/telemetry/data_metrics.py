"""What data policies report."""

from prometheus_client import CollectorRegistry

from tollhouse_server.telemetry.declarations import content as declared
from tollhouse_server.telemetry.families import counter, lone_counter


class DataMetrics:
    """What data policies report; part of `Metrics`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._data_found = counter(declared.DATA_FOUND, registry)
        self._data_findings_lost = lone_counter(declared.DATA_FINDINGS_LOST, registry)

    def data_found(self, *, detector: str, direction: str, action: str, count: int) -> None:
        """Count values that a data policy found in a call; `detector` is a built-in one, or CUSTOM."""
        self._data_found[detector, direction, action].inc(count)

    def data_finding_lost(self) -> None:
        """Count a finding that is written down nowhere."""
        self._data_findings_lost.inc()
