"""Traces on their way to a collector. What it does not take in time is dropped and counted; no call waits for it."""

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Final, NamedTuple, Protocol

import structlog

from tollhouse_server.telemetry.otlp import request_of, resource_of, scope_of, spans_of
from tollhouse_server.telemetry.steps import CallNotes

_log = structlog.get_logger(__name__)

MOST_WAITING: Final = 4096
"""Calls whose spans wait; they take some 10 MB. What comes then is dropped."""

MOST_BYTES: Final = 32 * 1024 * 1024
"""What they may take at the most: how long a trace's state is, and how many steps a stream makes, callers decide."""

_MOST_CALLS_SENT: Final = 256

_LINGER_SECONDS: Final = 0.5
_DRAIN_SECONDS: Final = 2.0
_TRIES: Final = 3
_FIRST_PAUSE_SECONDS: Final = 1.0
_TEMPORARY: Final = frozenset({429, 502, 503, 504})
"""Answers after which the same may be sent again (https://opentelemetry.io/docs/specs/otlp/#otlphttp-response)."""


class SpanMetrics(Protocol):
    """Who counts spans."""

    def spans_sent(self, count: int) -> None:
        """Count spans that a collector has taken."""

    def spans_dropped(self, count: int, *, cause: str) -> None:
        """Count spans that nobody will see: `full` (too many waited), `refused` or `unreachable`."""


class Answer(NamedTuple):
    """What a collector said: an HTTP status, 0 where no answer came, and then the name of what was wrong."""

    status: int
    fault: str = ""
    rejected: int = 0
    """Spans that it did not want, though it took the others."""


class Collector(Protocol):
    """Takes ExportTraceServiceRequests."""

    async def send(self, request: bytes) -> Answer:
        """Return the answer, also where none came."""


class _Spans(NamedTuple):
    """The spans of one call."""

    written: bytes
    number: int


class SpanExport:
    """Keeps the spans of traced calls until they are sent, in one worker. Nobody ever waits for it."""

    def __init__(self, collector: Collector, metrics: SpanMetrics, *, resource: Mapping[str, str]) -> None:
        self._collector = collector
        self._metrics = metrics
        self._resource = resource_of(resource)
        self._scope = scope_of("tollhouse", resource.get("service.version", ""))
        self._waiting: deque[_Spans] = deque()
        self._waiting_bytes = 0
        self._loop = asyncio.get_running_loop()
        self._is_enough = asyncio.Event()
        self._is_failing = False

    def take(self, notes: CallNotes) -> None:
        """Take the notes of a call that has ended; they are written when its answer is on its way.

        At once, not when they are sent: notes that wait are as dear again to read, and to look through for garbage.
        """
        if len(self._waiting) >= MOST_WAITING:
            self._metrics.spans_dropped(1 + len(notes.steps), cause="full")
        else:
            self._loop.call_soon(self._write, notes)

    def _write(self, notes: CallNotes) -> None:
        spans = _Spans(spans_of(notes), 1 + len(notes.steps))
        if self._waiting_bytes + len(spans.written) > MOST_BYTES:
            self._metrics.spans_dropped(spans.number, cause="full")
            return
        self._waiting.append(spans)
        self._waiting_bytes += len(spans.written)
        if len(self._waiting) >= _MOST_CALLS_SENT:
            self._is_enough.set()

    async def run(self) -> None:
        """Send what has come, for ever: twice a second, or as soon as there is enough."""
        while True:
            try:
                async with asyncio.timeout(_LINGER_SECONDS):
                    await self._is_enough.wait()
            except TimeoutError:
                pass
            self._is_enough.clear()
            while self._waiting:
                await self._send_some(_TRIES)

    async def drain(self) -> None:
        """Send what waits, once: a process that ends does not wait for a collector that does not answer."""
        # The last calls' are written first.
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while self._waiting and not self._is_failing:
                    await self._send_some(1)
        except TimeoutError:
            pass
        self._metrics.spans_dropped(_count(self._waiting), cause="unreachable")

    async def _send_some(self, tries: int) -> None:
        count = min(len(self._waiting), _MOST_CALLS_SENT)
        calls = [self._waiting.popleft() for _ in range(count)]
        size = sum([len(one.written) for one in calls])
        self._waiting_bytes -= size
        spans = _count(calls)
        request = request_of([one.written for one in calls], self._resource, self._scope)
        try:
            answer = await self._send(request, tries)
        except asyncio.CancelledError:
            # Whoever drains sends them.
            self._waiting.extendleft(reversed(calls))
            self._waiting_bytes += size
            raise
        if _is_good(answer.status):
            rejected = min(spans, answer.rejected)
            self._metrics.spans_sent(spans - rejected)
            if rejected:
                self._metrics.spans_dropped(rejected, cause="refused")
        else:
            self._metrics.spans_dropped(spans, cause="refused" if answer.status else "unreachable")
        self._tell(answer)

    async def _send(self, request: bytes, tries: int) -> Answer:
        answer = await self._collector.send(request)
        for number in range(tries - 1):
            if answer.status and answer.status not in _TEMPORARY:
                break
            await asyncio.sleep(_FIRST_PAUSE_SECONDS * 2**number)
            answer = await self._collector.send(request)
        return answer

    def _tell(self, answer: Answer) -> None:
        """Log the first failure of several, and the end of them."""
        is_failing = not _is_good(answer.status)
        if is_failing and not self._is_failing:
            _log.warning("spans_not_sent", http_status=answer.status or None, fault=answer.fault or None)
        elif self._is_failing and not is_failing:
            _log.info("spans_sent_again")
        self._is_failing = is_failing


def _is_good(status: int) -> bool:
    return HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES


def _count(calls: Iterable[_Spans]) -> int:
    return sum([one.number for one in calls])
