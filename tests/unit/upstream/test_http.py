"""The transport against servers that say every wrong thing: what was certainly not sent, what may have been charged."""

import asyncio
import contextlib
import gzip
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tollhouse_server.generation.encoding import encoded
from tollhouse_server.long_values import LongMedia, LongText
from tollhouse_server.upstream import connection, http
from tollhouse_server.upstream.http import Transport, open_transport
from tollhouse_server.upstream.protocol import Broken, NotSent

from tests.drivers.exchanges import ask, exchange
from tests.drivers.wire import Seen, Wire, answer, answering, serving

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
NOBODY = "http://127.0.0.1:9"


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    """The pools of one process."""
    async with open_transport() as transport:
        yield transport


async def test_a_request_goes_out_as_it_was_given(transport: Transport) -> None:
    """Method, path, query, headers and body; the answer's status, headers and body come back."""
    async with answering(answer(b"body", "X-Tier: paid", status="418 Teapot")) as server:
        async with exchange(transport, server.url, body=b"asked") as given:
            body = await given.read()

        assert (given.status, given.headers["x-tier"], body) == (418, "paid", b"body")
    (seen,) = server.seen
    assert (seen.method, seen.target, seen.body) == ("POST", "/v1/x?y=z", b"asked")
    host = server.url.removeprefix("http://")
    assert seen.headers == {
        "host": host,
        "accept": "*/*",
        "accept-encoding": "gzip, deflate",
        "x-a": "b",
        "content-length": "5",
    }


async def test_a_long_body_goes_out_in_pieces_as_it_was_given(transport: Transport) -> None:
    """A server that takes its time gets all of it, and the connection carries the next request."""
    raw = bytes(range(256)) * 30_000
    body = encoded({"contents": [{"data": LongMedia((raw,))}], "text": LongText("é" * 300_000)})
    seen: list[Seen | None] = []

    async def script(wire: Wire) -> None:
        while (one := await wire.request()) is not None:
            seen.append(one)
            await wire.say(answer(b"done"))

    async with serving(script, limit=64 * 1024) as server:
        answers = [await ask(transport, server.url, body=body), await ask(transport, server.url)]

    assert [one and one.body for one in seen] == [bytes(body), b"{}"]
    assert (answers, server.connections) == ([b"done", b"done"], 1)


async def test_an_answer_before_the_end_of_a_long_body_ends_its_connection(transport: Transport) -> None:
    """What is left of the body would be taken for the beginning of the next request."""
    body = encoded({"data": LongMedia((bytes(30_000_000),))})

    async def at_once(wire: Wire) -> None:
        await wire.reader.readuntil(b"\r\n\r\n")
        await wire.say(answer(b"no", status="413 Too Large"))
        await wire.reader.read()

    async with serving(at_once) as server:
        for _ in range(2):
            assert await ask(transport, server.url, body=body) == b"no"

    assert server.connections == 2


async def test_exchanges_one_after_another_share_a_connection(transport: Transport) -> None:
    """Keep-alive: opening a connection costs more than the call."""
    async with answering(answer()) as server:
        for _ in range(3):
            await ask(transport, server.url)

    assert server.connections == 1


async def test_a_connection_that_was_idle_too_long_is_not_used(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server may be about to close it, and a request that crosses its farewell would be broken."""
    monkeypatch.setattr(http, "_KEEP_ALIVE_SECONDS", -1.0)

    async with answering(answer()) as server:
        for _ in range(2):
            await ask(transport, server.url)

    assert server.connections == 2


async def test_exchanges_at_the_same_time_have_a_connection_each(transport: Transport) -> None:
    """One slow answer holds up no other."""
    everybody = asyncio.Barrier(3)

    async def script(wire: Wire) -> None:
        await wire.request()
        await everybody.wait()
        await wire.say(answer())

    async with serving(script) as server, asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(ask(transport, server.url))

    assert server.connections == 3


@pytest.mark.parametrize(
    "said",
    [
        answer(b"first", "connection: close"),
        answer(b"first") + answer(b"second"),
        b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nfirst",
    ],
    ids=["close", "two answers", "HTTP/1.0"],
)
async def test_a_connection_that_cannot_be_trusted_is_not_used_again(transport: Transport, said: bytes) -> None:
    """Nobody gets the answer to another one's question."""
    async with answering(said, answer(b"mine")) as server:
        first = await ask(transport, server.url)
        second = await ask(transport, server.url)

    assert (first, second, server.connections) == (b"first", b"mine", 2)


async def test_bytes_that_nobody_asked_for_are_no_answer(transport: Transport) -> None:
    """A server that goes on talking loses its connection."""
    spoken = asyncio.Event()

    async def script(wire: Wire) -> None:
        while await wire.request():
            await wire.say(answer(b"asked"))
            await asyncio.sleep(0.01)
            await wire.say(answer(b"unasked"))
            spoken.set()

    async with serving(script) as server:
        await ask(transport, server.url)
        await spoken.wait()
        await asyncio.sleep(0.01)

        assert await ask(transport, server.url) == b"asked"


async def test_a_redirect_is_an_answer_like_any_other(transport: Transport) -> None:
    """The key in the headers goes nowhere else."""
    moved = answer(b"", "location: http://127.0.0.1:9/", status="302 Found")

    async with answering(moved) as server, exchange(transport, server.url) as given:
        assert given.status == 302

    assert len(server.seen) == 1


async def test_the_environment_names_no_proxy(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where calls go is said by settings, not by a variable somebody set."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, NOBODY)

    async with answering(answer(b"direct")) as server:
        assert await ask(transport, server.url) == b"direct"


@pytest.mark.parametrize(
    ("url", "changes"),
    [
        (NOBODY, {}),
        ("ftp://127.0.0.1", {}),
        ("http://name@127.0.0.1", {}),
        ("http://127.0.0.1:99999", {}),
        ("http://", {}),
        ("{server}", {"headers": {"x-goog-api-key": "two\r\nx-lines: 1"}}),
        ("{server}", {"headers": {"x-goog-api-key": "žluťoučký"}}),
        ("{server}/a b", {}),
        ("https://{host}", {"timeout_seconds": 0.1}),
    ],
    ids=["nobody", "scheme", "user", "port", "no host", "two lines", "not ASCII", "space", "no TLS"],
)
async def test_what_never_left_is_not_sent(transport: Transport, url: str, changes: dict[str, Any]) -> None:
    """A connection that cannot be made and a request that cannot be written cost nothing."""
    async with answering(answer()) as server:
        address = url.format(server=server.url, host=server.url.removeprefix("http://"))

        with pytest.raises(NotSent):
            await ask(transport, address, **changes)

    assert server.seen == []


async def test_a_server_that_never_takes_the_connection_is_not_sent(transport: Transport) -> None:
    """The handshake of TLS hangs: not one byte of the request has left when the time is up."""

    async def script(wire: Wire) -> None:
        await wire.reader.read()

    async with serving(script) as server:
        with pytest.raises(NotSent):
            await ask(transport, server.url.replace("http", "https"), timeout_seconds=0.05)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 20",
        HEAD + b"half",
        CHUNKED + b"4\r\nha",
        CHUNKED + b"zz\r\nhalf\r\n",
        b"no HTTP at all\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: other\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000 + b"\r\n\r\n",
        answer(b"squeezed", "content-encoding: other"),
        answer(b"squeezed", "content-encoding: gzip"),
        answer(gzip.compress(b"whole", mtime=0)[:-9], "content-encoding: gzip"),
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n" + gzip.compress(b"whole", mtime=0)[:-9],
    ],
    ids=[
        *("nothing", "half a status", "half a body", "half a chunk", "no chunk", "no HTTP", "upgrade", "large head"),
        *("unknown encoding", "not gzip", "half gzip", "half gzip until the end"),
    ],
)
@pytest.mark.parametrize("reset", [False, True], ids=["closes", "resets"])
async def test_what_breaks_after_the_request_is_broken(transport: Transport, said: bytes, *, reset: bool) -> None:
    """It may have been served and charged, on a new connection and on one that had been idle."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.say(answer())
        await wire.request()
        await wire.say(said)
        if reset:
            wire.reset()

    async with serving(script) as server:
        await ask(transport, server.url)

        with pytest.raises(Broken):
            await ask(transport, server.url)


async def test_a_reset_after_the_first_request_of_a_connection_is_broken(transport: Transport) -> None:
    """A failure at the first request is not taken for a failure to connect."""

    async def script(wire: Wire) -> None:
        await wire.request()
        wire.reset()

    async with serving(script) as server:
        with pytest.raises(Broken):
            await ask(transport, server.url)


@pytest.mark.parametrize(
    "said",
    [
        answer(b"whole"),
        b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"whole"),
        CHUNKED + b"2\r\nwh\r\n3;x=y\r\nole\r\n0\r\ntrailer: t\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nwhole",
        answer(gzip.compress(b"whole", mtime=0), "content-encoding: gzip"),
        answer(zlib.compress(b"whole"), "Content-Encoding: Deflate"),
    ],
    ids=["length", "continue", "chunked", "until the end", "gzip", "deflate"],
)
@pytest.mark.parametrize("cut", [False, True], ids=["at once", "byte by byte"])
async def test_an_answer_is_read_whatever_its_form(transport: Transport, said: bytes, *, cut: bool) -> None:
    """Lengths, chunks, compression, and any cut between packets."""

    async def script(wire: Wire) -> None:
        await wire.request()
        for piece in [said[n : n + 1] for n in range(len(said))] if cut else [said]:
            await wire.say(piece)
            await asyncio.sleep(0)

    async with serving(script) as server:
        assert await ask(transport, server.url) == b"whole"


async def test_pieces_come_as_they_are_sent(transport: Transport) -> None:
    """A stream is passed on before it has ended, compressed or not."""
    more = asyncio.Event()
    squeezer = zlib.compressobj(wbits=31)

    def piece(text: bytes) -> bytes:
        squeezed = squeezer.compress(text) + squeezer.flush(zlib.Z_SYNC_FLUSH)
        return b"%x\r\n%b\r\n" % (len(squeezed), squeezed)

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.say(CHUNKED.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n"), piece(b"first"))
        await more.wait()
        await wire.say(piece(b"second"), b"%x\r\n%b\r\n0\r\n\r\n" % (len(end := squeezer.flush()), end))

    async with serving(script) as server, exchange(transport, server.url) as given:
        pieces = given.pieces()
        first = await anext(pieces)
        more.set()

        assert (first, b"".join([piece async for piece in pieces])) == (b"first", b"second")


@pytest.mark.parametrize(
    "said", [answer(b"x" * 100_001), answer(gzip.compress(b"x" * 100_001, mtime=0), "content-encoding: gzip")]
)
async def test_an_answer_has_a_size_that_it_may_not_pass(
    transport: Transport, said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a large body nor a small one that grows can fill the memory."""
    for module in (connection, http):
        monkeypatch.setattr(module, "MAX_ANSWER_BYTES", 100_000)

    async with answering(said) as server:
        with pytest.raises(Broken, match="larger than"):
            await ask(transport, server.url)


async def test_an_answer_that_is_not_read_takes_its_connection_along(transport: Transport) -> None:
    """The rest of it must not stand before the next answer."""
    async with answering(HEAD + b"half", answer(b"mine")) as server:
        async with exchange(transport, server.url) as given:
            assert given.status == 200

        assert await ask(transport, server.url) == b"mine"
    assert server.connections == 2


@pytest.mark.parametrize(
    "begun",
    [
        b"HTTP/1.1 200 OK\r\nx-a: ",
        b"HTTP/1.1 200 OK\r\n",
        CHUNKED + b"2\r\n{}\r\n0\r\nx-a: ",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n" + gzip.compress(b"{}", mtime=0),
    ],
    ids=["header's value", "header's name", "trailer", "after gzip"],
)
async def test_what_never_ends_is_not_kept(transport: Transport, begun: bytes) -> None:
    """A header, or bytes behind a compressed body, that go on and on: the server is left, and nothing piles up."""
    said = 0

    async def script(wire: Wire) -> None:
        nonlocal said
        await wire.request()
        await wire.say(begun)
        while said < 64:
            await wire.say(b"a" * 1024 * 1024)
            said += 1

    async with serving(script) as server:
        with contextlib.suppress(Broken):
            await ask(transport, server.url)

    # The kernels' buffers take some.
    assert said < 32


async def test_time_that_is_up_is_not_the_end_of_an_answer(transport: Transport) -> None:
    """An answer that ends with its connection is not whole because we have closed that."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.say(b"HTTP/1.1 200 OK\r\n\r\n{}")
        await asyncio.Event().wait()

    async with serving(script) as server:
        with pytest.raises(Broken):
            await ask(transport, server.url, timeout_seconds=0.2)
