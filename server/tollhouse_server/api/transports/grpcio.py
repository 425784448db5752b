"""The reference transport: grpc.aio. Only here and in what it takes is grpc imported."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import grpc
from google.rpc import status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status

from tollhouse_server.api.chain import Arrival, CallFailed, Chain, Method
from tollhouse_server.api.transports.tls import Certificates, Holders, files_of
from tollhouse_server.background import Background
from tollhouse_server.settings import Settings
from tollhouse_server.telemetry.metrics import Metrics

_CORRELATION_ID = "x-tollhouse-correlation-id"
_KEEPALIVE_MILLISECONDS = 30_000
# Above our own limit, so that a message a little too large gets our error, which names both sizes.
_MESSAGE_HEADROOM_BYTES = 1024 * 1024
# How many calls may arrive while this process is busy. Above gRPC's own bounds (1,000 and 3,000) it ends first some,
# then all of them as CANCELLED, without a word to us, and a caller takes that for his own doing. A call that waits
# takes some 16 kB, besides its message: so many take a few hundred MB, and ten seconds of one core.
_MAX_WAITING_CALLS = 20_000
_WAITING_CALLS_HARD_LIMIT = 40_000
# When it stops, gRPC ends as CANCELLED what it has not yet handed to us, and what comes before its callers hear of it.
# For so long we go on taking calls and say UNAVAILABLE: to those that wait here, and to callers who then keep away.
_NOTICE_SECONDS = 0.5


class GrpcioServer:
    """A grpc.aio server that shares its ports with the other workers (SO_REUSEPORT).

    With a certificate it takes TLS only. gRPC for Python cannot ask for a client's certificate and do without, so
    clients that have one may have a port of their own beside.
    """

    def __init__(
        self, chain: Chain, methods: Iterable[Method], settings: Settings, metrics: Metrics | None = None
    ) -> None:
        """Build the server.

        Raises:
            InvalidRequest: the certificate's files cannot be used.
        """
        self._chain = chain
        self._settings = settings
        self._certificates = _certificates(settings, metrics)
        self._holders = Holders()
        self._health = health.aio.HealthServicer()
        self._services = _by_service(methods)
        self._server = grpc.aio.server(options=_options(settings))
        for service, of_service in self._services.items():
            handlers = {method.rpc.rsplit("/", 1)[1]: self._rpc_handler(method) for method in of_service}
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if settings.reflection:
            names = (*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._server)
        self.mtls_port: int | None = None

    def run_in(self, tasks: Background) -> None:
        """Follow the files of the certificate."""
        if self._certificates is not None:
            tasks.keep(self._certificates.run)

    async def start(self) -> int:
        """Listen and say that all services are healthy; return the port."""
        port = self._listen()
        await self._server.start()
        for service in ("", *self._services):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        return port

    async def stop(self, grace_seconds: float) -> None:
        """Refuse new calls, say so to health checks, and let those under way end within `grace_seconds`."""
        self._chain.is_draining = True
        await self._health.enter_graceful_shutdown()
        notice_seconds = min(_NOTICE_SECONDS, grace_seconds)
        await asyncio.sleep(notice_seconds)
        await self._server.stop(grace_seconds - notice_seconds)

    def _listen(self) -> int:
        host, settings = self._settings.bind_address, self._settings
        address = f"{host}:{settings.grpc_port}"
        if self._certificates is None:
            return self._server.add_insecure_port(address)
        if settings.mtls_port is not None:
            clients = self._certificates.credentials(requires_client=True)
            self.mtls_port = self._server.add_secure_port(f"{host}:{settings.mtls_port}", clients)
        anyone = self._certificates.credentials(requires_client=settings.tls_client_auth == "required")
        return self._server.add_secure_port(address, anyone)

    def _rpc_handler(self, method: Method) -> Any:
        # On the wire it is all the same; but what these read themselves gRPC does not hold on to until the call ends.
        if method.is_stream:
            return grpc.stream_stream_rpc_method_handler(self._stream_of(method), None, _serialized)
        return grpc.stream_unary_rpc_method_handler(self._unary_of(method), None, _serialized)

    def _unary_of(self, method: Method) -> Any:
        async def serve(_: object, context: "grpc.aio.ServicerContext[Any, Any]") -> Any:
            arrival = self._arrival(await _only_message(context), context)
            try:
                answer = await self._chain.unary(method, arrival)
            except CallFailed as failed:
                await context.abort_with_status(_grpc_status(failed.status, arrival))
            context.set_trailing_metadata(_trailer(arrival))
            return answer

        return serve

    def _stream_of(self, method: Method) -> Any:
        async def serve(_: object, context: "grpc.aio.ServicerContext[Any, Any]") -> AsyncIterator[Any]:
            arrival = self._arrival(await _only_message(context), context)
            try:
                async for message in self._chain.stream(method, arrival):
                    yield message
            except CallFailed as failed:
                await context.abort_with_status(_grpc_status(failed.status, arrival))
            context.set_trailing_metadata(_trailer(arrival))

        return serve

    def _arrival(self, body: bytes, context: "grpc.aio.ServicerContext[Any, Any]") -> Arrival:
        metadata = {
            str(key).lower(): value for key, value in context.invocation_metadata() or () if isinstance(value, str)
        }
        remaining = context.time_remaining()
        return Arrival(
            body=body,
            metadata=metadata,
            deadline=None if remaining is None else time.monotonic() + remaining,
            peer=context.peer(),
            certificate=lambda: self._holders.names(context.auth_context()),
        )


async def _only_message(context: "grpc.aio.ServicerContext[Any, Any]") -> bytes:
    body: Any = await context.read()
    if body is grpc.aio.EOF:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the call has no message")
    return bytes(body)


def _by_service(methods: Iterable[Method]) -> Mapping[str, list[Method]]:
    services: dict[str, list[Method]] = {}
    for method in methods:
        services.setdefault(method.rpc.rsplit("/", 1)[0], []).append(method)
    return services


def _options(settings: Settings) -> list[tuple[str, Any]]:
    size = settings.max_message_bytes + _MESSAGE_HEADROOM_BYTES
    return [
        ("grpc.so_reuseport", 1),
        ("grpc.max_receive_message_length", size),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", settings.max_metadata_bytes),
        ("grpc.max_concurrent_streams", settings.max_concurrent_streams),
        ("grpc.server.max_pending_requests", _MAX_WAITING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", _WAITING_CALLS_HARD_LIMIT),
        ("grpc.keepalive_time_ms", _KEEPALIVE_MILLISECONDS),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", _KEEPALIVE_MILLISECONDS // 3),
    ]


def _certificates(settings: Settings, metrics: Metrics | None) -> Certificates | None:
    files = files_of(settings)
    return None if files is None else Certificates(files, metrics)


def _grpc_status(status: status_pb2.Status, arrival: Arrival) -> Any:
    made: Any = rpc_status.to_status(status)
    return made._replace(trailing_metadata=(*made.trailing_metadata, *_trailer(arrival)))


def _trailer(arrival: Arrival) -> tuple[tuple[str, str], ...]:
    """Return what every caller is told at the end: by what name operators know his call."""
    return ((_CORRELATION_ID, arrival.correlation_id),)


def _serialized(message: Any) -> bytes:
    serialized: bytes = message.SerializeToString()
    return serialized
