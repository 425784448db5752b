"""The pipe between a call and its RPC: order, backpressure, and what becomes of chunks when one of them leaves."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from tollhouse_server.errors import StoreLostMidStream
from tollhouse_server.generation import streaming
from tollhouse_server.generation.streaming import ChunkPipe

Chunk = Mapping[str, Any]


def chunk(number: int) -> Chunk:
    """Build a chunk that can be told from others."""
    return {"number": number}


async def everything(pipe: ChunkPipe) -> list[Chunk]:
    """Listen to the end."""
    return [one async for one in pipe.chunks()]


async def next_one(pipe: ChunkPipe) -> Chunk:
    """Listen for one chunk."""
    return await anext(aiter(pipe.chunks()))


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> ChunkPipe:
    """A pipe that is full with two chunks."""
    monkeypatch.setattr(streaming, "_CHUNKS_AHEAD", 2)
    return ChunkPipe()


@pytest.mark.parametrize("together", [1, 3])
async def test_a_listener_gets_all_chunks_in_their_order(pipe: ChunkPipe, together: int) -> None:
    """Whether he waits for each, or some come at once."""
    listening = asyncio.create_task(everything(pipe))

    for number in range(6):
        if number % together == 0:
            await asyncio.sleep(0)
        pipe.put(chunk(number))
    pipe.put(None)

    assert await listening == [chunk(number) for number in range(6)]


async def test_an_error_is_told_after_what_came_before_it(pipe: ChunkPipe) -> None:
    """What was heard is not taken back."""
    heard = []
    pipe.put(chunk(0))
    pipe.put(StoreLostMidStream(attempt_id="a", output_tokens=1))

    with pytest.raises(StoreLostMidStream):
        async for one in pipe.chunks():
            heard.append(one)

    assert heard == [chunk(0)]


async def test_there_is_room_again_when_a_slow_listener_has_taken_a_chunk(pipe: ChunkPipe) -> None:
    """Whoever writes waits until then, and no longer."""
    chunks = pipe.chunks()
    pipe.put(chunk(0))
    pipe.put(chunk(1))
    waiting = asyncio.create_task(pipe.has_room())
    await asyncio.sleep(0)
    was_waiting = not waiting.done()

    await anext(chunks)
    await asyncio.wait_for(waiting, 5)

    assert was_waiting
    assert not pipe.is_full


async def test_whoever_waits_for_a_listener_goes_on_when_he_leaves(pipe: ChunkPipe) -> None:
    """Nothing is kept for him any more."""
    pipe.put(chunk(0))
    pipe.put(chunk(1))
    waiting = asyncio.create_task(pipe.has_room())
    await asyncio.sleep(0)

    pipe.abandon()
    await asyncio.wait_for(waiting, 5)
    for number in range(9):
        pipe.put(chunk(number))

    assert not pipe.is_full


@pytest.mark.parametrize("is_waiting", [False, True])
async def test_a_cut_ends_the_chunks_without_those_that_nobody_has_taken(pipe: ChunkPipe, is_waiting: bool) -> None:
    """A shutdown waits for no listener, and leaves none waiting."""
    listening = asyncio.create_task(everything(pipe))
    if is_waiting:
        await asyncio.sleep(0)
    else:
        pipe.put(chunk(0))

    pipe.cut()

    assert await asyncio.wait_for(listening, 5) == []


async def test_a_listener_whose_wait_was_given_up_misses_nothing(pipe: ChunkPipe) -> None:
    """A chunk that comes after that is for whoever listens next."""
    given_up = asyncio.create_task(next_one(pipe))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.wait([given_up])

    pipe.put(chunk(0))

    assert await asyncio.wait_for(next_one(pipe), 5) == chunk(0)
