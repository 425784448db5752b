"""Spans are written as OpenTelemetry reads them, and a collector that is slow, dead or full costs no call anything."""

import asyncio
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import pytest
import structlog
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans
from structlog.testing import capture_logs
from tollhouse_server.errors import InvalidRequest
from tollhouse_server.telemetry.collector import open_collector
from tollhouse_server.telemetry.observing import Observer, Sampling
from tollhouse_server.telemetry.otlp import rejected_spans, spans_of
from tollhouse_server.telemetry.steps import UPSTREAM, CallNotes, current_notes, note, noting, step, trace_headers
from tollhouse_server.telemetry.tracing import MOST_BYTES, MOST_WAITING, SpanExport

from tests.drivers.collector import Collector, running_collector

KEY = "th_" + "live_k1a2b3_" + "s" * 32
ATTEMPT = UUID("01a20041-c922-7d5e-b53c-6b02ba3b2082")
_UPSTREAM_FACTS = {
    "method": "generateContent",
    "model": "gemini-3.5-flash",
    "target": "gemini_api",
    "account": "main",
    "region": "",
    "address": "https://generativelanguage.googleapis.com",
    "attempt_id": ATTEMPT,
}


@dataclass(slots=True)
class Counted:
    """Counts spans."""

    spans: Counter[str] = field(default_factory=Counter)

    def spans_sent(self, count: int) -> None:
        self.spans["sent"] += count

    def spans_dropped(self, count: int, *, cause: str) -> None:
        self.spans[cause] += count


def finished_call(code: str = "OK", **facts: object) -> CallNotes:
    """Return the notes of a call with two steps."""
    taken: list[CallNotes] = []
    observer = Observer(sampling=Sampling(ratio=1.0), traced=taken.append, hands_on=True)
    notes = observer.begin("GenerationService.GenerateContent", {})
    with noting(notes):
        note(**facts)
        with step("authenticate"):
            pass
        with step(UPSTREAM, **_UPSTREAM_FACTS) as upstream:
            upstream.note(finish_reasons=("STOP",), tokens={"input": 3, "output": 70_000})
    notes.finish(code)
    assert taken == [notes]
    return notes


@pytest.fixture
def collector() -> Iterator[Collector]:
    with running_collector() as running:
        yield running


def test_what_is_written_is_what_opentelemetry_reads() -> None:
    """The messages are written by hand; the generated ones are the referee."""
    notes = finished_call(tenant="acme", cost_nanos=-(2**40), attempts=200, first_chunk_seconds=0.25, asked="x" * 300)

    root, authenticate, upstream = ScopeSpans.FromString(spans_of(notes)).spans
    values = {pair.key: pair.value for pair in root.attributes}
    assert (root.trace_id.hex(), root.parent_span_id) == (notes.trace.trace_id, b"")
    assert root.span_id == authenticate.parent_span_id == upstream.parent_span_id
    assert (root.kind, authenticate.kind, upstream.kind) == (root.SPAN_KIND_SERVER, 1, root.SPAN_KIND_CLIENT)
    assert root.start_time_unix_nano == notes.began_at_nanos
    assert root.start_time_unix_nano <= authenticate.start_time_unix_nano <= upstream.start_time_unix_nano
    assert upstream.end_time_unix_nano <= root.end_time_unix_nano
    assert values["tollhouse.cost_nanos"].int_value == -(2**40)
    assert values["tollhouse.first_chunk_seconds"].double_value == 0.25
    assert len(values["tollhouse.asked"].string_value) == 256
    said = {pair.key: pair.value for pair in upstream.attributes}
    assert [one.string_value for one in said["gen_ai.response.finish_reasons"].array_value.values] == ["STOP"]
    assert said["gen_ai.usage.output_tokens"].int_value == 70_000
    assert said["tollhouse.attempt_id"].string_value == str(ATTEMPT)
    assert (said["server.address"].string_value, said["server.port"].int_value) == (
        "generativelanguage.googleapis.com",
        443,
    )


def test_key_in_a_fact_is_blotted_out_of_spans() -> None:
    """The second wall stands here too."""
    notes = finished_call(asked=KEY, reason=f"was {KEY}")

    assert KEY.encode() not in spans_of(notes)


def test_defects_and_failed_steps_are_errors_and_refusals_are_not() -> None:
    """An alert on errors must not ring because somebody's budget is used up."""
    failed = finished_call("UNAVAILABLE")
    failed.steps[1].error = "Broken"
    refused = finished_call("RESOURCE_EXHAUSTED")

    spans = [ScopeSpans.FromString(spans_of(notes)).spans for notes in (failed, refused)]
    assert [[span.status.code for span in of_call] for of_call in spans] == [[2, 0, 2], [0, 0, 0]]


ODD_TEXT = st.text() | st.sampled_from(["\ud800", "\u202e", "a\nb", "\x1b[31m", "x" * 10_240, KEY])


@given(ODD_TEXT, ODD_TEXT, ODD_TEXT)
def test_no_name_from_outside_breaks_a_span_or_a_header(name: str, state: str, said: str) -> None:
    """Half a character, a line break, ten thousand letters, a key: a collector reads what is written."""
    parent = f"00-{'a' * 32}-{'b' * 16}-01"
    observer = Observer(sampling=Sampling(ratio=1.0), hands_on=True)
    notes = observer.begin("X.Y", {"traceparent": parent, "tracestate": state, "x-correlation-id": said})
    facts = _UPSTREAM_FACTS | {"model": name, "response_model": name, "response_id": said}
    with noting(notes), step(UPSTREAM, **facts) as upstream:
        upstream.note(finish_reasons=(name,))
        headers = trace_headers()
    notes.facts |= {"asked": name}
    notes.finish("OK")

    written = spans_of(notes)

    assert len(ScopeSpans.FromString(written).spans) == 2
    assert KEY.encode() not in written
    assert len(written) < 8000
    assert all(value.isascii() and value.isprintable() for value in headers.values())


async def test_spans_of_long_calls_that_wait_take_no_more_memory_than_is_said(collector: Collector) -> None:
    """A caller chooses the state of his trace, and makes streams that top up again and again."""
    counted = Counted()
    observer = Observer(sampling=Sampling(ratio=1.0))
    notes = observer.begin("X.Y", {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": "s" * 512})
    with noting(notes):
        for _ in range(100):
            with step("reserve"):
                pass
    notes.finish("OK")
    size = len(spans_of(notes))
    async with open_collector(collector.url, None) as sender:
        export = SpanExport(sender, counted, resource={})
        for _ in range(MOST_WAITING):
            export.take(notes)
        await asyncio.sleep(0)
        await export.drain()

    assert counted.spans["sent"] <= 101 * MOST_BYTES / size
    assert counted.spans["sent"] + counted.spans["full"] == 101 * MOST_WAITING


async def test_traces_arrive(collector: Collector) -> None:
    """With the headers that the collector wants to see, and what the process says of itself."""
    counted = Counted()
    async with open_collector(collector.url, None) as sender:
        export = SpanExport(sender, counted, resource={"service.name": "tollhouse"})
        for _ in range(300):
            export.take(finished_call())
        await export.drain()

    assert counted.spans == {"sent": 900, "unreachable": 0}
    assert len(collector.spans) == 900
    assert collector.resources[0] == {"service.name": "tollhouse"}
    assert collector.headers[0]["content-type"] == "application/x-protobuf"


async def test_spans_that_a_collector_takes_only_in_part_are_counted_as_dropped(collector: Collector) -> None:
    """It says 200, and that it did not want some of them."""
    counted = Counted()
    collector.rejected = 2
    async with open_collector(collector.url, None) as sender:
        export = SpanExport(sender, counted, resource={})
        export.take(finished_call())
        await export.drain()

    assert counted.spans == {"sent": 1, "refused": 2, "unreachable": 0}


@given(st.binary(max_size=60))
@example(b"\x0a" + b"\xff" * 60_000)
@example(b"\x0a\x02\x08" + b"\x80" * 60_000)
@example(
    ExportTraceServiceResponse(partial_success=ExportTracePartialSuccess(rejected_spans=2**40)).SerializeToString()
)
def test_answer_of_a_collector_is_read_whatever_it_is(answer: bytes) -> None:
    """A page of HTML, half a message, a number that does not end."""
    rejected = rejected_spans(answer)

    assert rejected >= 0
    assert rejected == 2**40 or b"\x80\x80\x80\x80\x80\x20" not in answer


HOSTILE_ANSWERS = {
    "garbage": b"\x00\xff\xfe\r\n\r\n",
    "no status": b"HTTP/1.1 abc OK\r\n\r\n",
    "closes": b"",
    "half a body": b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc",
    "wrong chunks": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n",
    "wrong gzip": b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 5\r\n\r\nabcde",
    "unknown encoding": b"HTTP/1.1 200 OK\r\ncontent-encoding: zstd\r\ncontent-length: 5\r\n\r\nabcde",
    "huge header": b"HTTP/1.1 200 OK\r\nx: " + b"a" * 100_000 + b"\r\n\r\n",
    "redirect": b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
    "no place": b"HTTP/1.1 302 Found\r\nlocation: ::::\r\ncontent-length: 0\r\n\r\n",
    "other protocol": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "early hints": b"HTTP/1.1 103 Early Hints\r\n\r\n",
}


@pytest.mark.parametrize("answer", HOSTILE_ANSWERS.values(), ids=HOSTILE_ANSWERS.keys())
async def test_whatever_a_collector_answers_is_an_answer(answer: bytes) -> None:
    """An exception would end the worker."""

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(reply, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with open_collector(f"http://127.0.0.1:{port}", None) as sender:
            said = await sender.send(b"spans")

    assert said.status in {0, 200, 302}
    assert said.status or said.fault


@pytest.mark.parametrize("answer", [None, 503, 400])
async def test_collector_that_does_not_take_spans_holds_up_nobody(answer: int | None) -> None:
    """Spans wait, are dropped and counted; a call that ends takes no longer."""
    counted, notes = Counted(), finished_call()
    with running_collector(answer) as collector:
        async with open_collector(collector.url, None) as sender:
            export = SpanExport(sender, counted, resource={})
            task = asyncio.create_task(export.run())
            began_at = time.perf_counter()
            for number in range(2 * MOST_WAITING):
                export.take(notes)
                if number % 256 == 0:
                    await asyncio.sleep(0)
            seconds = time.perf_counter() - began_at
            task.cancel()
            await asyncio.wait([task])
            collector.released.set()

    assert seconds < 2
    assert counted.spans["full"] > 0
    assert counted.spans["sent"] == 0


async def test_dead_collector_is_told_of_once(collector: Collector) -> None:
    """Nobody listens; what waits at the end is counted, what was wrong is logged, and the end is not held up."""
    counted = Counted()
    structlog.reset_defaults()
    with capture_logs() as log:
        async with open_collector("http://127.0.0.1:9", None) as sender:
            export = SpanExport(sender, counted, resource={})
            for _ in range(2):
                export.take(finished_call())
                await export.drain()

    assert counted.spans["unreachable"] == 6
    assert [(line["event"], line["fault"]) for line in log] == [("spans_not_sent", "ClientConnectorError")]


async def test_collectors_headers_come_from_a_file(collector: Collector, tmp_path: Path) -> None:
    """A token belongs neither into arguments nor into the environment."""
    file = tmp_path / "headers"
    file.write_text("authorization: Basic abc=\nx-scope-orgid: acme\n")

    async with open_collector(collector.url, file) as sender:
        await sender.send(b"")

    assert (collector.headers[0]["authorization"], collector.headers[0]["x-scope-orgid"]) == ("Basic abc=", "acme")


@pytest.mark.parametrize("text", ["no header", "na me: x", "name: with\x00nul"])
async def test_file_that_is_none_of_headers_is_refused_without_being_quoted(tmp_path: Path, text: str) -> None:
    """A server that cannot show its token should say so before it serves."""
    file = tmp_path / "headers"
    file.write_text(text)

    with pytest.raises(InvalidRequest) as raised:
        async with open_collector("http://127.0.0.1:9", file):
            pass

    assert text not in str(raised.value)
    assert "line 1" in str(raised.value.violations)


def test_trace_goes_on_below_the_attempt_where_that_is_wanted() -> None:
    """What came is handed on as it came where this server makes no spans; without leave nothing is."""
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = []
    for observer in (Observer(), Observer(hands_on=True), Observer(hands_on=True, sampling=Sampling(ratio=1.0))):
        with noting(observer.begin("X.Y", {"traceparent": parent})), step(UPSTREAM, **_UPSTREAM_FACTS):
            headers.append(trace_headers().get("traceparent", ""))

    assert headers[:2] == ["", parent]
    assert headers[2].startswith(parent[:36])
    assert headers[2] != parent


async def test_call_that_outlives_its_rpc_is_told_of_when_it_has_ended() -> None:
    """A caller who hangs up does not hide what his call cost."""
    ended: list[CallNotes] = []
    notes = Observer(sampling=Sampling(ratio=1.0), traced=ended.append).begin("X.Y", {})
    with noting(notes):
        notes.keep_open()
    notes.finish("CANCELLED")
    before = list(ended)
    notes.close()

    assert (before, ended) == ([], [notes])


def test_what_serves_no_call_notes_nothing() -> None:
    """The server's own work goes the same ways."""
    with step("reserve") as nothing:
        nothing.note(cost_nanos=1)
        note(tenant="acme")

    assert current_notes() is None
    assert trace_headers() == {}


def test_who_does_not_trace_loads_nothing_of_it() -> None:
    """Each module costs each process memory and time at its start."""
    code = (
        "import sys, tollhouse_server.wiring.tracing;"
        "print([n for n in sys.modules if 'opentelemetry' in n or n.endswith(('.otlp', 'telemetry.tracing'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
