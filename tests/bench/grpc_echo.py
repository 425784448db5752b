"""The least that a Python server of gRPC can do: grpc.aio and uvloop, any method, always the same answer.

`python -m tests.bench.grpc_echo` prints its port and serves until its standard input ends. What a governed call costs
stands beside what a call of this one costs in the same minute.
"""

import asyncio
import sys
from typing import Any

import grpc
import uvloop
from tollhouse.v1 import content_pb2, generation_pb2

_TEXT = "The bridge is 1,280 metres long between its towers and was opened to traffic in May. " * 15


def _answer() -> bytes:
    """Return an answer as long as the canned upstream's."""
    content = content_pb2.Content(role="model", parts=[content_pb2.Part(text=_TEXT)])
    candidate = content_pb2.Candidate(content=content)
    return generation_pb2.GenerateContentResponse(candidates=[candidate]).SerializeToString()


class _Anything(grpc.GenericRpcHandler):
    """Every method is the same one."""

    def __init__(self) -> None:
        answer = _answer()

        async def echo(_: bytes, __: Any) -> bytes:
            return answer

        self._handler: Any = grpc.unary_unary_rpc_method_handler(echo)

    def service(self, _: grpc.HandlerCallDetails) -> Any:
        return self._handler


async def _serve() -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Anything(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)  # noqa: T201 - the parent reads it
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(0)


if __name__ == "__main__":
    uvloop.run(_serve())
