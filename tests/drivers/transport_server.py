"""A server with a transport of ours in a process of its own, and handlers that do what a prompt says.

Nobody is looked up: whoever brings any authorization, or a certificate, is let in.
"""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry
from tollhouse.v1 import content_pb2, generation_pb2
from tollhouse_server.api.call import Call
from tollhouse_server.api.chain import Arrival, Chain, Method
from tollhouse_server.api.transports import envoy_life
from tollhouse_server.api.transports.calls_under_way import CallUnderWay
from tollhouse_server.api.transports.grpcio import GrpcioServer
from tollhouse_server.background import background
from tollhouse_server.errors import CredentialsInvalid
from tollhouse_server.identity.principal import Principal
from tollhouse_server.names import invalid
from tollhouse_server.parent import say_ready
from tollhouse_server.settings import Settings
from tollhouse_server.telemetry.metrics import Metrics

from tests.drivers.stack import free_ports, inherited

SERVICE = "tollhouse.v1.GenerationService"
# Only what becomes Envoy: all else is loaded once it has become it.
_BECOME_ENVOY = f"""
import sys
from tollhouse_server.api.transports.envoy_process import become_envoy
from tollhouse_server.settings import load_settings
become_envoy(load_settings(), name="envoy", app="{__name__}:app", ready_fd=int(sys.argv[1]))
"""
_SERVE = f"""
import sys, uvloop
from {__name__} import serve
from tollhouse_server.settings import load_settings
uvloop.run(serve(load_settings(), int(sys.argv[1])))
"""


class OpenDoor:
    """A directory and an authorizer that let everybody in who shows anything."""

    version = 0

    async def authenticate(self, authorization: str | None, *, presented: Arrival, **_: object) -> Principal:
        names = presented.certificate()
        if authorization is None and not names:
            raise CredentialsInvalid
        return Principal(
            tenant_id="acme",
            principal_id=names[0] if names else "key",
            credential_id="k1",
            credential_name="tenants/acme/departments/vision/projects/labels/apiKeys/k1",
            project_id="labels",
            department_ids=("vision",),
            environment="live",
        )

    async def authorize(self, *_: object) -> None:
        """Let him."""


@dataclass(slots=True)
class Handlers:
    """What prompts can ask for."""

    ended: list[str] = field(default_factory=list)

    async def unary(self, request: generation_pb2.GenerateContentRequest, call: Call) -> Any:
        """Answer with what was asked: the first word says what, the others how."""
        word, *rest = (text := request.contents[0].parts[0].text).split(" ", 2)
        match word:
            case "who":
                left = call.deadline - time.monotonic()
                return answer(
                    f"{call.principal.principal_id}|{call.peer}|{call.user_agent}|{call.forwarded_for}|{left}"
                )
            case "wait":
                try:
                    await asyncio.sleep(60)
                finally:
                    self.ended.append(rest[0])
            case "sleep":
                await asyncio.sleep(float(rest[0]))
            case "answer":
                return answer("x" * int(rest[0]))
            case "refuse":
                raise invalid("", " ".join(rest))
            case "crash":
                raise ZeroDivisionError
            case "cancel":
                raise asyncio.CancelledError
            case "kept":
                gc.collect()
                return answer(str(sum(isinstance(one, CallUnderWay) for one in gc.get_objects())))
            case "ended":
                return answer(" ".join(self.ended))
        return answer(text)

    async def stream(self, request: generation_pb2.GenerateContentRequest, _: Call) -> AsyncIterator[Any]:
        """Answer so many times, and then fail, wait or end."""
        count, then, name = request.contents[0].parts[0].text.split(" ")
        try:
            for number in range(int(count)):
                yield answer(str(number))
            if then == "fail":
                raise CredentialsInvalid
            if then == "wait":
                await asyncio.sleep(60)
        except GeneratorExit:
            self.ended.append(f"cut-{name}")
            raise
        finally:
            self.ended.append(name)


def answer(text: str) -> generation_pb2.GenerateContentResponse:
    """Return an answer with this text."""
    content = content_pb2.Content(role="model", parts=[content_pb2.Part(text=text)])
    return generation_pb2.GenerateContentResponse(candidates=[content_pb2.Candidate(content=content)])


@dataclass(frozen=True, slots=True)
class Served:
    """What serves."""

    server: Any

    async def drain(self, seconds: float) -> None:
        """Stop."""
        await self.server.stop(seconds)


@asynccontextmanager
async def opened(settings: Settings, build: Callable[..., Any] = GrpcioServer) -> AsyncIterator[Served]:
    """Serve the handlers behind a real chain."""
    handlers, door, metrics = Handlers(), OpenDoor(), Metrics(CollectorRegistry())
    chain = Chain(
        directory=door,  # type: ignore[arg-type]
        authorizer=door,  # type: ignore[arg-type]
        metrics=metrics,
        default_deadline_seconds=30,
        max_message_bytes=settings.max_message_bytes,
    )
    kinds: dict[str, tuple[Any, bool]] = {
        "GenerateContent": (handlers.unary, False),
        "StreamGenerateContent": (handlers.stream, True),
    }
    methods = [
        Method(
            rpc=f"{SERVICE}/{name}",
            request_type=generation_pb2.GenerateContentRequest,
            handler=handler,
            is_stream=is_stream,
        )
        for name, (handler, is_stream) in kinds.items()
    ]
    async with background() as tasks:
        server = build(chain, methods, settings, metrics)
        server.run_in(tasks)
        await server.start()
        yield Served(server)


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Be the application that Envoy loads."""
    await envoy_life.run(opened, scope, receive, send)


async def serve(settings: Settings, ready_fd: int) -> None:
    """Serve until SIGTERM, as a worker does."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with opened(settings) as served:
        say_ready(ready_fd)
        await stop.wait()
        await served.drain(settings.drain_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A process that serves. `mtls_port` is where it asks for certificates, if it was told to."""

    process: subprocess.Popen[bytes]
    port: int
    mtls_port: int

    @property
    def target(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"


@contextmanager
def running(transport: str, *, count: int = 1, with_mtls: bool = False, **settings: Any) -> Iterator[list[Running]]:
    """Run processes that share a port; `settings` are the server's."""
    port, mtls_port = free_ports(2)
    settings = {"transport": transport, "grpc_port": port, "drain_seconds": 5, **settings}
    if with_mtls:
        settings["mtls_port"] = mtls_port
    started: list[Running] = []
    try:
        for _ in range(count):
            process = _start({f"TOLLHOUSE_{name.upper()}": str(value) for name, value in settings.items()})
            started.append(Running(process=process, port=port, mtls_port=mtls_port))
        yield started
    finally:
        for one in started:
            one.process.terminate()
        for one in started:
            one.process.wait(20)


def _start(settings: Mapping[str, str]) -> subprocess.Popen[bytes]:
    readable, writable = os.pipe()
    environment = {**inherited(), "PYTHONPATH": os.pathsep.join(sys.path), "TOLLHOUSE_LOG_LEVEL": "error", **settings}
    with os.fdopen(readable, "rb") as pipe:
        program = _BECOME_ENVOY if settings["TOLLHOUSE_TRANSPORT"] == "envoy" else _SERVE
        command = [sys.executable, "-c", program, str(writable)]
        process = subprocess.Popen(command, env=environment, pass_fds=(writable,))
        os.close(writable)
        if not pipe.read(1):
            process.wait()
            raise AssertionError("the server did not start")
    return process
