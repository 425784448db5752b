"""The Gemini Developer API over a lean HTTP client: raw JSON in, raw JSON out, no retry that we did not order.

google-genai parses every answer into pydantic models, which costs ten times the rest of a call and drops unknown
fields; a test holds path, headers and body against what google-genai sends.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson

from tollhouse_server.upstream.protocol import Broken, NotSent, Refused, UpstreamCall
from tollhouse_server.upstream.sse import EventSplitter

ATTEMPT_HEADER = "x-tollhouse-attempt-id"
"""Carries our attempt id upstream; the simulator's call log is matched with the ledger by it. Google ignores it."""

_CONNECT_TIMEOUT_SECONDS = 5.0
_KEEP_ALIVE_SECONDS = 30.0
_NOT_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL)


class GeminiUpstream:
    """Talks to the Developer API, to the simulator and to whatever speaks Gemini's REST protocol."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def call(self, call: UpstreamCall) -> dict[str, Any]:
        """Send a unary call and return the whole answer.

        Raises:
            NotSent, Refused, Broken: see `protocol`.
        """
        async with self._exchange(call, "") as response:
            return _parse(await response.read())

    async def stream(self, call: UpstreamCall) -> AsyncGenerator[dict[str, Any], None]:
        """Send a streaming call and yield each chunk as it comes.

        Raises:
            NotSent, Refused, Broken: see `protocol`; Broken also when the stream ends in the middle of an event.
        """
        splitter = EventSplitter()
        async with self._exchange(call, "?alt=sse") as response:
            async for piece in response.content.iter_any():
                for event in splitter.feed(piece):
                    yield _parse(event)
        if not splitter.is_empty:
            raise Broken("the stream ended in the middle of an event")

    @asynccontextmanager
    async def _exchange(self, call: UpstreamCall, query: str) -> AsyncIterator[aiohttp.ClientResponse]:
        where = call.destination
        url = f"{where.base_url}/{where.api_version}/models/{where.model}:{call.method}{query}"
        headers = {
            "x-goog-api-key": call.key,
            "content-type": "application/json",
            ATTEMPT_HEADER: str(call.attempt_id),
        }
        try:
            async with self._session.post(
                url,
                data=call.body,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=call.timeout_seconds, sock_connect=_CONNECT_TIMEOUT_SECONDS),
            ) as response:
                if response.status != 200:
                    raise Refused(response.status, _error_body(await response.read()))
                yield response
        except _NOT_SENT as error:
            raise NotSent(type(error).__name__) from error
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Broken(type(error).__name__) from error


def _parse(body: bytes) -> dict[str, Any]:
    """Parse an answer that was sent as a success; whatever else it is, it may have been charged."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Broken("the answer is not JSON") from None
    if not isinstance(parsed, dict):
        raise Broken("the answer is not a JSON object")
    return parsed


def _error_body(body: bytes) -> dict[str, Any]:
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


@asynccontextmanager
async def open_session() -> AsyncIterator[aiohttp.ClientSession]:
    """Open the worker's one connection pool: keep-alive, no cookies, no proxies from the environment."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_SECONDS, ttl_dns_cache=60)
    async with aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=True, trust_env=False
    ) as session:
        yield session
    # aiohttp closes sockets of TLS connections one loop turn after the session.
    await asyncio.sleep(0)
