"""The way to one HTTP server: a request out, an answer in, and the two facts that money hangs on, NotSent and Broken.

Every client of this room goes through here. Redirects are never followed (a key would travel along), proxies come
from the account's settings and never from the environment, and nothing is ever sent twice.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Protocol, Self

import aiohttp

from tollhouse_server.upstream.protocol import Broken, NotSent

MAX_ANSWER_BYTES = 256 * 1024 * 1024
"""No answer is larger: inline media are 20 MB a request, pictures come back at some MB each."""

_CONNECT_TIMEOUT_SECONDS = 5.0
_KEEP_ALIVE_SECONDS = 30.0
_PROXY_WANTS_CREDENTIALS = 407
_NOT_SENT = (
    aiohttp.ClientConnectorError,
    aiohttp.ClientHttpProxyError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
)


class HttpAnswer(Protocol):
    """An answer whose head has come; its body is read once, whole or piece by piece."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Return the headers; names in any case."""

    async def read(self) -> bytes:
        """Return the whole body, decompressed.

        Raises:
            Broken: it did not come whole, or is larger than MAX_ANSWER_BYTES.
        """

    def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it comes, decompressed.

        Raises:
            Broken: it did not come whole.
        """


class Transport(Protocol):
    """Sends requests."""

    def exchange(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes = b"",
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


class AiohttpTransport:
    """The transport on aiohttp."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    def exchange(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes = b"",
        timeout_seconds: float,
        silence_seconds: float | None = None,
        egress_url: str = "",
    ) -> "_Exchange":
        """Send a request: see Transport."""
        request = self._session.request(
            method,
            url,
            data=body or None,
            headers=headers,
            proxy=egress_url or None,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(
                total=timeout_seconds, sock_connect=_CONNECT_TIMEOUT_SECONDS, sock_read=silence_seconds
            ),
        )
        return _Exchange(request, silence_seconds)


class _Exchange:
    """One request under way and its answer."""

    def __init__(
        self, request: AbstractAsyncContextManager[aiohttp.ClientResponse], silence_seconds: float | None
    ) -> None:
        self._request = request
        self._silence_seconds = silence_seconds
        self._response: aiohttp.ClientResponse

    async def __aenter__(self) -> Self:
        try:
            self._response = await self._request.__aenter__()
        except _NOT_SENT as error:
            raise NotSent(type(error).__name__) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._broken(error) from error
        if self._response.status == _PROXY_WANTS_CREDENTIALS:
            await self._request.__aexit__(None, None, None)
            raise NotSent("the egress proxy wants credentials")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._request.__aexit__(kind, error, trace)

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._response.headers

    async def read(self) -> bytes:
        pieces, size = [], 0
        async for piece in self.pieces():
            pieces.append(piece)
            size += len(piece)
            if size > MAX_ANSWER_BYTES:
                raise Broken(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        content = self._response.content
        while True:
            try:
                piece = await content.readany()
            except (aiohttp.ClientError, OSError, ValueError) as error:
                raise self._broken(error) from error
            if not piece:
                return
            yield piece

    def _broken(self, error: Exception) -> Broken:
        if isinstance(error, aiohttp.SocketTimeoutError):
            return Broken(f"silent for {self._silence_seconds:g} s")
        return Broken(type(error).__name__)


@asynccontextmanager
async def open_transport() -> AsyncIterator[Transport]:
    """Open the process's connection pools: keep-alive, no cookies, nothing from the environment."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_SECONDS, ttl_dns_cache=60)
    async with aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=True, trust_env=False
    ) as session:
        yield AiohttpTransport(session)
    # aiohttp closes sockets of TLS connections one loop turn after the session.
    await asyncio.sleep(0)
