"""A real gRPC server with canned answers: what the command line sends is recorded, what it gets is up to the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import any_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2


@dataclass(frozen=True, slots=True)
class Refusal(Exception):
    """Makes the server answer with a status and its details."""

    code: grpc.StatusCode
    message: str
    details: tuple[Message, ...] = ()


def refusal(code: grpc.StatusCode, reason: str, message: str, *details: Message) -> Refusal:
    """A refusal as the real server makes it, with an ErrorInfo."""
    return Refusal(code, message, (error_details_pb2.ErrorInfo(reason=reason, domain="tollhouse"), *details))


@dataclass(frozen=True, slots=True)
class Received:
    """One call as it came in."""

    method: str
    request: Any
    metadata: dict[str, str]
    seconds_left: float | None


Answer = Message | Refusal | list[Any] | Callable[[Any], Any]


@dataclass(slots=True)
class CannedServer(grpc.GenericRpcHandler):
    """Answers by method name (`CreateTenant`); a method without an answer is UNIMPLEMENTED.

    An answer is a message, a list of them for a stream or for page after page, a refusal, or a function of the request.
    """

    answers: dict[str, Answer] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)
    target: str = ""

    @property
    def last(self) -> Received:
        """The newest call."""
        return self.received[-1]

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Route a call by the descriptor of its method."""
        service, name = details.method.removeprefix("/").split("/")
        method = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
        if name not in self.answers:
            return None
        deserialize = message_factory.GetMessageClass(method.input_type).FromString
        metadata = {item[0]: str(item[1]) for item in details.invocation_metadata}
        if method.server_streaming:

            def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Message]:
                yield from self._pieces(name, request, metadata, context)

            return grpc.unary_stream_rpc_method_handler(stream, deserialize, serialize)

        def unary(request: Any, context: grpc.ServicerContext) -> Message:
            return self._answer(name, request, metadata, context)

        return grpc.unary_unary_rpc_method_handler(unary, deserialize, serialize)

    def _pieces(
        self, name: str, request: Any, metadata: dict[str, str], context: grpc.ServicerContext
    ) -> Iterator[Message]:
        self.received.append(Received(name, request, metadata, context.time_remaining()))
        answer = self.answers[name]
        for piece in answer(request) if callable(answer) else answer:  # type: ignore[union-attr]
            if isinstance(piece, Refusal):
                abort(context, piece)
            yield piece

    def _answer(self, name: str, request: Any, metadata: dict[str, str], context: grpc.ServicerContext) -> Message:
        self.received.append(Received(name, request, metadata, context.time_remaining()))
        answer = self.answers[name]
        if isinstance(answer, list):
            answer = answer[sum(call.method == name for call in self.received) - 1]
        if isinstance(answer, Refusal):
            abort(context, answer)
        return answer(request) if callable(answer) else answer  # type: ignore[return-value]


def serialize(message: Message) -> bytes:
    """Bytes of a message."""
    return message.SerializeToString()


def abort(context: grpc.ServicerContext, refused: Refusal) -> None:
    """End the call with the status and details of `refused`."""
    packed = []
    for detail in refused.details:
        wrapped = any_pb2.Any()
        wrapped.Pack(detail)
        packed.append(wrapped)
    status = status_pb2.Status(code=refused.code.value[0], message=refused.message, details=packed)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(refused.code, refused.message)


@contextmanager
def canned_server(credentials: grpc.ServerCredentials | None = None) -> Iterator[CannedServer]:
    """Serve on a free loopback port, with TLS where there are credentials."""
    canned = CannedServer()
    server = grpc.server(ThreadPoolExecutor(max_workers=4), handlers=[canned])
    address = "127.0.0.1:0"
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    canned.target = f"127.0.0.1:{port}"
    server.start()
    try:
        yield canned
    finally:
        server.stop(grace=None).wait()
