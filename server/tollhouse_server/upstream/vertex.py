"""Vertex AI: the same JSON under another path, with a bearer token; only embeddings have other forms there."""

import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from tollhouse_server.long_values import Json
from tollhouse_server.telemetry.steps import trace_headers
from tollhouse_server.upstream import answers, vertex_bodies, vertex_embeddings
from tollhouse_server.upstream.http import HttpAnswer, Transport
from tollhouse_server.upstream.protocol import ATTEMPT_HEADER, Method, UpstreamCall
from tollhouse_server.upstream.tokens import AccessTokens

_UNAUTHENTICATED = 401


class VertexUpstream:
    """Talks to Vertex AI in the destination's project and region."""

    def __init__(self, transport: Transport, tokens: AccessTokens) -> None:
        self._transport = transport
        self._tokens = tokens

    async def call(self, call: UpstreamCall) -> dict[str, Any]:
        """Send a unary call and return the whole answer, that to an embedding as batchEmbedContents has it.

        Raises:
            NotSent, Refused, Broken: see `protocol`; Refused also where Vertex cannot be asked that way, or where the
                key gets no access token.
        """
        if call.method is Method.EMBED:
            asked = vertex_embeddings.question(bytes(call.body), call.destination.model)
            return asked.answer(await self._unary(call, asked.method, asked.body))
        if call.method is Method.COUNT_TOKENS:
            return await self._unary(call, call.method, vertex_bodies.counted(bytes(call.body)))
        return await self._unary(call, call.method, vertex_bodies.generated(call.body, call.destination))

    async def stream(self, call: UpstreamCall) -> AsyncGenerator[dict[str, Any], None]:
        """Send a streaming call and yield each chunk as it comes.

        Raises:
            NotSent, Refused, Broken: see `protocol`; Broken also when the stream ends in the middle of an event.
        """
        body = vertex_bodies.generated(call.body, call.destination)
        async with self._answer(call, f"{call.method}?alt=sse", body) as answer:
            async for chunk in answers.read_events(answer, pause_seconds=call.pause_seconds):
                yield chunk

    async def _unary(self, call: UpstreamCall, method: str, body: Json) -> dict[str, Any]:
        async with self._answer(call, method, body) as answer:
            return await answers.read_object(answer)

    @asynccontextmanager
    async def _answer(self, call: UpstreamCall, method: str, body: Json) -> AsyncIterator[HttpAnswer]:
        """Ask, and once more where a token was refused that had been held from before: with a new one it may do."""
        since, until = self._tokens.now, time.monotonic() + call.timeout_seconds
        token = await self._token(call, until)
        async with self._exchange(call, token, method, body, until=until) as answer:
            if answer.status != _UNAUTHENTICATED or not self._tokens.renewable(call.key, token, used_since=since):
                await answers.check_status(answer, secret=token)
                yield answer
                return
        token = await self._token(call, until)
        async with self._exchange(call, token, method, body, until=until) as answer:
            await answers.check_status(answer, secret=token)
            yield answer

    async def _token(self, call: UpstreamCall, until: float) -> str:
        seconds = until - time.monotonic()
        return await self._tokens.bearer(call.key, egress_url=call.destination.egress_url, timeout_seconds=seconds)

    def _exchange(
        self, call: UpstreamCall, token: str, method: str, body: Json, *, until: float
    ) -> AbstractAsyncContextManager[HttpAnswer]:
        where = call.destination
        place = f"projects/{where.project}/locations/{where.region}/publishers/google"
        return self._transport.exchange(
            "POST",
            f"{where.base_url}/{where.api_version}/{place}/models/{where.model}:{method}",
            headers={
                "authorization": f"Bearer {token}",
                "content-type": "application/json",
                ATTEMPT_HEADER: str(call.attempt_id),
                **trace_headers(),
            },
            body=body,
            timeout_seconds=until - time.monotonic(),
            silence_seconds=call.silence_seconds,
            egress_url=where.egress_url,
        )
