"""Logs and traces of a worker's calls."""

from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from tollhouse_server.background import Background
from tollhouse_server.settings import Settings
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.telemetry.observing import Observer, Sampling

if TYPE_CHECKING:
    from tollhouse_server.telemetry.tracing import SpanExport


@dataclass(frozen=True, slots=True)
class TracingParts:
    """What takes the notes of calls, and what sends their spans; `export` is None while traces are off."""

    observer: Observer
    export: "SpanExport | None" = None

    def run_in(self, tasks: Background) -> None:
        """Start sending."""
        if self.export is not None:
            tasks.keep(self.export.run)


async def open_tracing(settings: Settings, stack: AsyncExitStack, metrics: Metrics) -> TracingParts:
    """Build them; when the stack unwinds, what waits is sent, and the connections to the collector are closed.

    Raises:
        InvalidRequest: the file with the collector's headers cannot be used.
    """
    if settings.traces == "off":
        return TracingParts(Observer(hands_on=settings.traces_upstream))
    # Only who sends traces loads what writes them.
    from tollhouse_server.telemetry.collector import open_collector  # noqa: PLC0415
    from tollhouse_server.telemetry.tracing import SpanExport  # noqa: PLC0415

    collector = await stack.enter_async_context(open_collector(settings.traces_endpoint, settings.traces_headers_file))
    export = SpanExport(collector, metrics.observing, resource=_resource(settings))
    stack.push_async_callback(export.drain)
    sampling = Sampling(ratio=settings.traces_ratio)
    return TracingParts(Observer(sampling=sampling, traced=export.take, hands_on=settings.traces_upstream), export)


def _resource(settings: Settings) -> dict[str, str]:
    said = {
        "service.name": settings.traces_service_name,
        "service.version": version("tollhouse"),
        "deployment.environment.name": settings.traces_environment,
    }
    return {name: value for name, value in said.items() if value}
