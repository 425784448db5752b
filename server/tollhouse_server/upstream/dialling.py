"""Opening connections: TCP over whichever address answers first, TLS, and tunnels through an egress proxy."""

import asyncio
import base64
import re
import socket
import ssl
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from aiohappyeyeballs import start_connection

from tollhouse_server.upstream.connection import Connection
from tollhouse_server.upstream.protocol import NotSent

_DIAL_SECONDS = 5.0
_HAPPY_EYEBALLS_SECONDS = 0.25
"""Head start of one address over the next, as RFC 8305 recommends."""
_MAX_HEAD_BYTES = 64 * 1024
# Nothing may come after it: in a tunnel the client speaks first.
_TUNNEL_STANDS = re.compile(rb"HTTP/1\.[01] 2\d\d(?: [^\r\n]*)?\r\n(?:[^\r\n]+\r\n)*\r\n")
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """An HTTP proxy to leave through; `authorization` is a header's value, empty for none, `secrets` what is in it."""

    secure: bool
    host: str
    port: int
    authorization: str = field(repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """A server and the way to it. `authority` is its host and port as a URL has them."""

    secure: bool
    host: str
    port: int
    authority: str
    proxy: Proxy | None = None

    @property
    def target_prefix(self) -> str:
        """Return what stands before the path in the request's first line: the whole address for a plain proxy."""
        return f"http://{self.authority}" if self.proxy and not self.secure else ""

    @property
    def extra_headers(self) -> str:
        """Return header lines for a plain proxy."""
        if self.proxy is None or self.secure or not self.proxy.authorization:
            return ""
        return f"proxy-authorization: {self.proxy.authorization}\r\n"

    @property
    def proxy_secrets(self) -> tuple[str, ...]:
        """Return what a plain proxy is told with each request, and could say back in an answer of its own."""
        return self.proxy.secrets if self.proxy and not self.secure else ()


def parse_origin(base: str, egress_url: str) -> Origin:
    """Return the origin of `scheme://authority`, reached through the proxy at `egress_url` if that is not empty.

    Raises:
        NotSent: one of them is no such URL.
    """
    try:
        parts = urlsplit(base)
        scheme, host, port = parts.scheme, parts.hostname, parts.port
    except ValueError as error:
        raise NotSent(f"the address is not a URL: {error}") from None
    if scheme not in _PORTS or not host or "@" in parts.netloc:
        raise NotSent("the address is not an http or https URL")
    return Origin(
        secure=scheme == "https",
        host=host,
        port=port or _PORTS[scheme],
        authority=parts.netloc,
        proxy=_parse_proxy(egress_url) if egress_url else None,
    )


def _parse_proxy(egress_url: str) -> Proxy:
    try:
        parts = urlsplit(egress_url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme not in _PORTS:
        raise NotSent("the egress proxy is not an http or https URL")
    authorization, secrets = "", tuple[str, ...]()
    if parts.username is not None:
        password = unquote(parts.password or "")
        pair = base64.b64encode(f"{unquote(parts.username)}:{password}".encode()).decode()
        authorization, secrets = f"Basic {pair}", (pair, password)
    return Proxy(
        secure=parts.scheme == "https",
        host=host,
        port=port or _PORTS[parts.scheme],
        authorization=authorization,
        secrets=secrets,
    )


async def dial(origin: Origin, context: ssl.SSLContext, seconds: float) -> Connection:
    """Open a connection within that time, and within five seconds.

    Raises:
        NotSent: it could not be opened.
    """
    try:
        async with asyncio.timeout(min(seconds, _DIAL_SECONDS)):
            return await _among_no_variables(origin, context)
    except (OSError, TimeoutError, UnicodeError) as error:
        raise NotSent(
            f"no connection to {'the egress proxy' if origin.proxy else 'the upstream'}: {_say(error)}"
        ) from error


async def _among_no_variables(origin: Origin, context: ssl.SSLContext) -> Connection:
    """A transport keeps the context variables that it was made among for its life: not those of the call that dials."""
    dialling = asyncio.create_task(_dial(origin, context), context=Context())
    try:
        return await dialling
    except asyncio.CancelledError:
        # It may have been opened in the very moment in which the caller went.
        if not dialling.cancelled() and dialling.exception() is None:
            dialling.result().close()
        raise


def _say(error: Exception) -> str:
    # The class alone: the text of some of them has addresses.
    return type(error).__name__


async def _dial(origin: Origin, context: ssl.SSLContext) -> Connection:
    loop = asyncio.get_running_loop()
    first = origin.proxy or origin
    found = await loop.getaddrinfo(first.host, first.port, type=socket.SOCK_STREAM)
    sock = await start_connection(found, happy_eyeballs_delay=_HAPPY_EYEBALLS_SECONDS, loop=loop)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if origin.proxy and origin.secure:
        return await _tunnel(origin, origin.proxy, context, sock)
    _, connection = await loop.create_connection(Connection, sock=sock, **_tls(first, context))
    return connection


def _tls(first: Origin | Proxy, context: ssl.SSLContext) -> dict[str, Any]:
    return {"ssl": context, "server_hostname": first.host} if first.secure else {}


class _Knocking(asyncio.Protocol):
    """Waits for a proxy's answer to CONNECT. Not a StreamWriter: one that is forgotten closes its transport."""

    def __init__(self) -> None:
        self.answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._head = b""

    def data_received(self, data: bytes) -> None:
        self._head += data
        is_whole = b"\r\n\r\n" in self._head
        if (is_whole or len(self._head) > _MAX_HEAD_BYTES) and not self.answered.done():
            self.answered.set_result(self._head)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answered.done():
            self.answered.set_exception(exc or ConnectionAbortedError())


async def _tunnel(origin: Origin, proxy: Proxy, context: ssl.SSLContext, sock: socket.socket) -> Connection:
    """Have the proxy connect us with the origin, and speak TLS with that."""
    loop = asyncio.get_running_loop()
    transport, knocking = await loop.create_connection(_Knocking, sock=sock, **_tls(proxy, context))
    try:
        target = f"[{origin.host}]:{origin.port}" if ":" in origin.host else f"{origin.host}:{origin.port}"
        credentials = f"proxy-authorization: {proxy.authorization}\r\n" if proxy.authorization else ""
        transport.write(f"CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n{credentials}\r\n".encode())
        if not _TUNNEL_STANDS.fullmatch(await knocking.answered):
            raise NotSent("the egress proxy refused the tunnel")
        connection = Connection()
        secured = await loop.start_tls(transport, connection, context, server_hostname=origin.host)
        if secured is None:
            raise NotSent("the connection ended before TLS began")
        # A transport that changes to TLS does not tell the protocol of its beginning.
        connection.connection_made(secured)
    except BaseException:
        transport.abort()
        raise
    return connection
