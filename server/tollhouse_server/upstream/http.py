"""The way to one HTTP server: a request out, an answer in, and the two facts that money hangs on, NotSent and Broken.

Every client of this room goes through here. Redirects are never followed (a key would travel along), proxies come
from the account's settings and never from the environment, and nothing is ever sent twice.
"""

import asyncio
import json
import ssl
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from tollhouse_server.long_values import Json
from tollhouse_server.upstream.connection import MAX_ANSWER_BYTES, Connection
from tollhouse_server.upstream.dialling import Origin, dial, parse_origin
from tollhouse_server.upstream.protocol import Broken, NotSent

_KEEP_ALIVE_SECONDS = 30.0
_PROXY_WANTS_CREDENTIALS = 407
_FIRST_ERROR = 300
_IN_PLACE_OF_SECRETS = b"[proxy]"


class HttpAnswer(Protocol):
    """An answer whose head has come; its body is read once, whole or piece by piece."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Return the headers; names in lower case."""

    async def read(self) -> bytes:
        """Return the whole body, decompressed.

        Raises:
            Broken: it did not come whole, or is larger than MAX_ANSWER_BYTES.
        """

    async def collect(self) -> deque[bytes]:
        """Return the whole body of a success in pieces, decompressed; raise as `read` does."""

    def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it comes, decompressed.

        Raises:
            Broken: it did not come whole.
        """

    def bear_silence(self, seconds: float) -> None:
        """Let the server keep silent for so long from now on."""


class Transport(Protocol):
    """Sends requests."""

    def exchange(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: Json = b"",
        timeout_seconds: float,
        silence_seconds: float | None = None,
        egress_url: str = "",
    ) -> AbstractAsyncContextManager[HttpAnswer]:
        """Send a request and give its answer, whatever the status; leaving the block gives the connection back.

        `timeout_seconds` bounds the whole block, `silence_seconds` the time in which no byte comes; `egress_url` is
        the HTTP proxy to leave through (CONNECT for https), empty for none.

        Raises:
            NotSent: certainly no byte of the request reached the server.
            Broken: the exchange broke after that, or perhaps after that.
        """


class PooledTransport:
    """The transport over keep-alive connections: a pool for each server and each proxy before it."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._pools: dict[tuple[str, str], _Pool] = {}

    def exchange(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: Json = b"",
        timeout_seconds: float,
        silence_seconds: float | None = None,
        egress_url: str = "",
    ) -> "_Exchange":
        """Send a request: see Transport."""
        scheme, _, rest = url.partition("://")
        authority, _, path = rest.partition("/")
        key = (f"{scheme}://{authority}", egress_url)
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = _Pool(key, self._context)
        return _Exchange(pool, (method, path, headers), body, _Patience(timeout_seconds, silence_seconds))

    def close(self) -> None:
        """Close the connections that no exchange uses."""
        for pool in self._pools.values():
            pool.close()


class _Pool:
    """The idle connections to one origin, the one used last to be used first."""

    def __init__(self, key: tuple[str, str], context: ssl.SSLContext) -> None:
        self._key = key
        self._context = context
        self._origin: Origin | None = None
        self._idle: deque[Connection] = deque()
        self._loop = asyncio.get_running_loop()
        self._closed = False

    @property
    def origin(self) -> Origin:
        """Return where it leads to.

        Raises:
            NotSent: the address is not a URL.
        """
        if self._origin is None:
            self._origin = parse_origin(*self._key)
        return self._origin

    def idle(self) -> Connection | None:
        """Return an open connection, None where there is none."""
        self._drop_old()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open and connection.is_left_alone:
                return connection
            connection.close()
        return None

    async def dial(self, seconds: float) -> Connection:
        """Return a new connection.

        Raises:
            NotSent: it could not be opened.
        """
        return await dial(self.origin, self._context, seconds)

    def give_back(self, connection: Connection) -> None:
        """Keep a connection for the next exchange."""
        if self._closed:
            connection.close()
            return
        connection.idle_since = self._loop.time()
        self._idle.append(connection)
        self._drop_old()

    def close(self) -> None:
        """Close the idle ones, and those given back later."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _drop_old(self) -> None:
        """Close before the server does: a request that meets its farewell on the way would be Broken."""
        oldest = self._loop.time() - _KEEP_ALIVE_SECONDS
        while self._idle and (self._idle[0].idle_since < oldest or not self._idle[0].is_open):
            self._idle.popleft().close()


class _Patience(NamedTuple):
    timeout_seconds: float
    silence_seconds: float | None


class _Exchange:
    """One request under way and its answer."""

    def __init__(
        self,
        pool: _Pool,
        head: tuple[str, str, Mapping[str, str]],
        body: Json,
        patience: _Patience,
    ) -> None:
        self._pool = pool
        self._head, self._body = head, body
        self._patience = patience
        self._connection: Connection

    async def __aenter__(self) -> Self:
        origin = self._pool.origin
        head = _head(origin, *self._head, body_bytes=len(self._body))
        seconds, silence_seconds = self._patience
        if seconds <= 0:
            raise NotSent("no time is left")
        connection = self._pool.idle()
        if connection is None:
            loop = asyncio.get_running_loop()
            started_at = loop.time()
            connection = await self._pool.dial(seconds)
            seconds -= loop.time() - started_at
            if not connection.is_open:
                raise NotSent("the server closed a new connection")
        if isinstance(self._body, bytes):
            connection.send(head + self._body, seconds, silence_seconds)
        else:
            connection.send(head, seconds, silence_seconds, body=self._body)
        try:
            await connection.head()
            if connection.status == _PROXY_WANTS_CREDENTIALS and origin.proxy:
                raise NotSent("the egress proxy wants credentials")
        except BaseException:
            connection.end()
            raise
        self._connection = connection
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection.end():
            self._pool.give_back(self._connection)

    @property
    def status(self) -> int:
        return self._connection.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._connection.headers()

    async def read(self) -> bytes:
        pieces = await self.collect()
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        secrets = self._proxy_secrets
        return _unquoted(body, secrets) if secrets else body

    async def collect(self) -> deque[bytes]:
        pieces, size = deque[bytes](), 0
        while piece := await self._connection.piece():
            pieces.append(piece)
            size += len(piece)
            if size > MAX_ANSWER_BYTES:
                raise Broken(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
        return pieces

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        if self._proxy_secrets:
            # A secret may stand across two pieces, and nobody waits for those of a refusal.
            yield await self.read()
            return
        while piece := await self._connection.piece():
            yield piece

    def bear_silence(self, seconds: float) -> None:
        self._connection.bear_silence(seconds)

    @property
    def _proxy_secrets(self) -> tuple[str, ...]:
        """What a plain proxy, which answers errors itself, was told and may say back in them."""
        return self._pool.origin.proxy_secrets if self.status >= _FIRST_ERROR else ()


def _unquoted(body: bytes, secrets: tuple[str, ...]) -> bytes:
    """Return a body without what must not be shown, also as JSON writes it."""
    for secret in secrets:
        for writing in {secret, json.dumps(secret)[1:-1]} - {""}:
            body = body.replace(writing.encode(), _IN_PLACE_OF_SECRETS)
    return body


def _head(origin: Origin, method: str, path: str, headers: Mapping[str, str], *, body_bytes: int) -> bytes:
    """Return the request's head.

    Raises:
        NotSent: something in it would end a line before its time, or cannot be sent.
    """
    lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
    target = f"{origin.target_prefix}/{path}"
    head = (
        f"{method} {target} HTTP/1.1\r\nhost: {origin.authority}\r\naccept: */*\r\naccept-encoding: gzip, deflate\r\n"
        f"{origin.extra_headers}{''.join(lines)}content-length: {body_bytes}\r\n\r\n"
    )
    ends = 6 + len(lines) + (1 if origin.extra_headers else 0)
    if head.count("\r") != ends or head.count("\n") != ends or "\0" in head or " " in target:
        raise NotSent("the address or a header holds what must not stand there")
    try:
        return head.encode("ascii")
    except UnicodeEncodeError:
        raise NotSent("the address or a header is not ASCII") from None


@asynccontextmanager
async def open_transport() -> AsyncIterator[Transport]:
    """Open the process's connection pools: keep-alive, no cookies, nothing from the environment."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    transport = PooledTransport(context)
    try:
        yield transport
    finally:
        transport.close()
