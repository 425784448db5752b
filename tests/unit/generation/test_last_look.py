"""What a stream that is cut has brought already is counted before it is closed, also after a standstill."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import pytest
from tollhouse_server.generation.streaming import ChunkPipe, Passage

CHUNKS = 40


@pytest.fixture
def line() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection: the upstream's end and ours."""
    theirs, ours = socket.socketpair()
    with theirs, ours:
        yield theirs, ours


async def chunks_of(ours: socket.socket) -> AsyncIterator[Mapping[str, Any]]:
    """Yield the chunks that come over a connection, one a line."""
    reader, writer = await asyncio.open_connection(sock=ours)
    try:
        async for text in reader:
            yield json.loads(text)
    finally:
        writer.close()


def write(theirs: socket.socket, count: int, number: int = 0) -> None:
    """Write chunks to our end."""
    for at in range(number, number + count):
        theirs.sendall(json.dumps({"usageMetadata": {"candidatesTokenCount": 16 * (at + 1)}}).encode() + b"\n")


@pytest.mark.parametrize("seconds", [0.1, 0.6])
async def test_what_came_while_the_process_stood_still_is_counted(
    line: tuple[socket.socket, socket.socket], seconds: float
) -> None:
    """A last look that is over by the clock before a socket was read is none."""
    theirs, ours = line
    passage, chunks = Passage(ChunkPipe(), None), chunks_of(ours)
    write(theirs, 1)
    await anext(chunks)

    def stand_still() -> None:
        write(theirs, CHUNKS, 1)
        time.sleep(seconds)

    asyncio.get_running_loop().call_soon(stand_still)
    await passage.take_what_has_come(chunks)

    assert passage.progress.chunks == CHUNKS


@pytest.mark.parametrize("pause_seconds", [0.01, 0.001])
async def test_an_upstream_that_goes_on_writing_is_not_waited_for(
    line: tuple[socket.socket, socket.socket], pause_seconds: float
) -> None:
    """The last look ends although chunks still come, however fast: every one costs."""
    theirs, ours = line
    passage = Passage(ChunkPipe(), None)

    async def keep_writing() -> None:
        for number in range(5000):
            write(theirs, 1, number)
            await asyncio.sleep(pause_seconds)

    async with asyncio.TaskGroup() as group:
        upstream = group.create_task(keep_writing())
        await passage.take_what_has_come(chunks_of(ours))
        upstream.cancel()

    assert passage.progress.chunks < 1000
