"""The Gemini Developer API over a lean HTTP client: raw JSON in, raw JSON out, no retry that we did not order.

google-genai parses every answer into pydantic models, which costs ten times the rest of a call and drops unknown
fields; a test holds path, headers and body against what google-genai sends.
"""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from typing import Any

import orjson

from tollhouse_server.long_values import Json
from tollhouse_server.telemetry.steps import trace_headers
from tollhouse_server.upstream import answers
from tollhouse_server.upstream.http import HttpAnswer, Transport
from tollhouse_server.upstream.protocol import ATTEMPT_HEADER, Method, UpstreamCall

_COUNTED_MEMBERS = frozenset({"contents", "generateContentRequest"})


class GeminiUpstream:
    """Talks to the Developer API, to the simulator and to whatever speaks Gemini's REST protocol."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def call(self, call: UpstreamCall) -> dict[str, Any]:
        """Send a unary call and return the whole answer.

        Raises:
            NotSent, Refused, Broken: see `protocol`.
        """
        async with self._exchange(call, call.method, _body(call)) as answer:
            return await answers.read_object(answer, secret=call.key.strip())

    async def stream(self, call: UpstreamCall) -> AsyncGenerator[dict[str, Any], None]:
        """Send a streaming call and yield each chunk as it comes.

        Raises:
            NotSent, Refused, Broken: see `protocol`; Broken also when the stream ends in the middle of an event.
        """
        async with self._exchange(call, f"{call.method}?alt=sse", call.body) as answer:
            async for chunk in answers.read_events(answer, secret=call.key.strip(), pause_seconds=call.pause_seconds):
                yield chunk

    def _exchange(self, call: UpstreamCall, method: str, body: Json) -> AbstractAsyncContextManager[HttpAnswer]:
        where = call.destination
        return self._transport.exchange(
            "POST",
            f"{where.base_url}/{where.api_version}/models/{where.model}:{method}",
            headers={
                "x-goog-api-key": call.key.strip(),
                "content-type": "application/json",
                ATTEMPT_HEADER: str(call.attempt_id),
                **trace_headers(),
            },
            body=body,
            timeout_seconds=call.timeout_seconds,
            silence_seconds=call.silence_seconds,
            egress_url=where.egress_url,
        )


def _body(call: UpstreamCall) -> Json:
    """Return the body; countTokens takes contents alone, or a whole request in a wrapper that names the model."""
    if call.method is not Method.COUNT_TOKENS:
        return call.body
    shape = call.body if isinstance(call.body, bytes) else call.body.shape
    if orjson.loads(shape).keys() <= _COUNTED_MEMBERS:
        return call.body
    opening = b'{"generateContentRequest":{"model":"models/%b",' % call.destination.model.encode()
    if isinstance(call.body, bytes):
        return opening + call.body[1:] + b"}"
    return call.body.wrapped(opening, b"}")
