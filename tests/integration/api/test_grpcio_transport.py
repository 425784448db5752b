"""The gRPC server itself, in front of a real chain; nothing behind the chain is reached."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack

import grpc
import pytest
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


@pytest.fixture
async def target() -> AsyncIterator[str]:
    """host:port of a server that knows no key, and so asks no database."""
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
    port = await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(0)
    await database.close()


async def test_thousands_of_calls_that_find_the_worker_busy_are_all_answered_by_it(target: str) -> None:
    """None is cancelled by gRPC on its own account: each hears from the chain, here that it has no key."""
    request = prompt("Hello")
    with ExitStack() as stack:
        channels = [
            stack.enter_context(grpc.insecure_channel(target, options=_OWN_CONNECTION)) for _ in range(CONNECTIONS)
        ]
        # Nothing here awaits, so the server, which runs in this loop, takes no call until all have arrived.
        sent = [
            GenerationServiceStub(channel).GenerateContent.future(request, timeout=60)
            for channel in channels
            for _ in range(CALLS_EACH)
        ]
        time.sleep(ARRIVAL_SECONDS)  # noqa: ASYNC251 - the busy worker
        errors = await asyncio.to_thread(lambda: [call.exception() for call in sent])

    refusals = [error for error in errors if isinstance(error, grpc.RpcError)]
    assert Counter(error.code().name for error in refusals) == {"UNAUTHENTICATED": CONNECTIONS * CALLS_EACH}
    assert {reason_of(error) for error in refusals} == {"CREDENTIALS_INVALID"}
