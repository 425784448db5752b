"""Bodies of answers from others."""

import asyncio
from types import SimpleNamespace
from typing import Any

from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol
from tollhouse_server.http_bodies import body_of


def coming() -> tuple[Any, StreamReader]:
    """An answer, and where its body arrives."""
    loop = asyncio.get_running_loop()
    protocol = BaseProtocol(loop)
    protocol.connection_made(asyncio.Transport())
    arriving = StreamReader(protocol, 2**16, loop=loop)
    return SimpleNamespace(content=arriving), arriving


async def test_a_body_that_comes_in_parts_is_read_to_its_end() -> None:
    """A read returns what has arrived, which is seldom all."""
    answer, arriving = coming()
    reading = asyncio.create_task(body_of(answer, most_bytes=100))
    for part in (b'{"sealed":', b" false", b"}"):
        await asyncio.sleep(0)
        arriving.feed_data(part)
    await asyncio.sleep(0)
    arriving.feed_eof()

    assert await reading == b'{"sealed": false}'


async def test_a_body_without_an_end_is_cut_off() -> None:
    """Nobody fills our memory."""
    answer, arriving = coming()
    arriving.feed_data(b"x" * 70)
    arriving.feed_data(b"x" * 70)

    assert await body_of(answer, most_bytes=100) == b"x" * 100
