"""What logs and traces report of themselves."""

from prometheus_client import CollectorRegistry

from tollhouse_server.telemetry.declarations import observing as declared
from tollhouse_server.telemetry.families import counter, lone_counter


class ObservingMetrics:
    """The metrics of logs and traces; part of `Metrics`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._sent = lone_counter(declared.SPANS_SENT, registry)
        self._dropped = counter(declared.SPANS_DROPPED, registry)
        self._lines_dropped = lone_counter(declared.LOG_LINES_DROPPED, registry)
        self._lines_told = 0

    def spans_sent(self, count: int) -> None:
        """Count spans that a collector has taken."""
        self._sent.inc(count)

    def spans_dropped(self, count: int, *, cause: str) -> None:
        """Count spans that nobody will see: `full` (too many waited), `refused` or `unreachable`."""
        self._dropped[(cause,)].inc(count)

    def log_lines_dropped(self, total: int) -> None:
        """Tell how many lines this process could not write since it began."""
        self._lines_dropped.inc(total - self._lines_told)
        self._lines_told = total
