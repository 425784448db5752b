"""Calls that leave through a proxy: a real one, on a connection of the operating system's."""

import base64
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest
import uvloop
from tollhouse_server.upstream.http import PooledTransport
from tollhouse_server.upstream.protocol import NotSent

from tests.drivers.wire import Server, answer, answering, certified, proxying

NOBODY = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The TLS contexts of servers and of clients who trust them."""
    return certified(tmp_path_factory.mktemp("tls"))


@pytest.fixture
async def transport(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> AsyncIterator[PooledTransport]:
    """A transport that trusts the tests' certificate."""
    transport = PooledTransport(contexts[1])
    yield transport
    transport.close()


@pytest.fixture
async def secure(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> AsyncIterator[Server]:
    """An https server."""
    async with answering(answer(b"secure"), context=contexts[0]) as server:
        yield server


async def ask(transport: PooledTransport, url: str, egress_url: str = "", seconds: float = 5.0) -> bytes:
    """Return the body of an answer."""
    async with transport.exchange(
        "POST", f"{url}/path", headers={"x-key": "secret"}, timeout_seconds=seconds, egress_url=egress_url
    ) as given:
        return await given.read()


async def test_https_goes_through_a_tunnel(transport: PooledTransport, secure: Server) -> None:
    """The proxy learns the host and nothing else; the tunnel is kept for the next call."""
    async with proxying() as proxy:
        answers = [await ask(transport, secure.url, proxy.url) for _ in range(2)]

    assert answers == [b"secure"] * 2
    (seen,) = proxy.seen
    host = secure.url.removeprefix("https://")
    assert (seen.method, seen.target, seen.headers) == ("CONNECT", host, {"host": host})
    assert [request.target for request in secure.seen] == ["/path"] * 2


def test_the_worker_loop_tunnels_too(contexts: tuple[ssl.SSLContext, ssl.SSLContext], tmp_path: Path) -> None:
    """The worker's event loop has TLS of its own, inside TLS to the proxy as well."""

    async def through(*, secure_proxy: bool) -> bytes:
        transport = PooledTransport(contexts[1])
        async with (
            answering(answer(b"secure"), context=contexts[0]) as server,
            proxying(context=contexts[0] if secure_proxy else None) as proxy,
        ):
            body = await ask(transport, server.url, proxy.url)
            transport.close()
            return body

    assert uvloop.run(through(secure_proxy=False)) == b"secure"
    assert uvloop.run(through(secure_proxy=True)) == b"secure"


async def test_http_is_asked_of_the_proxy(transport: PooledTransport) -> None:
    """Without TLS the proxy gets the whole address."""
    async with proxying() as proxy, answering(answer(b"plain")) as server:
        body = await ask(transport, server.url, proxy.url)

    assert body == b"plain"
    assert [(seen.method, seen.target) for seen in proxy.seen] == [("POST", f"{server.url}/path")]
    assert [seen.target for seen in server.seen] == ["/path"]


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_is_told_who_asks(transport: PooledTransport, secure: Server, scheme: str) -> None:
    """A name and a password in the proxy's address go to the proxy, and to nobody behind a tunnel."""
    async with proxying() as proxy, answering(answer()) as plain:
        server = secure if scheme == "https" else plain
        await ask(transport, server.url, proxy.url.replace("//", "//some%40one:pass@"))

    assert proxy.seen[0].headers["proxy-authorization"] == "Basic c29tZUBvbmU6cGFzcw=="
    assert scheme == "http" or "proxy-authorization" not in secure.seen[0].headers


async def test_each_way_out_has_connections_of_its_own(transport: PooledTransport) -> None:
    """An account with a proxy never leaves on a connection made without it, nor the other way round."""
    async with answering(answer()) as server, proxying() as one, proxying() as another:
        for egress_url in ("", one.url, another.url, "", one.url, another.url):
            await ask(transport, server.url, egress_url)

    assert (server.connections, one.connections, another.connections) == (3, 1, 1)
    assert (len(one.seen), len(another.seen)) == (1, 1)


@pytest.mark.parametrize("egress_url", [NOBODY, "socks5://127.0.0.1:9", "http://", "http://[", "nonsense"])
async def test_without_the_proxy_nothing_is_sent(transport: PooledTransport, egress_url: str) -> None:
    """It must not leave directly instead."""
    async with answering(answer()) as server:
        with pytest.raises(NotSent) as raised:
            await ask(transport, server.url, egress_url)

    assert server.connections == 0
    assert "127.0.0.1" not in str(raised.value)


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        (answer(status="407 Proxy Authentication Required"), "refused the tunnel"),
        (answer(status="502 Bad Gateway"), "refused the tunnel"),
        (b"HTTP/1.1 200 OK\r\n\r\nmore", "refused the tunnel"),
        (b"what?\r\n\r\n", "refused the tunnel"),
        (b"\r\n", "no connection to the egress proxy"),
    ],
    ids=["407", "502", "talks", "no HTTP", "nothing"],
)
async def test_a_refused_tunnel_is_not_sent(
    transport: PooledTransport, secure: Server, refusal: bytes, reason: str
) -> None:
    """The request stands behind the tunnel that never was."""
    async with proxying(refusal) as proxy:
        with pytest.raises(NotSent, match=reason):
            await ask(transport, secure.url, proxy.url)

    assert (len(proxy.seen), secure.seen) == (1, [])


async def test_a_plain_proxy_that_wants_credentials_is_not_sent(transport: PooledTransport) -> None:
    """It has passed nothing on."""
    async with proxying(answer(status="407 Proxy Authentication Required")) as proxy, answering(answer()) as server:
        with pytest.raises(NotSent):
            await ask(transport, server.url, proxy.url)

    assert server.seen == []


async def test_a_server_behind_a_tunnel_must_prove_itself(transport: PooledTransport, secure: Server) -> None:
    """A proxy that poses as the server gets no key."""
    strict = PooledTransport(ssl.create_default_context())

    async with proxying() as proxy:
        with pytest.raises(NotSent):
            await ask(strict, secure.url, proxy.url)

    assert secure.seen == []


async def test_the_certificate_is_for_the_host(transport: PooledTransport, secure: Server) -> None:
    """One for another name is none."""
    with pytest.raises(NotSent):
        await ask(transport, secure.url.replace("127.0.0.1", "localhost"))

    assert await ask(transport, secure.url) == b"secure"


async def test_a_proxy_that_says_back_its_password_is_not_quoted(transport: PooledTransport) -> None:
    """Only a plain one sees a request whose refusal is read; in a tunnel it sees none."""
    password = 'open "sesame"'
    pair = base64.b64encode(f"somebody:{password}".encode()).decode()
    said = json.dumps({"error": {"message": f"Basic {pair} is somebody:{password}"}}).encode()
    async with answering(answer(said, status="403 Forbidden")) as proxy:
        asked = proxy.url.replace("//", f"//somebody:{quote(password)}@")
        async with transport.exchange("POST", NOBODY, headers={}, timeout_seconds=5, egress_url=asked) as whole:
            read = await whole.read()
        async with transport.exchange("POST", NOBODY, headers={}, timeout_seconds=5, egress_url=asked) as by_pieces:
            pieces = b"".join([piece async for piece in by_pieces.pieces()])

    assert proxy.seen[0].headers["proxy-authorization"] == f"Basic {pair}"
    assert read == pieces == b'{"error": {"message": "Basic [proxy] is somebody:[proxy]"}}'
