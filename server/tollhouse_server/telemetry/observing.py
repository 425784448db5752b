"""Where the notes of calls begin and end: an id at the beginning, a log line and perhaps a trace at the end."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tollhouse_server.telemetry.call_log import log_call
from tollhouse_server.telemetry.steps import CallNotes
from tollhouse_server.telemetry.tracecontext import TraceContext, correlation_id, trace_context

_ALL = 1 << 64
_LOW_BITS = _ALL - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Which calls are traced: as whoever called the caller decided, else this share of the traces that begin here.

    By the low half of the trace id, as OpenTelemetry's TraceIdRatioBased sampler decides, so that all who use the same
    share choose the same traces.
    """

    ratio: float

    def wants(self, context: TraceContext) -> bool:
        """Tell whether a call is traced."""
        if context.is_sampled is not None:
            return context.is_sampled
        return int(context.trace_id[16:], 16) & _LOW_BITS < self.ratio * _ALL


class Observer:
    """Opens the notes of calls, and hands them over when they have ended. Without `traced` there are only logs.

    With `hands_on` upstreams are told of the trace.
    """

    def __init__(
        self,
        *,
        sampling: Sampling | None = None,
        traced: Callable[[CallNotes], None] | None = None,
        hands_on: bool = False,
    ) -> None:
        self._sampling = sampling
        self._hands_on = hands_on
        self._traced = traced

    def begin(self, rpc: str, metadata: Mapping[str, str]) -> CallNotes:
        """Open the notes of a call that has arrived with this metadata; `rpc` is `Service.Method`."""
        context = trace_context(metadata)
        return CallNotes(
            rpc,
            context,
            correlation_id(context, metadata),
            is_sampled=self._sampling is not None and self._sampling.wants(context),
            hands_on=self._hands_on,
            on_end=self._ended,
        )

    def _ended(self, notes: CallNotes) -> None:
        log_call(notes)
        if notes.is_sampled and self._traced is not None:
            self._traced(notes)
