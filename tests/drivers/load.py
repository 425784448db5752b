"""Many calls at once over several connections, so that the kernel spreads them over all workers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from tollhouse.v1 import generation_pb2 as pb
from tollhouse.v1.generation_pb2_grpc import GenerationServiceStub

from tests.drivers.callers import bearer
from tests.drivers.stack import RunningStack

Work = TypeVar("Work")

_OPTIONS = (
    # Without it every channel of a process shares one connection, and so one worker.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.initial_reconnect_backoff_ms", 50),
)


class Caller:
    """A calling service on a connection of its own."""

    def __init__(self, channel: grpc.aio.Channel, key: str) -> None:
        self._stub = GenerationServiceStub(channel)
        self._metadata = bearer(key)

    async def unary(self, request: Message, *, seconds: float = 60) -> pb.Outcome:
        """Send a unary call of whatever method takes the request and return its outcome."""
        methods: dict[type[Message], Any] = {
            pb.GenerateContentRequest: self._stub.GenerateContent,
            pb.CountTokensRequest: self._stub.CountTokens,
            pb.EmbedContentRequest: self._stub.EmbedContent,
        }
        answer = await methods[type(request)](request, metadata=self._metadata, timeout=seconds)
        outcome: pb.Outcome = answer.outcome
        return outcome

    def stream(
        self, request: pb.GenerateContentRequest, *, seconds: float = 60
    ) -> "grpc.aio.UnaryStreamCall[pb.GenerateContentRequest, pb.GenerateContentResponse]":
        """Start a streaming call."""
        call: grpc.aio.UnaryStreamCall[pb.GenerateContentRequest, pb.GenerateContentResponse] = (
            self._stub.StreamGenerateContent(request, metadata=self._metadata, timeout=seconds)
        )
        return call

    async def streamed(self, request: pb.GenerateContentRequest, *, seconds: float = 60) -> pb.Outcome:
        """Read a stream to its end and return its outcome."""
        *_, last = [message async for message in self.stream(request, seconds=seconds)]
        assert last.HasField("outcome")
        return last.outcome


@asynccontextmanager
async def callers(stack: RunningStack, key: str, count: int) -> AsyncIterator[list[Caller]]:
    """Open `count` connections that use one key."""
    async with callers_at([stack.grpc] * count, key) as opened:
        yield opened


@asynccontextmanager
async def callers_at(targets: Sequence[str], key: str) -> AsyncIterator[list[Caller]]:
    """Open a connection to each of the targets (host:port); all use one key."""
    async with AsyncExitStack() as channels:
        opened = [grpc.aio.insecure_channel(target, options=_OPTIONS) for target in targets]
        for channel in opened:
            await channels.enter_async_context(channel)
        yield [Caller(channel, key) for channel in opened]


async def share_out(
    works: Iterable[Work], among: Iterable[Caller], do: Callable[[Caller, Work], Awaitable[None]]
) -> None:
    """Have each caller take the next work as soon as it is free, until none is left."""
    waiting = iter(works)

    async def serve(caller: Caller) -> None:
        for work in waiting:
            await do(caller, work)

    async with asyncio.TaskGroup() as group:
        for caller in among:
            group.create_task(serve(caller))
