"""gRPC inside Envoy: it speaks HTTP/2 and TLS, and hands each call over by ASGI (pyvoy); from there it is ours.

The calls and everything beside them run in one loop, in a thread of Envoy's process (`envoy_process`).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from contextlib import aclosing
from functools import partial
from typing import Any, Final, TypeAlias

import structlog
from google.rpc import code_pb2, status_pb2

from tollhouse_server.api.chain import Arrival, CallFailed, Chain, Method
from tollhouse_server.api.transports.calls_under_way import CallsUnderWay, CallUnderWay, Ending
from tollhouse_server.api.transports.envoy_process import Envoy
from tollhouse_server.api.transports.framing import (
    ENCODINGS,
    HungUp,
    Pairs,
    Receive,
    framed,
    messages,
    only_message,
    status_pairs,
    timeout_seconds,
)
from tollhouse_server.api.transports.peers import CERTIFICATE_HEADER, PEER_HEADER, Peers, peer_of
from tollhouse_server.api.transports.standard_services import StandardServices
from tollhouse_server.api.transports.tls import Certificates, files_of
from tollhouse_server.background import Background
from tollhouse_server.errors import RequestTooLarge, TollhouseError
from tollhouse_server.settings import Settings
from tollhouse_server.telemetry.metrics import Metrics

Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]
Scope: TypeAlias = MutableMapping[str, Any]

_log = structlog.get_logger(__name__)

_CORRELATION_ID: Final = b"x-tollhouse-correlation-id"
_HEADERS: Final = [(b"content-type", b"application/grpc")]
_HEAD: Final = {"type": "http.response.start", "status": 200, "headers": _HEADERS, "trailers": True}
_OK: Final = (b"grpc-status", b"0")
# What HTTP/2 counts for each field beside its name and value (RFC 9113, 6.5.2).
_FIELD_BYTES: Final = 32
# For so long calls that come late hear that the server stops, before nobody can reach it.
_NOTICE_SECONDS: Final = 0.5
_SAID: Final[Mapping[Ending | None, status_pb2.Status]] = {
    None: status_pb2.Status(code=code_pb2.CANCELLED, message="The call was cancelled by the server."),
    Ending.DEADLINE: status_pb2.Status(code=code_pb2.DEADLINE_EXCEEDED, message="Deadline Exceeded"),
    Ending.DRAINED: status_pb2.Status(code=code_pb2.UNAVAILABLE, message="The server stops."),
}


class EnvoyServer:
    """Serves the calls that Envoy hands over, and the standard services."""

    def __init__(
        self, chain: Chain, methods: Iterable[Method], settings: Settings, metrics: Metrics | None, *, envoy: Envoy
    ) -> None:
        """Build the server.

        Raises:
            InvalidRequest: the certificate's files cannot be used.
        """
        self._chain = chain
        self._settings = settings
        self._envoy = envoy
        self._methods = {f"/{method.rpc}": method for method in methods}
        self._calls = CallsUnderWay()
        self._peers = Peers()
        services = {path.split("/")[1] for path in self._methods}
        self._standard = StandardServices(services, with_reflection=settings.reflection)
        files = files_of(settings)
        self._certificates = None if files is None else Certificates(files, metrics, tell=envoy.put)

    def run_in(self, tasks: Background) -> None:
        """Look for callers that have hung up, and follow the files of the certificate."""
        tasks.keep(self._calls.look_for_hangups)
        if self._certificates is not None:
            tasks.keep(self._certificates.run)

    async def start(self) -> int:
        """Say that all services are healthy; return the port, at which Envoy listens a moment later."""
        self._standard.start()
        return self._settings.grpc_port

    async def stop(self, grace_seconds: float) -> None:
        """Refuse new calls, say so to health checks, and let those under way end within `grace_seconds`."""
        ends_at = time.monotonic() + grace_seconds
        self._chain.is_draining = True
        self._standard.stop()
        await asyncio.sleep(min(_NOTICE_SECONDS, grace_seconds))
        await self._envoy.close_listeners()
        await self._calls.end(ends_at - time.monotonic())

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call. Nothing is raised: of an error Envoy would tell the caller in a way that is not gRPC's."""
        call = self._calls.begin(receive)
        try:
            ended = await self._serve(scope, call, send)
        except HungUp:
            return
        except CallFailed as failed:
            ended = status_pairs(failed.status)
        except asyncio.CancelledError:
            # Nobody cancels what Envoy has started: it was one of us, or something that the handler waited for.
            if call.ending is Ending.HUNG_UP:
                return
            ended = status_pairs(_SAID[call.ending])
        except Exception:  # noqa: BLE001 - nobody is above us but Envoy
            _log.exception("transport_failed", path=scope["path"])
            ended = status_pairs(status_pb2.Status(code=code_pb2.INTERNAL))
        finally:
            self._calls.done(call)
        await _end(call, send, ended)

    async def _serve(self, scope: Scope, call: CallUnderWay, send: Send) -> Pairs:
        method = self._methods.get(scope["path"])
        if method is None:
            return await self._serve_standard(scope, call, send)
        arrival = self._arrival(scope)
        # The arrival has what they say; a stream would keep both, 2 kB, for as long as it lasts.
        scope["headers"] = ()
        if arrival.metadata.get("grpc-encoding", "identity") not in ENCODINGS:
            known = (b"grpc-accept-encoding", ",".join(ENCODINGS).encode())
            return [
                *status_pairs(status_pb2.Status(code=code_pb2.UNIMPLEMENTED, message="unknown grpc-encoding")),
                known,
            ]
        if arrival.deadline is not None:
            call.end_at(arrival.deadline)
        if arrival.fault is None:
            await self._read(arrival, call)
        call.is_read = True
        try:
            await (self._stream if method.is_stream else self._unary)(method, arrival, call, send)
        except CallFailed as failed:
            return [*status_pairs(failed.status), _correlation(arrival)]
        return [_OK, _correlation(arrival)]

    async def _read(self, arrival: Arrival, call: CallUnderWay) -> None:
        encoding, limit_bytes = arrival.metadata.get("grpc-encoding", "identity"), self._settings.max_message_bytes
        try:
            arrival.body = await only_message(call.read, encoding=encoding, limit_bytes=limit_bytes)
        except TollhouseError as error:
            arrival.fault = error

    async def _unary(self, method: Method, arrival: Arrival, call: CallUnderWay, send: Send) -> None:
        answer = await self._chain.unary(method, arrival)
        call.let_go()
        call.has_begun = call.is_answered = True
        await send(_HEAD)
        await send({"type": "http.response.body", "body": framed(answer.SerializeToString()), "more_body": False})

    async def _stream(self, method: Method, arrival: Arrival, call: CallUnderWay, send: Send) -> None:
        async for answer in self._chain.stream(method, arrival):
            await _send_one_of_many(call, send, answer.SerializeToString())

    async def _serve_standard(self, scope: Scope, call: CallUnderWay, send: Send) -> Pairs:
        requests = messages(call.read, encoding="gzip", limit_bytes=self._settings.max_message_bytes)
        # What is asked may come bit by bit; only what has come whole is asked whether it was given up.
        call.is_read = scope["path"] == "/grpc.health.v1.Health/Watch"
        async with aclosing(self._standard.answers(scope["path"], requests)) as answers:
            async for answer in answers:
                await _send_one_of_many(call, send, answer)
        return [_OK]

    def _arrival(self, scope: Scope) -> Arrival:
        metadata, size_bytes = {}, 0
        for name, value in scope["headers"]:
            size_bytes += len(name) + len(value) + _FIELD_BYTES
            metadata[name.decode("latin-1")] = value.decode("latin-1")
        shown = metadata.pop(CERTIFICATE_HEADER, "")
        arrival = Arrival(
            body=b"",
            metadata=metadata,
            deadline=None,
            peer=peer_of(metadata.pop(PEER_HEADER)),
            certificate=partial(self._peers.names_of, shown),
        )
        if size_bytes - len(shown) > (limit_bytes := self._settings.max_metadata_bytes):
            size_bytes -= len(shown)
            arrival.fault = RequestTooLarge(size_bytes=size_bytes, limit_bytes=limit_bytes, part="metadata")
        try:
            if timeout := metadata.get("grpc-timeout"):
                arrival.deadline = time.monotonic() + timeout_seconds(timeout)
        except TollhouseError as error:
            arrival.fault = error
        return arrival


async def _send_one_of_many(call: CallUnderWay, send: Send, message: bytes) -> None:
    """Send a message, as fast as it is taken.

    Raises:
        HungUp: nobody takes it.
    """
    if not call.has_begun:
        call.has_begun = True
        await send(_HEAD)
    try:
        await send({"type": "http.response.body", "body": framed(message), "more_body": True})
    except OSError as error:
        # pyvoy (1.3) raises one object for all: each time it would hold on to the frames of one call more, for ever.
        error.__traceback__ = None
        raise HungUp from None


async def _end(call: CallUnderWay, send: Send, ended: Pairs) -> None:
    """Say how the call ended: in trailers, or, where nothing was said yet, in headers that are all there is."""
    try:
        if not call.has_begun:
            headers = [*_HEADERS, *ended]
            await send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": False})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        if not call.is_answered:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        await send({"type": "http.response.trailers", "headers": ended})
    except OSError:
        # He has hung up meanwhile, and there is nobody to tell.
        return


def _correlation(arrival: Arrival) -> tuple[bytes, bytes]:
    return (_CORRELATION_ID, arrival.correlation_id.encode())
