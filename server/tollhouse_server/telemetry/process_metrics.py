"""What is reported of processes and of the parts they stand on."""

from prometheus_client import CollectorRegistry

from tollhouse_server.telemetry.declarations import processes as declared
from tollhouse_server.telemetry.families import gauge, gauges


class ProcessMetrics:
    """What is reported of processes and of the parts they stand on; part of `Metrics`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._part_up = gauges(declared.PART_UP, registry)
        self._epoch_staleness = gauge(declared.EPOCH_STALENESS, registry)
        self._event_loop_lag = gauges(declared.EVENT_LOOP_LAG, registry)
        self._processes = gauges(declared.PROCESSES, registry)

    def vault_seen(self, *, up: bool) -> None:
        """Set whether this process's last look into Vault succeeded."""
        self._part_up[("vault",)].set(up)

    def database_seen(self, *, up: bool) -> None:
        """Set whether this process's last look into PostgreSQL succeeded."""
        self._part_up[("database",)].set(up)

    def epoch_staleness(self, seconds: float) -> None:
        """Set how long ago this process last learned of changed keys and policies."""
        self._epoch_staleness.set(seconds)

    def process_started(self, *, role: str) -> None:
        """Say that this process lives; `role` is worker or housekeeper."""
        self._processes[(role,)].set(1)

    def event_loop_lag(self, *, role: str, seconds: float) -> None:
        """Set how much too late this process did what was due."""
        self._event_loop_lag[(role,)].set(seconds)
