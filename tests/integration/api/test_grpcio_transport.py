"""The gRPC server itself, in front of a real chain; nothing behind the chain is reached."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from grpc_status.rpc_status import from_call
from prometheus_client import CollectorRegistry
from tollhouse.v1 import generation_pb2 as pb
from tollhouse.v1.generation_pb2_grpc import GenerationServiceStub
from tollhouse_server.access.authorizer import Authorizer
from tollhouse_server.api.chain import Chain, Method
from tollhouse_server.api.transports.grpcio import GrpcioServer
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import EpochWatch
from tollhouse_server.identity.directory import Directory
from tollhouse_server.settings import Settings
from tollhouse_server.telemetry.metrics import Metrics

from tests.drivers.callers import prompt, reason_of

CONNECTIONS, CALLS_EACH = 4, 900
"""More together than the 3,000 above which gRPC refuses every call by itself; each below its limit of streams."""

ARRIVAL_SECONDS = 1.0
_OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)


async def never(_request: object, _call: object) -> pb.GenerateContentResponse:
    """Serve nobody: no caller of these tests has a key."""
    raise AssertionError


@dataclass(frozen=True, slots=True)
class Listening:
    """A server and where it listens."""

    server: GrpcioServer
    target: str


@pytest.fixture
async def listening() -> AsyncIterator[Listening]:
    """A server that knows no key, and so asks no database."""
    database = Database("postgresql://nobody@127.0.0.1:9/nothing")
    watch = EpochWatch(database)
    chain = Chain(
        directory=Directory(database, watch, b"pepper"),
        authorizer=Authorizer(database, watch),
        metrics=Metrics(CollectorRegistry()),
        default_deadline_seconds=30,
        max_message_bytes=1024 * 1024,
    )
    method = Method(
        rpc="tollhouse.v1.GenerationService/GenerateContent",
        request_type=pb.GenerateContentRequest,
        handler=never,
        is_stream=False,
    )
    server = GrpcioServer(chain, [method], Settings(grpc_port=0))
    yield Listening(server, f"127.0.0.1:{await server.start()}")
    await server.stop(0)
    await database.close()


@contextmanager
def calls_that_wait(target: str, *, connections: int, each: int) -> Iterator[list[Any]]:
    """Send calls that a server in this loop cannot take before the loop runs again: nothing here awaits."""
    request = prompt("Hello")
    with ExitStack() as stack:
        channels = [
            stack.enter_context(grpc.insecure_channel(target, options=_OWN_CONNECTION)) for _ in range(connections)
        ]
        yield [
            GenerationServiceStub(channel).GenerateContent.future(request, timeout=60)
            for channel in channels
            for _ in range(each)
        ]


async def answers_to(sent: Iterable[Any]) -> Counter[tuple[str, str]]:
    """Wait for every refusal; count them by status and reason. What gRPC says by itself has no reason."""
    errors = await asyncio.to_thread(lambda: [call.exception() for call in sent])
    return Counter((error.code().name, reason_of(error) if from_call(error) else "") for error in errors)


async def test_thousands_of_calls_that_find_the_worker_busy_are_all_answered_by_it(listening: Listening) -> None:
    """None is cancelled by gRPC on its own account: each hears from the chain, here that it has no key."""
    with calls_that_wait(listening.target, connections=CONNECTIONS, each=CALLS_EACH) as sent:
        time.sleep(ARRIVAL_SECONDS)  # noqa: ASYNC251 - the worker is busy
        answers = await answers_to(sent)

    assert answers == {("UNAUTHENTICATED", "CREDENTIALS_INVALID"): CONNECTIONS * CALLS_EACH}


async def test_calls_that_wait_when_the_server_is_told_to_stop_hear_so(listening: Listening) -> None:
    """UNAVAILABLE, which callers try again elsewhere, and not CANCELLED, which nobody tries again."""
    with calls_that_wait(listening.target, connections=2, each=50) as sent:
        time.sleep(ARRIVAL_SECONDS)  # noqa: ASYNC251 - the worker is busy
        answers, _ = await asyncio.gather(answers_to(sent), listening.server.stop(10))

    assert answers == {("UNAVAILABLE", "SERVER_DRAINING"): 100}
