"""Servers that speak OpenAI's protocol: Gemma on own machines (llama.cpp, vLLM, SGLang) and any model a company hosts.

Takes and gives Gemini's JSON; what such a server cannot be asked is refused before anything is sent.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import orjson

from tollhouse_server.telemetry.steps import trace_headers
from tollhouse_server.upstream import answers, openai_answers, openai_request
from tollhouse_server.upstream.http import HttpAnswer, Transport
from tollhouse_server.upstream.openai_chunks import ChunkTranslation
from tollhouse_server.upstream.openai_members import inexpressible
from tollhouse_server.upstream.openai_refusals import cannot_count, refusal
from tollhouse_server.upstream.protocol import ATTEMPT_HEADER, Broken, Method, Refused, UpstreamCall
from tollhouse_server.upstream.refusal_bodies import read_refusal
from tollhouse_server.upstream.sse import EventSplitter

NO_KEY = "none"
"""The key of a server that wants none."""

_NO_SUCH_PATH = frozenset({404, 405, 501})


class OpenAICompatibleUpstream:
    """Talks to an OpenAI-compatible server. `base_url` is its root; `model` is the name that the server gives it."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def call(self, call: UpstreamCall) -> dict[str, Any]:
        """Send a unary call and return the whole answer as Gemini would have given it.

        Raises:
            NotSent, Refused, Broken: see `protocol`; Refused also where the request cannot be expressed.
        """
        request, model = _parsed(bytes(call.body)), call.destination.model
        if call.method is Method.COUNT_TOKENS:
            return {"totalTokens": await self._count(call, request)}
        if call.method is Method.EMBED:
            batch = openai_request.embeddings(request, model)
            answer = await self._ask(call, _versioned(call, "embeddings"), batch, call.timeout_seconds)
            return openai_answers.embedded(answer, count=len(batch["input"]))
        completion = openai_request.chat_completion(request, model, is_stream=False)
        answer = await self._ask(call, _versioned(call, "chat/completions"), completion, call.timeout_seconds)
        return openai_answers.generated(answer)

    async def stream(self, call: UpstreamCall) -> AsyncGenerator[dict[str, Any], None]:
        """Send a streaming call and yield its chunks as Gemini would have sent them.

        Raises:
            NotSent, Refused, Broken: see `protocol`; Refused also where the request cannot be expressed, Broken also
                when the stream ends before the answer does.
        """
        completion = openai_request.chat_completion(_parsed(bytes(call.body)), call.destination.model, is_stream=True)
        url, translation, is_said = _versioned(call, "chat/completions"), ChunkTranslation(), False
        async with self._exchange(call, url, completion, call.timeout_seconds) as answer:
            async for event in _events(answer):
                if event.strip() == b"[DONE]":
                    is_said = True
                    break
                for chunk in translation.take(answers.parse(event)):
                    if call.pause_seconds is not None:
                        answer.bear_silence(call.pause_seconds)
                    yield chunk
            for chunk in translation.end(is_said=is_said):
                yield chunk

    async def _count(self, call: UpstreamCall, request: Mapping[str, Any]) -> int:
        """Count as the server would: llama.cpp writes out its chat template first, vLLM does both in one step."""
        messages, tools = openai_request.to_be_counted(request)
        root, until = call.destination.base_url, time.monotonic() + call.timeout_seconds
        asked: dict[str, Any] = {"model": call.destination.model, "messages": messages}
        asked |= {"tools": tools} if tools else {}
        written = await self._ask_if_there(call, f"{root}/apply-template", asked, call.timeout_seconds)
        if written is not None:
            asked = {"content": written.get("prompt"), "add_special": True, "parse_special": True}
        counted = await self._ask_if_there(call, f"{root}/tokenize", asked, until - time.monotonic())
        if counted is None:
            raise cannot_count()
        return _count_in(counted)

    async def _ask_if_there(
        self, call: UpstreamCall, url: str, body: Mapping[str, Any], seconds: float
    ) -> dict[str, Any] | None:
        """Return the answer, None if the server has no such path."""
        try:
            return await self._ask(call, url, body, seconds)
        except Refused as error:
            if error.http_status in _NO_SUCH_PATH:
                return None
            raise

    async def _ask(self, call: UpstreamCall, url: str, body: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        async with self._exchange(call, url, body, seconds) as answer:
            return answers.parse(await answer.read())

    @asynccontextmanager
    async def _exchange(
        self, call: UpstreamCall, url: str, body: Mapping[str, Any], seconds: float
    ) -> AsyncIterator[HttpAnswer]:
        headers = {"content-type": "application/json", ATTEMPT_HEADER: str(call.attempt_id), **trace_headers()}
        key = call.key.strip()
        key = "" if key == NO_KEY else key
        if key:
            headers["authorization"] = f"Bearer {key}"
        if body.get("stream"):
            # llama.cpp closes the connection after a stream without having said so: the next call on it would break.
            headers["connection"] = "close"
        async with self._transport.exchange(
            "POST",
            url,
            headers=headers,
            body=orjson.dumps(body),
            timeout_seconds=max(seconds, 0.0),
            silence_seconds=call.silence_seconds,
            egress_url=call.destination.egress_url,
        ) as answer:
            if answer.status != 200:
                answers.raise_if_success(answer.status)
                raise refusal(answer.status, answer.headers, await read_refusal(answer, secret=key))
            yield answer


def _versioned(call: UpstreamCall, path: str) -> str:
    return f"{call.destination.base_url}/{call.destination.api_version}/{path}"


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise inexpressible("body", "is not JSON") from None
    if not isinstance(parsed, dict):
        raise inexpressible("body", "is not a JSON object")
    return parsed


async def _events(answer: HttpAnswer) -> AsyncGenerator[bytes, None]:
    """Yield the data of each event."""
    splitter = EventSplitter()
    async for piece in answer.pieces():
        for event in answers.split(splitter, piece):
            yield event
    # A server may leave out the empty line after its last word.
    if not splitter.is_empty:
        for event in splitter.feed(b"\n\n"):
            yield event


def _count_in(answer: Mapping[str, Any]) -> int:
    count, tokens = answer.get("count"), answer.get("tokens")
    if type(count) is int:
        return count
    if isinstance(tokens, list):
        return len(tokens)
    raise Broken("the answer is no count")
