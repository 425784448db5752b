"""What is noted of a call on its way: its steps with their times, and the facts that its log line and spans tell.

Whoever serves a part of a call says `with step("reserve"):` and `note(cost_nanos=...)`; the notes of the call that is
being served are found by a context variable, so that nothing has to be handed down. Notes are taken once, for the log
line, the metrics and the spans: what they become is decided when the call has ended.
"""

from collections.abc import Callable
from contextvars import ContextVar
from time import perf_counter_ns, time_ns
from types import TracebackType
from typing import Any, Self, TypeAlias

from tollhouse_server.telemetry.tracecontext import TRACEPARENT, TRACESTATE, TraceContext, new_span_number, traceparent

UPSTREAM = "upstream"
"""The step in which the upstream has the call; everything else is ours."""

_NANOS_PER_SECOND = 1_000_000_000
_MOST_STEPS = 100
"""No call makes so many steps; a stream that tops up its hold for hours might."""


class Step:
    """One step of a call; times are of `perf_counter_ns`, `ended_at` is 0 while it goes on."""

    __slots__ = ("_span_number", "ended_at", "error", "facts", "name", "started_at")

    def __init__(self, name: str, facts: dict[str, Any]) -> None:
        self.name = name
        self.facts = facts
        self.error = ""
        self.ended_at = 0
        self._span_number = 0
        self.started_at = perf_counter_ns()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended_at = perf_counter_ns()
        if kind is not None:
            # The name of a fact; its text may quote what came from outside.
            self.error = kind.__name__

    def note(self, **facts: Any) -> None:
        """Add facts to the step."""
        self.facts.update(facts)

    @property
    def span_number(self) -> int:
        """Return the id of the step's span, the same each time."""
        if not self._span_number:
            self._span_number = new_span_number()
        return self._span_number


class _NoStep:
    """A step of no call: what the server does for itself."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def note(self, **facts: Any) -> None:
        """Note nothing."""


StepNotes: TypeAlias = Step | _NoStep
"""A step under way; of no call, where the server does something for itself."""


class CallNotes:
    """The notes of one call. It has ended when its RPC has, and everything that outlives its RPC."""

    __slots__ = (
        *("_on_end", "_open", "began_at_nanos", "code", "correlation_id", "ended_at", "facts", "told"),
        *("hands_on", "is_sampled", "rpc", "started_at", "steps", "trace"),
    )

    def __init__(
        self,
        rpc: str,
        trace: TraceContext,
        correlation_id: str,
        *,
        is_sampled: bool = False,
        hands_on: bool = False,
        on_end: Callable[["CallNotes"], None] | None = None,
    ) -> None:
        self.rpc = rpc
        self.trace = trace
        self.correlation_id = correlation_id
        self.is_sampled = is_sampled
        self.hands_on = hands_on
        self.facts: dict[str, Any] = {}
        self.steps: list[Step] = []
        self.told: dict[str, Any] | None = None
        """What logs and traces tell of the call, once one of them has asked."""
        self.code = ""
        self._open = 1
        self._on_end = on_end
        self.began_at_nanos = time_ns()
        self.started_at = perf_counter_ns()
        self.ended_at = 0

    @property
    def seconds(self) -> float:
        """Return the time from the arrival of the RPC to its end, or until now."""
        return ((self.ended_at or perf_counter_ns()) - self.started_at) / _NANOS_PER_SECOND

    @property
    def upstream_seconds(self) -> float | None:
        """Return the time that upstreams have had the call, None if none had it."""
        # A plain loop: it is asked of every call, and is twice as quick.
        nanos, was_sent = 0, False
        for step in self.steps:
            if step.name == UPSTREAM:
                was_sent = True
                nanos += (step.ended_at or perf_counter_ns()) - step.started_at
        return nanos / _NANOS_PER_SECOND if was_sent else None

    def seconds_by_step(self) -> dict[str, float]:
        """Return how long each kind of step took, all of a kind together; those that have not ended are left out."""
        nanos: dict[str, int] = {}
        for step in self.steps:
            if step.ended_at:
                nanos[step.name] = nanos.get(step.name, 0) + step.ended_at - step.started_at
        return {name: taken // 1000 / 1_000_000 for name, taken in nanos.items()}

    def step(self, name: str, facts: dict[str, Any]) -> StepNotes:
        """Begin a step."""
        steps = self.steps
        if len(steps) >= _MOST_STEPS:
            return _NO_STEP
        begun = Step(name, facts)
        steps.append(begun)
        return begun

    def trace_headers(self) -> dict[str, str]:
        """Return the headers that hand the call's trace on from the attempt under way: what came, if none is made."""
        attempt = next((step for step in reversed(self.steps) if step.name == UPSTREAM), None)
        if not self.hands_on or attempt is None or not (self.is_sampled or self.trace.parent_id):
            return {}
        above = f"{attempt.span_number:016x}" if self.is_sampled else self.trace.parent_id
        headers = {
            TRACEPARENT: traceparent(self.trace, above, is_sampled=self.is_sampled or bool(self.trace.is_sampled))
        }
        return headers | {TRACESTATE: self.trace.state} if self.trace.state else headers

    def keep_open(self) -> None:
        """Say that something goes on that may outlive the RPC; `close` must follow."""
        self._open += 1

    def finish(self, code: str) -> None:
        """Note that the RPC has ended, and how."""
        self.code = code
        self.ended_at = perf_counter_ns()
        self.close()

    def close(self) -> None:
        """Note that a part has ended; after the last one the notes are handed over."""
        self._open -= 1
        if self._open == 0 and self._on_end is not None:
            self._on_end(self)


_NO_STEP = _NoStep()
_current: ContextVar[CallNotes | None] = ContextVar("tollhouse_call_notes", default=None)


def current_notes() -> CallNotes | None:
    """Return the notes of the call that is being served here, None where none is."""
    return _current.get()


class _Noting:
    """A block in which a call is served."""

    __slots__ = ("_before", "_notes")

    def __init__(self, notes: CallNotes) -> None:
        self._notes = notes
        self._before: CallNotes | None = None

    def __enter__(self) -> None:
        # Not by a token: the end of a stream may be run in another context than its beginning.
        self._before = _current.get()
        _current.set(self._notes)

    def __exit__(self, *error: object) -> None:
        _current.set(self._before)


def noting(notes: CallNotes) -> _Noting:
    """Have everything in the block, and the tasks begun in it, note there."""
    return _Noting(notes)


def step(name: str, **facts: Any) -> "StepNotes":
    """Begin a step of the call that is being served; it ends with the `with` block that it stands in."""
    notes = _current.get()
    return _NO_STEP if notes is None else notes.step(name, facts)


def note(**facts: Any) -> None:
    """Add facts about the call that is being served."""
    notes = _current.get()
    if notes is not None:
        notes.facts.update(facts)


def trace_headers() -> dict[str, str]:
    """Return the headers with which an upstream can go on with the trace of the call that is being served."""
    notes = _current.get()
    return {} if notes is None else notes.trace_headers()
