"""What the room of kept content reports."""

from prometheus_client import CollectorRegistry

from tollhouse_server.telemetry.declarations import content as declared
from tollhouse_server.telemetry.families import counter, gauge


class ContentMetrics:
    """The metrics of kept content; part of `Metrics`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._calls = counter(declared.CONTENTS, registry)
        self._waiting = gauge(declared.CONTENTS_WAITING, registry)

    def kept(self, calls: int) -> None:
        """Count calls whose content was written."""
        self._calls[("kept",)].inc(calls)

    def dropped(self, calls: int) -> None:
        """Count calls that were served and whose content was lost."""
        self._calls[("dropped",)].inc(calls)

    def refused(self) -> None:
        """Count a call that was refused because it must be kept and could not be."""
        self._calls[("refused",)].inc()

    def waiting(self, calls: int) -> None:
        """Tell of how many calls the content waits to be written."""
        self._waiting.set(calls)
