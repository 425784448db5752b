"""A collector of traces: takes OTLP over HTTP as the real ones do, and reads it with OpenTelemetry's own messages."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class SeenSpan:
    """A span as it came; ids in hexadecimal."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: str
    is_error: bool
    nanos: int
    attributes: Mapping[str, Any]


@dataclass(slots=True)
class Collector:
    """What has come. `answer` is the HTTP status given; None keeps the sender waiting."""

    url: str
    answer: int | None = 200
    rejected: int = 0
    bodies: list[bytes] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def resources(self) -> list[dict[str, Any]]:
        """What the processes said of themselves."""
        return [_values(one.resource.attributes) for body in self.bodies for one in _read(body).resource_spans]

    @property
    def spans(self) -> list[SeenSpan]:
        """All spans, as they came."""
        return [
            _seen(span)
            for body in self.bodies
            for resource in _read(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def wait_for(self, found: Callable[[SeenSpan], bool]) -> SeenSpan:
        """Return the first such span, as soon as it has come."""
        ends_at = time.monotonic() + _SECONDS
        while time.monotonic() < ends_at:
            for span in self.spans:
                if found(span):
                    return span
            time.sleep(0.05)
        raise AssertionError(f"no such span among {self.spans}")


@contextmanager
def running_collector(answer: int | None = 200) -> Iterator[Collector]:
    """Run a collector on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            collector.headers.append({name.lower(): value for name, value in self.headers.items()})
            body = self.rfile.read(int(self.headers["content-length"]))
            if collector.answer is None:
                collector.released.wait(_SECONDS)
            elif collector.answer == 200 and self.path == "/v1/traces":
                collector.bodies.append(body)
            response = service.ExportTraceServiceResponse()
            response.partial_success.rejected_spans = collector.rejected
            told = response.SerializeToString()
            self.send_response(collector.answer or 200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    collector = Collector(f"http://127.0.0.1:{server.server_port}", answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        collector.released.set()
        server.shutdown()
        server.server_close()


def _read(body: bytes) -> service.ExportTraceServiceRequest:
    return service.ExportTraceServiceRequest.FromString(body)


def _seen(span: Span) -> SeenSpan:
    return SeenSpan(
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        is_error=span.status.code == span.status.STATUS_CODE_ERROR,
        nanos=span.end_time_unix_nano - span.start_time_unix_nano,
        attributes=_values(span.attributes),
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in attributes}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return None if kind is None else getattr(value, kind)
