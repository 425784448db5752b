"""The least that a Python server of gRPC can do: grpc.aio and uvloop, any method, always the same answer.

`python -m tests.bench.grpc_echo` prints its port and serves until its standard input ends. What a governed call costs
stands beside what a call of this one costs in the same minute. A call with the metadata `chunks` is answered by a
stream of so many messages as long as the canned upstream's, as far apart as there.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
import uvloop
from tollhouse.v1 import content_pb2, generation_pb2

_TEXT: Final = "The bridge is 1,280 metres long between its towers and was opened to traffic in May. "
_PAUSE_SECONDS: Final = 0.001
_CHUNKS: Final = "chunks"


def _answer(times: int) -> bytes:
    """Return an answer as long as the canned upstream's."""
    content = content_pb2.Content(role="model", parts=[content_pb2.Part(text=_TEXT * times)])
    candidate = content_pb2.Candidate(content=content)
    return generation_pb2.GenerateContentResponse(candidates=[candidate]).SerializeToString()


class _Anything(grpc.GenericRpcHandler):
    """Every method is the same one."""

    def __init__(self) -> None:
        answer, chunk = _answer(15), _answer(1)

        async def echo(_: bytes, __: Any) -> bytes:
            return answer

        async def stream(_: bytes, context: Any) -> AsyncIterator[bytes]:
            for _number in range(int(dict(context.invocation_metadata())[_CHUNKS])):
                yield chunk
                await asyncio.sleep(_PAUSE_SECONDS)

        self._unary: Any = grpc.unary_unary_rpc_method_handler(echo)
        self._stream: Any = grpc.unary_stream_rpc_method_handler(stream)

    def service(self, call: grpc.HandlerCallDetails) -> Any:
        return self._stream if _CHUNKS in dict(call.invocation_metadata or ()) else self._unary


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
