"""One call has one id: in its answer, its receipt, the log, its trace and the audit trail."""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import grpc
import pytest
from tollhouse.admin.v1 import audit_pb2, audit_pb2_grpc
from tollhouse.admin.v1 import departments_pb2 as departments
from tollhouse.admin.v1 import departments_pb2_grpc as departments_grpc
from tollhouse.v1 import generation_pb2 as g
from tollhouse.v1 import usage_pb2, usage_pb2_grpc
from tollhouse_server.simulator.client import SimulatorClient

from tests.drivers.callers import bearer, details_of, generation_stub, prompt
from tests.drivers.collector import Collector, SeenSpan, running_collector
from tests.drivers.places import servers_place
from tests.drivers.stack import RunningStack, running_stack_in

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
OTHER_TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
_STEPS = ["authenticate", "authorize", "validate", "route", "wait_for_place", "reserve", "settle"]
_SECRET_WORD = "zanzibar-" + "7f3a"


@dataclass(frozen=True, slots=True)
class Scene:
    """A server that traces all calls, and the collector of its traces."""

    stack: RunningStack
    collector: Collector

    def log_line(self, correlation_id: str) -> Mapping[str, Any]:
        """Return the line of a call."""
        ends_at = time.monotonic() + 10
        while time.monotonic() < ends_at:
            for line in self.stack.server_log().splitlines():
                if f'"correlation_id":"{correlation_id}"' in line and '"event":"call"' in line:
                    found: Mapping[str, Any] = json.loads(line)
                    return found
            time.sleep(0.05)
        raise AssertionError(f"no line of {correlation_id} in {self.stack.server_log()[-3000:]}")

    def trace(self, correlation_id: str) -> dict[str, SeenSpan]:
        """Return the spans of a call by their names; that of the RPC as `rpc`, that of its attempt as `attempt`."""
        root = self.collector.wait_for(
            lambda span: span.kind == "SERVER" and span.attributes["tollhouse.correlation_id"] == correlation_id
        )
        below = [span for span in self.collector.spans if span.parent_id == root.span_id]
        return {"attempt" if span.kind == "CLIENT" else span.name: span for span in below} | {"rpc": root}


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """A server with one worker."""
    with (
        servers_place("tracing") as directory,
        running_collector() as collector,
        running_stack_in(
            directory,
            workers=1,
            traces="otlp",
            traces_endpoint=collector.url,
            traces_ratio=1.0,
            traces_environment="test",
            traces_upstream=True,
        ) as stack,
    ):
        yield Scene(stack, collector)


def called(scene: Scene, *metadata: tuple[str, str], request: g.GenerateContentRequest | None = None) -> Any:
    """Make a call; return its outcome and the id in its trailing metadata."""
    with generation_stub(scene.stack) as stub:
        answer, call = stub.GenerateContent.with_call(
            request or prompt("Hello"), metadata=(*bearer(scene.stack.demo_api_key), *metadata)
        )
    return answer.outcome, told_id(call)


def told_id(call: Any) -> str:
    return str(dict(call.trailing_metadata())["x-tollhouse-correlation-id"])


def receipt(scene: Scene, request_id: str) -> g.Receipt:
    with grpc.insecure_channel(scene.stack.grpc) as channel:
        return usage_pb2_grpc.UsageServiceStub(channel).GetReceipt(
            usage_pb2.GetReceiptRequest(request_id=request_id), metadata=bearer(scene.stack.demo_api_key)
        )


def test_one_id_names_a_call_everywhere(scene: Scene) -> None:
    """Whoever has the id of an answer finds its line, its spans and what it cost, and the other way round."""
    outcome, correlation_id = called(scene, ("traceparent", TRACEPARENT))

    line, trace = scene.log_line(correlation_id), scene.trace(correlation_id)
    kept = receipt(scene, outcome.receipt.request_id)
    assert correlation_id == TRACE
    assert (outcome.receipt.correlation_id, kept.correlation_id, line["trace_id"]) == (TRACE, TRACE, TRACE)
    assert {span.trace_id for span in trace.values()} == {TRACE}
    assert trace["rpc"].parent_id == PARENT
    assert line["request_id"] == trace["rpc"].attributes["tollhouse.request_id"] == outcome.receipt.request_id
    assert line["cost_nanos"] == trace["rpc"].attributes["tollhouse.cost_nanos"] == outcome.receipt.cost.nanos
    assert line["attempt_id"] == trace["attempt"].attributes["tollhouse.attempt_id"] == outcome.receipt.attempt_id


def test_each_step_of_a_call_has_a_span_and_its_time_in_the_log(scene: Scene) -> None:
    """Where the time of a slow call went is to be seen without a debugger."""
    _, correlation_id = called(scene)

    line, trace = scene.log_line(correlation_id), scene.trace(correlation_id)
    assert sorted(trace) == sorted([*_STEPS, "attempt", "rpc"])
    assert set(line["step_seconds"]) == {*_STEPS, "upstream"}
    assert 0 < sum(line["step_seconds"].values()) <= line["seconds"]
    assert sum(span.nanos for name, span in trace.items() if name != "rpc") <= trace["rpc"].nanos


def test_attempt_says_what_the_conventions_for_generative_ai_ask(scene: Scene) -> None:
    """Dashboards that others have built read these names."""
    outcome, correlation_id = called(scene)

    attempt = scene.trace(correlation_id)["attempt"]
    usage, said = outcome.usage, attempt.attributes
    assert attempt.name == f"generate_content {outcome.route.model}"
    assert (said["gen_ai.provider.name"], said["gen_ai.operation.name"]) == ("gcp.gemini", "generate_content")
    assert said["gen_ai.request.model"] == outcome.route.model
    assert said["gen_ai.usage.input_tokens"] == usage.prompt_tokens
    assert said["gen_ai.usage.output_tokens"] == usage.candidates_tokens + usage.thoughts_tokens
    assert said["gen_ai.response.finish_reasons"] == ["STOP"]
    assert (said["server.address"], said["server.port"]) == ("127.0.0.1", int(scene.stack.simulator.rpartition(":")[2]))
    assert {"service.name": "tollhouse", "deployment.environment.name": "test"}.items() <= scene.collector.resources[
        0
    ].items()


async def test_upstream_can_go_on_with_the_trace(scene: Scene) -> None:
    """A server of one's own shows its part of the call below the attempt."""
    async with SimulatorClient(scene.stack.simulator) as simulator:
        await simulator.capture_requests(1)
        context = (("traceparent", f"00-{OTHER_TRACE}-{PARENT}-01"), ("tracestate", "vendor=1"))
        _, correlation_id = called(scene, *context)
        headers = dict((await simulator.requests())[0]["headers"])

    attempt = scene.trace(correlation_id)["attempt"]
    assert headers["traceparent"] == f"00-{OTHER_TRACE}-{attempt.span_id}-01"
    assert headers["tracestate"] == "vendor=1"


@pytest.mark.parametrize(
    "parent", ["", "nonsense", TRACEPARENT + "0", f"00-{'0' * 32}-{PARENT}-01", f"ff-{TRACE}-{PARENT}-01"]
)
def test_malformed_trace_context_begins_a_new_trace(scene: Scene, parent: str) -> None:
    """What a caller garbles must not make his call fail, nor hide it among others."""
    _, correlation_id = called(scene, ("traceparent", parent))

    assert re.fullmatch("[0-9a-f]{32}", correlation_id)
    assert correlation_id not in (TRACE, "0" * 32)
    assert scene.trace(correlation_id)["rpc"].parent_id == ""


def test_callers_own_id_is_taken_over(scene: Scene) -> None:
    """A caller without traces has an id of his own; a key or an address in its place is not."""
    own = f"order-{uuid4()}"

    _, taken = called(scene, ("x-correlation-id", own))
    _, refused = called(scene, ("x-correlation-id", "ann@example.com"))

    assert taken == own
    assert scene.log_line(own)["trace_id"] == scene.trace(own)["rpc"].trace_id
    assert re.fullmatch("[0-9a-f]{32}", refused)


def test_stream_and_its_trace_have_one_id(scene: Scene) -> None:
    """The id comes with the end of a stream; its log line says how long the first chunk took."""
    with generation_stub(scene.stack) as stub:
        stream = stub.StreamGenerateContent(prompt("Hello"), metadata=bearer(scene.stack.demo_api_key))
        *_, last = stream

    line = scene.log_line(told_id(stream))
    assert last.outcome.receipt.correlation_id == line["correlation_id"]
    assert 0 < line["first_chunk_seconds"] <= line["seconds"]
    assert line["finish_reasons"] == ["STOP"]


def test_error_carries_the_id_and_its_reason_is_in_line_and_span(scene: Scene) -> None:
    """Whoever reports an error needs to say nothing but its id."""
    with generation_stub(scene.stack) as stub, pytest.raises(grpc.RpcError) as raised:
        stub.GenerateContent(prompt("Hello", model="gemini-none"), metadata=bearer(scene.stack.demo_api_key))

    correlation_id = told_id(raised.value)
    info = details_of(raised.value)["ErrorInfo"]
    assert info.metadata["correlation_id"] == correlation_id  # type: ignore[attr-defined]
    assert scene.log_line(correlation_id)["reason"] == info.reason  # type: ignore[attr-defined]
    assert scene.trace(correlation_id)["rpc"].attributes["tollhouse.reason"] == info.reason  # type: ignore[attr-defined]


def test_administrative_act_has_the_id_in_the_audit_trail(scene: Scene) -> None:
    """From the event of an act to the log and the trace of the request that did it."""
    metadata = bearer(scene.stack.admin_api_key)
    with grpc.insecure_channel(scene.stack.grpc) as channel:
        _, call = departments_grpc.DepartmentServiceStub(channel).CreateDepartment.with_call(
            departments.CreateDepartmentRequest(parent="tenants/demo", department_id="traced"), metadata=metadata
        )
        wanted = audit_pb2.SearchAuditEventsRequest(
            parent="tenants/demo", resource="tenants/demo/departments/traced", method="CreateDepartment"
        )
        trail = audit_pb2_grpc.AuditServiceStub(channel)
        events = _events(lambda: trail.SearchAuditEvents(wanted, metadata=metadata).audit_events)

    correlation_id = told_id(call)
    assert [event.correlation_id for event in events] == [correlation_id]
    assert scene.log_line(correlation_id)["rpc"] == "DepartmentService.CreateDepartment"
    assert set(scene.trace(correlation_id)) == {"rpc", "authenticate", "authorize", "validate"}


def _events(search: Callable[[], Any]) -> Any:
    """Search until something is found."""
    ends_at = time.monotonic() + 10
    while not (found := search()) and time.monotonic() < ends_at:
        time.sleep(0.05)
    return found


def test_neither_words_nor_keys_nor_addresses_leave_in_lines_or_spans(scene: Scene) -> None:
    """What was said is its tenant's affair; what the word was, nobody who reads traces learns."""
    _, correlation_id = called(scene, request=prompt(f"The word is {_SECRET_WORD}. Say it, ann@example.com."))

    scene.trace(correlation_id)
    told = b"".join(scene.collector.bodies).decode("latin-1") + json.dumps(scene.log_line(correlation_id))
    assert _SECRET_WORD not in told
    assert "ann@example.com" not in told
    assert scene.stack.demo_api_key not in told
