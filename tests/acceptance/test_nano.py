"""Nano on a real model on this machine: SmolLM2 behind llama.cpp's OpenAI-compatible server."""

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
import pytest_asyncio
from tollhouse_server.ledger.ledger import new_attempt_id
from tollhouse_server.pricing.usage import from_generate
from tollhouse_server.upstream.http import open_transport
from tollhouse_server.upstream.openai_compatible import OpenAICompatibleUpstream
from tollhouse_server.upstream.protocol import Broken, Destination, Method, Refused, UpstreamCall, UpstreamKind

from tests.drivers.nano import Nano, running_nano

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nano() -> AsyncIterator[Nano]:
    """The model of all tests here."""
    async with running_nano() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def upstream() -> AsyncIterator[OpenAICompatibleUpstream]:
    """The client of one worker."""
    async with open_transport() as transport:
        yield OpenAICompatibleUpstream(transport)


def call_to(
    nano: Nano, text: str, method: Method = Method.GENERATE, *, key: str | None = None, **config: Any
) -> UpstreamCall:
    body: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": text}]}]}
    if method is not Method.COUNT_TOKENS:
        # Greedy, so that the same prompt gets the same answer.
        body["generationConfig"] = {"maxOutputTokens": 12, "temperature": 0, "topK": 1, **config}
    return UpstreamCall(
        attempt_id=new_attempt_id(),
        destination=Destination(
            kind=UpstreamKind.OPENAI_COMPATIBLE, base_url=nano.url, api_version="v1", model=nano.model
        ),
        method=method,
        body=json.dumps(body).encode(),
        timeout_seconds=60.0,
        key=key or nano.key,
    )


def text_of(*chunks: dict[str, Any]) -> str:
    parts = [part for chunk in chunks for part in chunk["candidates"][0]["content"].get("parts", ())]
    return "".join(part["text"] for part in parts)


async def test_a_real_model_answers_with_its_usage(nano: Nano, upstream: OpenAICompatibleUpstream) -> None:
    """Whole: text, reason, model, and counts that can be billed and that it counts alike beforehand."""
    counted = await upstream.call(call_to(nano, "What is the capital of France?", Method.COUNT_TOKENS))

    answer = await upstream.call(call_to(nano, "What is the capital of France?"))

    usage = from_generate(answer["usageMetadata"])
    assert text_of(answer)
    assert answer["modelVersion"] == nano.model
    assert 0 < usage.candidates.total <= 12
    assert usage.prompt.total == counted["totalTokens"]
    assert usage.flags == ()


async def test_a_real_model_streams_what_it_answers(nano: Nano, upstream: OpenAICompatibleUpstream) -> None:
    """Token by token; the last chunk has reason and usage; and the next call finds a connection that works."""
    whole = await upstream.call(call_to(nano, "Count to five."))

    chunks = [chunk async for chunk in upstream.stream(call_to(nano, "Count to five.", Method.STREAM))]
    after = await upstream.call(call_to(nano, "Count to five."))

    assert len(chunks) > 5
    assert text_of(*chunks) == text_of(whole) == text_of(after)
    assert chunks[-1]["candidates"][0]["finishReason"] == whole["candidates"][0]["finishReason"]
    streamed, told = (from_generate(each["usageMetadata"]) for each in (chunks[-1], whole))
    assert (streamed.prompt, streamed.candidates) == (told.prompt, told.candidates)


async def test_the_most_that_it_may_write_binds_a_real_model(nano: Nano, upstream: OpenAICompatibleUpstream) -> None:
    """It stops there, says so, and counts no more."""
    answer = await upstream.call(call_to(nano, "Tell a long story.", maxOutputTokens=3))

    assert answer["candidates"][0]["finishReason"] == "MAX_TOKENS"
    assert answer["usageMetadata"]["candidatesTokenCount"] == 3


async def test_a_stop_sequence_ends_a_real_models_answer(nano: Nano, upstream: OpenAICompatibleUpstream) -> None:
    """What comes from there on is not said."""
    whole = text_of(await upstream.call(call_to(nano, "Count to five.")))
    stop = whole[len(whole) // 2 :][:3]

    answer = await upstream.call(call_to(nano, "Count to five.", stopSequences=[stop]))

    assert text_of(answer) == whole[: whole.index(stop)]
    assert answer["candidates"][0]["finishReason"] == "STOP"


async def test_a_schema_binds_a_real_model(nano: Nano, upstream: OpenAICompatibleUpstream) -> None:
    """Even one this small answers in the words that it may use."""
    shape = {"type": "STRING", "enum": ["wet", "dry"]}

    answer = await upstream.call(
        call_to(nano, "What is water?", responseMimeType="application/json", responseSchema=shape)
    )

    assert json.loads(text_of(answer)) in {"wet", "dry"}


async def test_a_wrong_key_is_refused_by_a_real_server(nano: Nano, upstream: OpenAICompatibleUpstream) -> None:
    """As 401, which is the key's fault and nobody's charge."""
    with pytest.raises(Refused) as raised:
        await upstream.call(call_to(nano, "Hello", key="wrong-key"))

    assert (raised.value.http_status, raised.value.error["status"]) == (401, "UNAUTHENTICATED")


async def test_a_listener_who_goes_leaves_a_real_server_at_work(nano: Nano, upstream: OpenAICompatibleUpstream) -> None:
    """Whoever breaks a stream off in its midst gets his next answer."""
    long = call_to(nano, "Tell a long story.", Method.STREAM, maxOutputTokens=400)
    async with aclosing(upstream.stream(long)) as chunks:
        first = await anext(chunks)

    answer = await upstream.call(call_to(nano, "What is the capital of France?"))

    assert text_of(first)
    assert text_of(answer)


async def test_a_real_server_that_dies_breaks_its_stream(upstream: OpenAICompatibleUpstream) -> None:
    """What had come was passed on; the end says that it is unknown what was used."""
    came = []

    async with running_nano() as mortal:
        call = call_to(mortal, "Tell a long story.", Method.STREAM, maxOutputTokens=400)
        with pytest.raises(Broken):
            async for chunk in upstream.stream(call):
                came.append(chunk)
                mortal.kill()

    assert text_of(*came)
    assert "finishReason" not in came[-1]["candidates"][0]
