"""What every transport does, as another implementation of the protocol sees it: grpclib, on h2."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.metadata import Deadline
from tollhouse.v1.generation_pb2 import GenerateContentRequest, GenerateContentResponse
from tollhouse_server.api.transports.framing import framed

from tests.drivers.callers import prompt, text_of
from tests.drivers.transport_server import SERVICE, Running

KEY = {"authorization": "Bearer any"}


@pytest.fixture
async def channel(server: Running) -> AsyncIterator[Channel]:
    """A connection of the other client."""
    async with Channel("127.0.0.1", server.port) as channel:
        yield channel


def unary(channel: Channel) -> Any:
    """Return the unary RPC."""
    return UnaryUnaryMethod(channel, f"/{SERVICE}/GenerateContent", GenerateContentRequest, GenerateContentResponse)


def stream(channel: Channel) -> Any:
    """Return the streaming RPC."""
    return UnaryStreamMethod(
        channel, f"/{SERVICE}/StreamGenerateContent", GenerateContentRequest, GenerateContentResponse
    )


async def test_a_call_is_answered(channel: Channel) -> None:
    """Message, and trailers with the correlation id."""
    async with unary(channel).open(metadata=KEY, timeout=10) as call:
        await call.send_message(prompt("Hello"), end=True)
        answer = await call.recv_message()
        await call.recv_trailing_metadata()

    assert text_of(answer) == "Hello"
    assert call.trailing_metadata["x-tollhouse-correlation-id"]


async def test_a_request_in_pieces_is_put_together(channel: Channel) -> None:
    """The end of the request may come after its message."""
    async with unary(channel).open(metadata=KEY, timeout=10) as call:
        await call.send_message(prompt("x" * 100_000))
        await call.end()
        answer = await call.recv_message()

    assert len(text_of(answer)) == 100_000


@pytest.mark.parametrize("body", [b"", b"\0\0\0\0", b"\0\0\0\0\x09x", b"\1\0\0\0\x01x", framed(b"") * 2])
async def test_a_unary_call_has_one_message(channel: Channel, transport: str, body: bytes) -> None:
    """None, half of one, one that is compressed in no known way, and two are refused."""
    if transport == "grpcio":
        pytest.skip("grpc's own server lets such a caller wait for ever, or takes the first message")
    async with unary(channel).open(metadata=KEY, timeout=5) as call:
        await call.send_request()
        await call._stream.send_data(body, end_stream=True)
        call._end_done = True
        with pytest.raises(GRPCError) as caught:
            await call.recv_message()

    assert caught.value.status is Status.INVALID_ARGUMENT


async def test_an_error_carries_its_details(channel: Channel) -> None:
    """The reason, which callers tell errors by."""
    with pytest.raises(GRPCError) as caught:
        await unary(channel)(prompt("Hello"), timeout=10)

    assert caught.value.status is Status.UNAUTHENTICATED
    [info] = caught.value.details or []
    assert info.reason == "CREDENTIALS_INVALID"


async def test_a_stream_brings_its_messages(channel: Channel) -> None:
    """All of them."""
    answers = await stream(channel)(prompt("50 end -"), metadata=KEY, timeout=10)

    assert [text_of(answer) for answer in answers] == [str(number) for number in range(50)]


async def test_a_stream_that_is_reset_ends_its_handler(channel: Channel) -> None:
    """A frame RST_STREAM is a hang-up."""
    async with stream(channel).open(metadata=KEY, timeout=10) as call:
        await call.send_message(prompt("1 wait reset"), end=True)
        assert text_of(await call.recv_message()) == "0"
        await call.cancel()

    async with asyncio.timeout(5):
        while "reset" not in text_of(await unary(channel)(prompt("ended"), metadata=KEY)).split():
            pass


@pytest.mark.parametrize("is_whole", [True, False])
async def test_a_deadline_that_the_caller_does_not_keep_is_kept(
    channel: Channel, transport: str, is_whole: bool
) -> None:
    """He says when he stops to wait, and hears so then, even if he goes on listening, or has not said all yet."""
    if transport == "grpcio" and not is_whole:
        pytest.skip("grpc's own server waits for ever for the rest of a request")
    with pytest.raises(GRPCError) as caught:
        async with unary(channel).open(metadata=KEY) as call, asyncio.timeout(5):
            # Said, and not watched: only a call that is opened with it is ended by it.
            call._deadline = Deadline.from_timeout(0.3)
            if is_whole:
                await call.send_message(prompt("wait unkept"), end=True)
            else:
                await call.send_request()
                await call._stream.send_data(framed(b"never comes whole")[:9])
            await call.recv_message()
            await call.recv_trailing_metadata()

    assert caught.value.status is Status.DEADLINE_EXCEEDED
