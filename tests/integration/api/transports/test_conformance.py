"""What every transport does, as grpcio's client sees it."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status.rpc_status import from_call
from tollhouse.v1.generation_pb2_grpc import GenerationServiceStub

from tests.drivers import http2
from tests.drivers.callers import details_of, prompt, reason_of, text_of
from tests.drivers.transport_server import SERVICE, Running
from tests.integration.api.transports.conftest import LIMIT_BYTES, METADATA_BYTES

CORRELATION_ID = "x-tollhouse-correlation-id"
KEY = (("authorization", "Bearer any"),)
LONG = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@pytest.fixture
def stub(server: Running) -> Iterator[GenerationServiceStub]:
    """Generated code, and a channel without bounds of its own."""
    with grpc.insecure_channel(server.target, options=LONG) as channel:
        yield GenerationServiceStub(channel)


def refusal(ask: Callable[[], object]) -> Any:
    """Return the error with which a call ends."""
    with pytest.raises(grpc.RpcError) as caught:
        ask()
    return caught.value


def metadata_of(pairs: Any) -> dict[str, Any]:
    """Return metadata as a dict."""
    return dict(pairs or ())


def until(is_so: Callable[[], bool]) -> None:
    """Wait for it, and not for ever."""
    ends_at = time.monotonic() + 5
    while not is_so():
        assert time.monotonic() < ends_at
        time.sleep(0.02)


def test_a_unary_call_is_answered_with_its_correlation_id_in_trailers(stub: GenerationServiceStub) -> None:
    """By that operators find it."""
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    answer, call = stub.GenerateContent.with_call(
        prompt("Grüße"), metadata=(*KEY, ("traceparent", f"00-{trace}-00f067aa0ba902b7-01"))
    )

    assert text_of(answer) == "Grüße"
    assert metadata_of(call.trailing_metadata())[CORRELATION_ID] == trace


def test_an_error_carries_its_details(stub: GenerationServiceStub) -> None:
    """The code, the sentence, google.rpc's details and the correlation id."""
    error = refusal(lambda: stub.GenerateContent(prompt("Hello")))
    trailers = metadata_of(error.trailing_metadata())
    info: Any = details_of(error)["ErrorInfo"]

    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert error.details().startswith("The credential is missing")
    assert info.reason == "CREDENTIALS_INVALID"
    assert info.metadata["correlation_id"] == trailers[CORRELATION_ID]


def test_an_error_in_other_letters_arrives_whole(stub: GenerationServiceStub) -> None:
    """What is not printable ASCII is percent-encoded on the way, and a percent sign is too."""
    error = refusal(lambda: stub.GenerateContent(prompt("refuse 100 % Ж\n"), metadata=KEY))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == from_call(error).message
    assert "100 % Ж" in error.details()


def test_a_crash_says_nothing_of_itself(stub: GenerationServiceStub) -> None:
    """INTERNAL and the correlation id; no text."""
    error = refusal(lambda: stub.GenerateContent(prompt("crash"), metadata=KEY))

    assert (error.code(), reason_of(error)) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "Zero" not in error.details()


def test_a_handler_whose_work_was_cancelled_does_not_leave_its_caller_waiting(
    stub: GenerationServiceStub, transport: str
) -> None:
    """By something of the server's own: the caller has neither hung up nor set a deadline."""
    if transport == "grpcio":
        pytest.skip("grpc's own server does")
    error = refusal(lambda: stub.GenerateContent(prompt("cancel"), metadata=KEY, timeout=5))

    assert error.code() is grpc.StatusCode.CANCELLED


def test_a_stream_brings_its_messages_in_order_and_then_its_trailers(stub: GenerationServiceStub) -> None:
    """As many as there are."""
    call = stub.StreamGenerateContent(prompt("300 end -"), metadata=KEY)

    assert [text_of(answer) for answer in call] == [str(number) for number in range(300)]
    assert CORRELATION_ID in metadata_of(call.trailing_metadata())


def test_a_stream_without_messages_ends_well(stub: GenerationServiceStub) -> None:
    """An empty answer is one."""
    assert [*stub.StreamGenerateContent(prompt("0 end -"), metadata=KEY)] == []


@pytest.mark.parametrize("count", [0, 2])
def test_a_stream_that_fails_says_so_after_what_came(stub: GenerationServiceStub, count: int) -> None:
    """Messages that were sent arrive, and the error has its details."""
    call = stub.StreamGenerateContent(prompt(f"{count} fail -"), metadata=KEY)
    came: list[object] = []
    error = refusal(lambda: came.extend(call))

    assert (len(came), error.code(), reason_of(error)) == (
        count,
        grpc.StatusCode.UNAUTHENTICATED,
        "CREDENTIALS_INVALID",
    )
    assert CORRELATION_ID in metadata_of(error.trailing_metadata())


def test_the_deadline_arrives_with_the_call(stub: GenerationServiceStub) -> None:
    """The handler knows how long its caller waits, and the default where he did not say."""
    said = float(text_of(stub.GenerateContent(prompt("who"), metadata=KEY, timeout=9)).split("|")[-1])
    unsaid = float(text_of(stub.GenerateContent(prompt("who"), metadata=KEY)).split("|")[-1])

    assert 7 < said <= 9.1
    assert 28 < unsaid <= 30


def test_a_handler_ends_with_its_callers_deadline(stub: GenerationServiceStub, transport: str) -> None:
    """What nobody waits for is not worked on."""
    error = refusal(lambda: stub.GenerateContent(prompt("wait late"), metadata=KEY, timeout=0.3))

    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    until(lambda: "late" in ended(stub))


def ended(stub: GenerationServiceStub) -> list[str]:
    """Return the handlers that have been ended."""
    return text_of(stub.GenerateContent(prompt("ended"), metadata=KEY)).split()


def test_a_unary_handler_ends_when_its_caller_hangs_up(stub: GenerationServiceStub) -> None:
    """Soon, while it waits for something."""
    call = stub.GenerateContent.future(prompt("wait hung-up"), metadata=KEY)
    time.sleep(0.2)
    call.cancel()

    until(lambda: "hung-up" in ended(stub))


def test_a_stream_ends_when_its_caller_hangs_up_between_messages(stub: GenerationServiceStub) -> None:
    """It may wait long for the next one."""
    call = stub.StreamGenerateContent(prompt("2 wait between"), metadata=KEY)
    assert [text_of(next(call)), text_of(next(call))] == ["0", "1"]
    call.cancel()

    until(lambda: "between" in ended(stub))


def test_nothing_is_kept_of_streams_whose_callers_have_hung_up(stub: GenerationServiceStub, transport: str) -> None:
    """In the midst of what is sent to them."""
    if transport == "grpcio":
        pytest.skip("what is looked for is Envoy's")
    for number in range(100):
        call = stub.StreamGenerateContent(prompt(f"20000 end midst-{number}"), metadata=KEY)
        next(call)
        call.cancel()
    until(lambda: sum(name.startswith("midst") for name in ended(stub)) == 100)

    assert sum(name.startswith("cut-midst") for name in ended(stub)) > 50
    assert int(text_of(stub.GenerateContent(prompt("kept"), metadata=KEY))) < 10


def test_a_caller_whose_connection_breaks_has_hung_up(server: Running, stub: GenerationServiceStub) -> None:
    """His calls end as if he had cancelled each."""
    with grpc.insecure_channel(server.target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        call = GenerationServiceStub(channel).StreamGenerateContent(prompt("1 wait broken"), metadata=KEY)
        next(call)

    until(lambda: "broken" in ended(stub))


def peer(stub: GenerationServiceStub) -> str:
    """Return the end of a caller's connection as the server knows it."""
    return text_of(stub.GenerateContent(prompt("who"), metadata=KEY)).split("|")[1]


def test_a_handler_knows_who_calls_from_where(server: Running, stub: GenerationServiceStub) -> None:
    """The connection's other end, whatever a caller writes into x-forwarded-for, which is handed on beside."""
    sent = (*KEY, ("x-forwarded-for", "203.0.113.7"), ("x-tollhouse-peer", "203.0.113.8:1"))
    _, peer, agent, forwarded, _ = text_of(stub.GenerateContent(prompt("who"), metadata=sent)).split("|")

    assert peer.startswith("ipv4:127.0.0.1:") and peer != f"ipv4:127.0.0.1:{server.port}"
    assert agent.startswith("grpc-python/")
    assert forwarded == "203.0.113.7"


def test_many_who_hang_up_soon_end_nobody_elses_call(stub: GenerationServiceStub) -> None:
    """A service whose own callers are in a hurry has one connection for all of them, which stays."""
    connection = peer(stub)
    ends_at = time.monotonic() + 20
    while ended(stub).count("in-vain") < 1_500:
        assert time.monotonic() < ends_at
        hurried = [stub.GenerateContent.future(prompt("wait in-vain"), metadata=KEY) for _ in range(100)]
        time.sleep(0.1)
        for call in hurried:
            call.cancel()

    assert peer(stub) == connection


def test_who_does_nothing_but_hang_up_loses_his_connection(
    server: Running, stub: GenerationServiceStub, transport: str
) -> None:
    """Streams that are reset at once take no place of those that a connection may have; others stay connected."""
    if transport == "grpcio":
        pytest.skip("grpc's own server takes any number")
    connection = peer(stub)
    path, request = f"/{SERVICE}/GenerateContent", prompt("wait rude").SerializeToString()
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as rude:
        rude.sendall(http2.PREFACE + http2.settings())
        with suppress(ConnectionError):
            for number in range(1, 20_000, 2):
                rude.sendall(http2.request(number, path, server.target, KEY, request) + http2.reset(number))
            # Until he hears nothing any more. One who stays connected is told nothing, and it takes too long.
            while rude.recv(65_536):
                pass

    assert peer(stub) == connection


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_requests_are_read(stub: GenerationServiceStub, compression: grpc.Compression) -> None:
    """As the caller's stub has them."""
    text = "long words " * 10_000
    answer = stub.GenerateContent(prompt(text), metadata=KEY, compression=compression)

    assert text_of(answer) == text


def test_a_compressed_bomb_is_refused(stub: GenerationServiceStub) -> None:
    """The limit is on what a message becomes."""
    bomb = prompt("0" * (LIMIT_BYTES + 100_000))
    error = refusal(lambda: stub.GenerateContent(bomb, metadata=KEY, compression=grpc.Compression.Gzip))

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_large_messages_pass_both_ways(stub: GenerationServiceStub) -> None:
    """Up to the limit for requests; answers have none."""
    text = "x" * (LIMIT_BYTES - 1000)

    assert text_of(stub.GenerateContent(prompt(text), metadata=KEY)) == text
    assert len(text_of(stub.GenerateContent(prompt("answer 20000000"), metadata=KEY))) == 20_000_000


@pytest.mark.parametrize("over_bytes", [10_000, 20_000_000])
def test_a_message_that_is_too_large_is_refused(stub: GenerationServiceStub, over_bytes: int, transport: str) -> None:
    """A little or much: with our own error, which grpc's own server can send only for a little."""
    error = refusal(lambda: stub.GenerateContent(prompt("x" * (LIMIT_BYTES + over_bytes)), metadata=KEY))

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    if transport == "envoy" or over_bytes < 1_000_000:
        assert reason_of(error) == "REQUEST_TOO_LARGE"
        assert f"the limit is {LIMIT_BYTES}" in error.details()


def test_metadata_that_are_too_large_are_refused(stub: GenerationServiceStub, transport: str) -> None:
    """With our own error where the transport hands them over; grpc's own server speaks for itself."""
    sent = (*KEY, ("x-large", "x" * METADATA_BYTES * 8))
    error = refusal(lambda: stub.GenerateContent(prompt("Hello"), metadata=sent))

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    if transport == "envoy":
        assert reason_of(error) == "REQUEST_TOO_LARGE"
        assert "metadata" in error.details()


def test_what_does_not_exist_is_unimplemented(server: Running) -> None:
    """A service, and a method of one that does."""
    with grpc.insecure_channel(server.target) as channel:
        calls: list[Any] = [channel.unary_unary(path) for path in ("/a.B/C", f"/{SERVICE}/Sing")]
        codes = [refusal(partial(call, b"")).code() for call in calls]

    assert codes == [grpc.StatusCode.UNIMPLEMENTED] * 2


def test_a_message_that_is_none_is_an_invalid_request(server: Running) -> None:
    """Bytes that are no protobuf."""
    with grpc.insecure_channel(server.target) as channel:
        call: Any = channel.unary_unary(f"/{SERVICE}/GenerateContent")
        error = refusal(lambda: call(b"\xff\xff", metadata=KEY))

    assert (error.code(), reason_of(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")


def test_health_is_told_and_watched(server: Running) -> None:
    """Of the server and of each service, and of none that does not exist."""
    with grpc.insecure_channel(server.target) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        told = [stub.Check(health_pb2.HealthCheckRequest(service=name)).status for name in ("", SERVICE)]
        error = refusal(lambda: stub.Check(health_pb2.HealthCheckRequest(service="nobody")))
        watched = [next(stub.Watch(health_pb2.HealthCheckRequest(service=name))).status for name in (SERVICE, "nobody")]

    assert told == [health_pb2.HealthCheckResponse.SERVING] * 2
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert watched == [health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN]


def test_reflection_tells_the_services(server: Running) -> None:
    """Question by question, in one call."""
    with grpc.insecure_channel(server.target) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        questions = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
        ]
        services, file = stub.ServerReflectionInfo(iter(questions))

    assert SERVICE in {service.name for service in services.list_services_response.service}
    assert file.file_descriptor_response.file_descriptor_proto


def test_many_calls_share_a_connection(stub: GenerationServiceStub) -> None:
    """Two hundred wait at a time, and each gets its own answer."""
    calls = [stub.GenerateContent.future(prompt(f"sleep 0.2 {number}"), metadata=KEY) for number in range(200)]

    assert [text_of(call.result(10)) for call in calls] == [f"sleep 0.2 {number}" for number in range(200)]
