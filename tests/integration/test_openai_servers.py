"""Peculiarities of single OpenAI-compatible servers, said byte for byte."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tollhouse_server.ledger.ledger import new_attempt_id
from tollhouse_server.upstream.http import open_transport
from tollhouse_server.upstream.openai_compatible import OpenAICompatibleUpstream
from tollhouse_server.upstream.protocol import Broken, Destination, Method, Refused, UpstreamCall, UpstreamKind

from tests.drivers.wire import Server, Wire, answer, answering, serving

BODY = {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}
WORD = {"id": "c-1", "model": "m", "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}]}
END = {"id": "c-1", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
NO_SUCH_PATH = answer(b'{"detail": "Not Found"}', status="404 Not Found")


@pytest.fixture
async def upstream() -> AsyncIterator[OpenAICompatibleUpstream]:
    """The client of one worker."""
    async with open_transport() as transport:
        yield OpenAICompatibleUpstream(transport)


def call_to(server: Server, method: Method) -> UpstreamCall:
    destination = Destination(kind=UpstreamKind.OPENAI_COMPATIBLE, base_url=server.url, api_version="v1", model="m")
    return UpstreamCall(
        attempt_id=new_attempt_id(),
        destination=destination,
        method=method,
        body=json.dumps(BODY).encode(),
        timeout_seconds=5.0,
        silence_seconds=1.0,
        key="key",
    )


def piece(text: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(text), text)


def event(body: dict[str, Any]) -> bytes:
    return piece(b"data: " + json.dumps(body).encode() + b"\n\n")


async def test_llama_cpp_counts_what_its_template_writes(upstream: OpenAICompatibleUpstream) -> None:
    """It writes the prompt out first, as it would for a completion, and splits that into tokens."""
    async with answering(answer(b'{"prompt": "<s>Hello"}'), answer(b'{"tokens": [1, 2, 3]}')) as server:
        counted = await upstream.call(call_to(server, Method.COUNT_TOKENS))

    template, split = server.seen
    assert counted == {"totalTokens": 3}
    assert (template.target, split.target) == ("/apply-template", "/tokenize")
    assert json.loads(template.body)["messages"] == [{"role": "user", "content": "Hello"}]
    assert json.loads(split.body) == {"content": "<s>Hello", "add_special": True, "parse_special": True}


async def test_vllm_counts_a_conversation_in_one_step(upstream: OpenAICompatibleUpstream) -> None:
    """It has no way to write a template out, and needs none."""
    async with answering(NO_SUCH_PATH, answer(b'{"count": 7, "tokens": []}')) as server:
        counted = await upstream.call(call_to(server, Method.COUNT_TOKENS))

    assert counted == {"totalTokens": 7}
    assert json.loads(server.seen[1].body)["messages"] == [{"role": "user", "content": "Hello"}]


async def test_a_server_that_cannot_count_is_told_of(upstream: OpenAICompatibleUpstream) -> None:
    """No estimate is sold as a count."""
    async with answering(NO_SUCH_PATH) as server:
        with pytest.raises(Refused) as raised:
            await upstream.call(call_to(server, Method.COUNT_TOKENS))

    assert raised.value.http_status == 404
    assert "cannot count" in raised.value.error["message"]


@pytest.mark.parametrize("body", [b'{"count": "many"}', b"[]", b"<html>"])
async def test_a_count_that_is_none_is_broken(upstream: OpenAICompatibleUpstream, body: bytes) -> None:
    """Nonsense is not passed on as a number."""
    async with answering(NO_SUCH_PATH, answer(body)) as server:
        with pytest.raises(Broken):
            await upstream.call(call_to(server, Method.COUNT_TOKENS))


async def test_a_stream_is_asked_for_on_a_connection_of_its_own(upstream: OpenAICompatibleUpstream) -> None:
    """llama.cpp closes it afterwards without a word; on any other call it is kept."""
    stream = HEAD + event(WORD) + event(END) + piece(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    whole = answer(json.dumps({"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]}).encode())

    async with answering(stream, whole) as server:
        _ = [chunk async for chunk in upstream.stream(call_to(server, Method.STREAM))]
        await upstream.call(call_to(server, Method.GENERATE))

    assert [seen.headers.get("connection") == "close" for seen in server.seen] == [True, False]


async def test_the_last_word_ends_a_stream_that_stays_open(upstream: OpenAICompatibleUpstream) -> None:
    """Nobody waits for a server that has said [DONE], nor for reasons that it never gives."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.say(HEAD, event(WORD), piece(b": ping\n\n"), piece(b"data: [DONE]\n\n"))
        await wire.request()

    async with serving(script) as server:
        chunks = [chunk async for chunk in upstream.stream(call_to(server, Method.STREAM))]

    assert [each["candidates"][0].get("finishReason") for each in chunks] == [None, "OTHER"]


@pytest.mark.parametrize(
    ("rest", "is_whole"),
    [
        (event(END), True),
        (piece(b"data: [DONE]"), True),
        (b"", False),
        (piece(b'data: {"choices": [{"del'), False),
        (event({"error": {"message": "out of memory"}}), False),
    ],
)
async def test_a_stream_that_just_ends(upstream: OpenAICompatibleUpstream, rest: bytes, *, is_whole: bool) -> None:
    """It is whole if the answer was finished, with or without a last word; else it is unknown what was used."""
    async with answering(HEAD + event(WORD) + rest + b"0\r\n\r\n") as server:
        came, broken = [], False
        try:
            async for chunk in upstream.stream(call_to(server, Method.STREAM)):
                came.append(chunk)
        except Broken:
            broken = True

    assert broken is not is_whole
    assert len(came) == 1 + is_whole
