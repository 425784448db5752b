"""All kinds of upstream behind one door, over one set of connections."""

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any

from tollhouse_server.upstream.gemini import GeminiUpstream
from tollhouse_server.upstream.http import open_transport
from tollhouse_server.upstream.openai_compatible import OpenAICompatibleUpstream
from tollhouse_server.upstream.protocol import Upstream, UpstreamCall, UpstreamKind
from tollhouse_server.upstream.tokens import GOOGLE_TOKEN_URL, AccessTokens
from tollhouse_server.upstream.vertex import VertexUpstream


class Upstreams:
    """An Upstream that asks the client of the destination's kind; a kind without one is a mistake in the program.

    `tokens` are those of service accounts, for whoever else speaks to Google.
    """

    def __init__(self, clients: Mapping[UpstreamKind, Upstream], tokens: AccessTokens) -> None:
        self._clients = dict(clients)
        self.tokens = tokens

    async def call(self, call: UpstreamCall) -> dict[str, Any]:
        """Send a unary call and return the whole answer: see Upstream."""
        return await self._clients[call.destination.kind].call(call)

    def stream(self, call: UpstreamCall) -> AsyncGenerator[dict[str, Any], None]:
        """Send a streaming call and yield each chunk as it comes: see Upstream."""
        return self._clients[call.destination.kind].stream(call)


@asynccontextmanager
async def open_upstreams(*, token_urls: Collection[str] = (GOOGLE_TOKEN_URL,)) -> AsyncIterator[Upstreams]:
    """Open the process's connections and the client of every kind; `token_urls` may be shown service accounts' keys."""
    async with open_transport() as transport:
        tokens = AccessTokens(transport, token_urls=token_urls)
        clients: dict[UpstreamKind, Upstream] = {
            UpstreamKind.GEMINI_API: GeminiUpstream(transport),
            UpstreamKind.VERTEX: VertexUpstream(transport, tokens),
            UpstreamKind.OPENAI_COMPATIBLE: OpenAICompatibleUpstream(transport),
        }
        try:
            yield Upstreams(clients, tokens)
        finally:
            await tokens.close()
