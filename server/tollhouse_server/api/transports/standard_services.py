"""The services that every gRPC server has, for a transport without grpc's own server: health and reflection."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection
from typing import Any, TypeAlias

from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2, status_pb2
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from tollhouse_server.api.chain import CallFailed

Bodies: TypeAlias = AsyncIterator[bytes]
Messages: TypeAlias = AsyncIterator[Message]


class StandardServices:
    """Health as `grpc.health.v1` has it, and reflection if it is asked for."""

    def __init__(self, services: Collection[str], *, with_reflection: bool) -> None:
        self._watched = {"", *services}
        self._stopping = asyncio.Event()
        self._is_serving = False
        self._rpcs: dict[str, Callable[[Bodies], Messages]] = {
            f"/{health.SERVICE_NAME}/Check": self._check,
            f"/{health.SERVICE_NAME}/Watch": self._watch,
        }
        if with_reflection:
            names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
            self._reflection: Any = reflection.aio.ReflectionServicer(names)
            self._rpcs[f"/{reflection.SERVICE_NAME}/ServerReflectionInfo"] = self._reflect

    def start(self) -> None:
        """Say that all services are healthy."""
        self._is_serving = True

    def stop(self) -> None:
        """Say that none is, and end what is being watched."""
        self._is_serving = False
        self._stopping.set()

    async def answers(self, path: str, requests: Bodies) -> AsyncGenerator[bytes, None]:
        """Yield the answers of an RPC.

        Raises:
            CallFailed: there is no such RPC or no such service, or a message is not what it should be.
        """
        rpc = self._rpcs.get(path)
        if rpc is None:
            raise _failed(code_pb2.UNIMPLEMENTED, "Method not found!")
        try:
            async for answer in rpc(requests):
                yield answer.SerializeToString()
        except DecodeError:
            raise _failed(code_pb2.INVALID_ARGUMENT, "the message is not the RPC's") from None

    def _status(self, service: str) -> Any:
        if service not in self._watched:
            return health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
        return serving if self._is_serving else not_serving

    async def _check(self, requests: Bodies) -> Messages:
        async for body in requests:
            status = self._status(health_pb2.HealthCheckRequest.FromString(body).service)
            if status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN:
                raise _failed(code_pb2.NOT_FOUND, "no such service")
            yield health_pb2.HealthCheckResponse(status=status)
            return

    async def _watch(self, requests: Bodies) -> Messages:
        async for body in requests:
            service = health_pb2.HealthCheckRequest.FromString(body).service
            yield health_pb2.HealthCheckResponse(status=self._status(service))
            await self._stopping.wait()
            yield health_pb2.HealthCheckResponse(status=self._status(service))
            return

    async def _reflect(self, requests: Bodies) -> Messages:
        async def questions() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
            async for body in requests:
                yield reflection_pb2.ServerReflectionRequest.FromString(body)

        async for answer in self._reflection.ServerReflectionInfo(questions(), None):
            yield answer


def _failed(code: int, message: str) -> CallFailed:
    return CallFailed(status_pb2.Status(code=code, message=message))
