"""A process that serves streams with everything around them answering at once: `python -m tests.bench.stream_load
[chunks [together]]`.

Prints microseconds of processor time for each chunk, from the upstream's bytes to those of the message; the network,
the ledger and the RPC are canned. `together` chunks come in one piece. Made for profilers, too.
"""

import asyncio
import sys
import time
from typing import Any, Final
from unittest.mock import patch

import uvloop
from tollhouse.v1.generation_pb2 import GenerateContentResponse
from tollhouse_server.api.gemini_json import Mapper
from tollhouse_server.garbage_collection import tune_garbage_collection
from tollhouse_server.generation.calls import Answer
from tollhouse_server.generation.streaming import Streaming
from tollhouse_server.telemetry.steps import CallNotes, noting
from tollhouse_server.telemetry.tracecontext import trace_context
from tollhouse_server.upstream import http
from tollhouse_server.upstream.connection import Connection
from tollhouse_server.upstream.protocol import Method

from tests.bench.canned_gemini import STREAM_HEAD, STREAM_PIECE
from tests.bench.generation_load import ServerAtOnce, call_now, generation_at_once

LISTENERS: Final = 16
STREAMS: Final = 10
ROUNDS: Final = 5


class _StreamAtOnce(ServerAtOnce):
    """The other end of a connection, which says the next pieces each time the event loop turns."""

    def __init__(self, connection: Connection, chunks: int, together: int) -> None:
        super().__init__(connection)
        self._chunks, self._together = chunks, together

    def write(self, _request: Any) -> None:
        self._say(STREAM_HEAD)
        asyncio.get_running_loop().call_soon(self._go_on, self._chunks)

    def _go_on(self, left: int) -> None:
        if left <= 0:
            self._say(b"0\r\n\r\n")
            return
        self._say(STREAM_PIECE * min(left, self._together))
        asyncio.get_running_loop().call_soon(self._go_on, left - self._together)

    def _say(self, said: bytes) -> None:
        self._connection.data_received(said)

    def pause_reading(self) -> None:
        raise AssertionError("the listener keeps up")


async def _listen(streaming: Streaming, mapper: Mapper) -> int:
    """Listen to one stream as the API's handler does; return how many bytes its messages have."""
    size = 0
    with noting(CallNotes("GenerationService.StreamGenerateContent", trace_context({}), "x")):
        async for item in streaming.stream(call_now()._replace(method=Method.STREAM)):
            if not isinstance(item, Answer):
                size += len(mapper.to_message(dict(item), GenerateContentResponse).SerializeToString())
    return size


async def _micros_of(streaming: Streaming, streams: int) -> float:
    """Return the processor time of one stream in microseconds, the least of several rounds."""
    mapper, found = Mapper(), []

    async def listener() -> None:
        for _ in range(streams):
            assert await _listen(streaming, mapper)

    for _ in range(ROUNDS):
        started_at = time.process_time()
        await asyncio.gather(*(listener() for _ in range(LISTENERS)))
        found.append((time.process_time() - started_at) / (streams * LISTENERS) * 1e6)
    return min(found)


async def main(chunks: int, together: int) -> None:
    """Measure long streams and short ones; the difference is the chunks'."""
    taken, few = {}, 10
    for count in (few, few + chunks):

        async def dialled(*_: Any, count: int = count) -> Connection:
            connection = Connection()
            connection.connection_made(_StreamAtOnce(connection, count, together))
            return connection

        with patch.object(http, "dial", dialled):
            async with asyncio.TaskGroup() as group:
                streaming = Streaming(await generation_at_once(group))
                tune_garbage_collection()
                taken[count] = await _micros_of(streaming, STREAMS)
    sys.stdout.write(f"a chunk {(taken[few + chunks] - taken[few]) / chunks:7.1f} us, {together} at once\n")


if __name__ == "__main__":
    uvloop.run(main(int((sys.argv[1:] or ["200"])[0]), int((sys.argv[2:] or ["1"])[0])))
