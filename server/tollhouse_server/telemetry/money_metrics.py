"""What is reported of limits and of labels."""

from prometheus_client import CollectorRegistry

from tollhouse_server.telemetry.declarations import money as declared
from tollhouse_server.telemetry.families import counter, lone_counter

_NO_THRESHOLD = "none"


class MoneyMetrics:
    """What is reported of limits and of labels; part of `Metrics`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._limit_alerts = counter(declared.LIMIT_ALERTS, registry)
        self._label_values_beyond = lone_counter(declared.LABEL_VALUES_BEYOND, registry)

    def limit_alerts(self, *, kind: str, threshold_per_cent: int, count: int) -> None:
        """Count alerts of limits; `kind` is threshold, passed or above_hold, and only the first has a threshold."""
        # Anybody who keeps a limit chooses its thresholds: by tens they are few, and no hundred of series.
        step = str(min(threshold_per_cent, 100) // 10 * 10) if kind == "threshold" else _NO_THRESHOLD
        self._limit_alerts[kind, step].inc(count)

    def limit_alerts_begin(self) -> None:
        """Show 0 alerts of each kind and threshold from now on."""
        for kind in ("passed", "above_hold"):
            self._limit_alerts.begin(kind, _NO_THRESHOLD)
        for step in range(0, 101, 10):
            self._limit_alerts.begin("threshold", str(step))

    def label_values_beyond(self) -> None:
        """Note a call that was booked with the value `other` instead of its own."""
        self._label_values_beyond.inc()
