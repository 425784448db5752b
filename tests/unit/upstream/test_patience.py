"""How long the transport waits, and for whom: silence, slow readers, large requests, callers who leave."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from tollhouse_server.upstream.http import Transport, open_transport
from tollhouse_server.upstream.protocol import Broken

from tests.drivers.exchanges import ask, exchange
from tests.drivers.wire import Wire, answer, answering, serving

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n"


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    """The pools of one process."""
    async with open_transport() as transport:
        yield transport


@pytest.mark.parametrize("said", [b"", HEAD, HEAD + b"half"], ids=["nothing", "head", "half"])
async def test_silence_is_broken(transport: Transport, said: bytes) -> None:
    """A server that has stopped talking is given up long before the deadline."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.say(said)
        await wire.reader.read()

    async with serving(script) as server:
        started_at = asyncio.get_running_loop().time()
        with pytest.raises(Broken, match=r"silent for 0\.2 s"):
            await ask(transport, server.url, silence_seconds=0.2)

    assert asyncio.get_running_loop().time() - started_at < 2.0


async def test_who_talks_slowly_is_not_silent_but_must_end_in_time(transport: Transport) -> None:
    """The bound on silence starts anew with each byte, the bound on the whole exchange does not."""

    async def script(wire: Wire) -> None:
        while await wire.request():
            await wire.say(HEAD)
            for _ in range(10):
                await asyncio.sleep(0.05)
                await wire.say(b".")

    async with serving(script) as server:
        assert await ask(transport, server.url, silence_seconds=0.4) == b".........."
        with pytest.raises(Broken, match=r"within 0\.2 s"):
            await ask(transport, server.url, timeout_seconds=0.2)


async def test_each_exchange_of_a_connection_has_its_own_time(transport: Transport) -> None:
    """The timer of a short exchange does not end the next one early, that of a long one does not let it go on."""

    async def script(wire: Wire) -> None:
        for _ in range(2):
            await wire.request()
            await wire.say(answer(b"soon"))
        await wire.request()
        await asyncio.sleep(0.2)
        await wire.say(answer(b"late"))
        await wire.request()
        await wire.reader.read()

    async with serving(script) as server:
        assert await ask(transport, server.url, timeout_seconds=5.0) == b"soon"
        assert await ask(transport, server.url, timeout_seconds=0.1) == b"soon"
        assert await ask(transport, server.url, timeout_seconds=5.0) == b"late"
        with pytest.raises(Broken, match=r"within 0\.3 s"):
            await ask(transport, server.url, timeout_seconds=0.3)


async def test_a_reader_who_takes_his_time_is_no_silence(transport: Transport) -> None:
    """The server waits for a slow client; that must not break the stream."""
    body = b"x" * 4_000_000

    async with answering(answer(body)) as server, exchange(transport, server.url, silence_seconds=0.4) as given:
        pieces = given.pieces()
        first = await anext(pieces)
        await asyncio.sleep(0.6)

        assert len(first) + sum([len(piece) async for piece in pieces]) == len(body)


async def test_a_server_is_given_its_time_after_a_pause_of_the_reader(transport: Transport) -> None:
    """Silence begins when somebody listens, not when the last byte came."""
    listened = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.say(HEAD, b"first")
        await listened.wait()
        await asyncio.sleep(0.1)
        await wire.say(b"other")

    async with serving(script) as server, exchange(transport, server.url, silence_seconds=0.2) as given:
        pieces = given.pieces()
        await anext(pieces)
        await asyncio.sleep(0.15)
        listened.set()

        assert await anext(pieces) == b"other"


async def test_a_large_request_on_a_slow_line_is_no_silence(transport: Transport) -> None:
    """As long as bytes leave, the server has not been asked yet."""
    body, held_by_the_kernel = b"x" * 24_000_000, 8_000_000

    async def script(wire: Wire) -> None:
        await wire.reader.readuntil(b"\r\n\r\n")
        left = len(body)
        while left > held_by_the_kernel:
            await asyncio.sleep(0.002)
            left -= len(await wire.reader.read(100_000))
        await wire.reader.readexactly(left)
        await wire.say(answer(b"taken"))

    async with serving(script, limit=100_000) as server:
        assert await ask(transport, server.url, body=body, silence_seconds=0.2) == b"taken"


async def test_a_cancelled_exchange_takes_its_connection_along(transport: Transport) -> None:
    """The answer that still comes is for nobody, and the server sees that nobody waits."""
    asked, left = asyncio.Event(), asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.request()
        asked.set()
        await wire.reader.read()
        left.set()

    async with serving(script) as server:
        task = asyncio.create_task(ask(transport, server.url))
        await asked.wait()
        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(left.wait(), 5)
