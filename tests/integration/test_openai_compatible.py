"""The client of OpenAI-compatible servers against the simulator as one of them."""

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from tollhouse_server.ledger.ledger import new_attempt_id
from tollhouse_server.pricing.usage import Usage, from_embed, from_generate
from tollhouse_server.simulator.client import RunningSimulator, running_simulator
from tollhouse_server.upstream.http import open_transport
from tollhouse_server.upstream.openai_compatible import OpenAICompatibleUpstream
from tollhouse_server.upstream.protocol import (
    ATTEMPT_HEADER,
    Broken,
    Destination,
    Method,
    NotSent,
    Refused,
    UpstreamCall,
    UpstreamKind,
)

MODEL = "gemini-3.5-flash"
EMBEDDING = "gemini-embedding-2"
PICTURE = {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}
WEATHER = {
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {"type": "OBJECT", "properties": {"city": {"type": "STRING"}}, "required": ["city"]},
}


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one_for_all() -> AsyncIterator[RunningSimulator]:
    """The simulator of all tests here, which run one after the other."""
    async with running_simulator() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def simulator(one_for_all: RunningSimulator) -> RunningSimulator:
    """A simulator without faults that remembers what this test has sent."""
    await one_for_all.clear_faults()
    await one_for_all.capture_requests(0)
    await one_for_all.capture_requests(10)
    return one_for_all


@pytest_asyncio.fixture(loop_scope="module")
async def upstream() -> AsyncIterator[OpenAICompatibleUpstream]:
    """The client of one worker."""
    async with open_transport() as transport:
        yield OpenAICompatibleUpstream(transport)


def said(text: str, **members: Any) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": [{"text": text}]}], **members}


def call_to(
    url: str, body: dict[str, Any], method: Method = Method.GENERATE, *, model: str = MODEL, **changes: Any
) -> UpstreamCall:
    values: dict[str, Any] = {
        "attempt_id": new_attempt_id(),
        "destination": Destination(kind=UpstreamKind.OPENAI_COMPATIBLE, base_url=url, api_version="v1", model=model),
        "method": method,
        "body": json.dumps(body).encode(),
        "timeout_seconds": 5.0,
        "key": f"key-{uuid4().hex}",
    }
    return UpstreamCall(**(values | changes))


def text_of(body: dict[str, Any], *, thoughts: bool = False) -> str:
    parts = [part for each in body.get("candidates", ()) for part in each["content"].get("parts", ())]
    return "".join(part.get("text", "") for part in parts if bool(part.get("thought")) is thoughts)


def counts(usage: Usage) -> tuple[int, ...]:
    return (usage.prompt.total, usage.cached.total, usage.candidates.total, usage.thoughts_tokens)


async def test_an_answer_says_and_counts_what_the_server_served(
    simulator: RunningSimulator, upstream: OpenAICompatibleUpstream
) -> None:
    """Text, reason, model, and the usage that the server's own log has, thoughts apart."""
    call = call_to(simulator.url, said("How long is the bridge? [[tokens:30]]"))

    answer = await upstream.call(call)

    [row] = await simulator.calls(attempt_id=str(call.attempt_id))
    billed = from_generate(answer["usageMetadata"])
    assert "How long is the bridge?" in text_of(answer)
    assert answer["candidates"][0]["finishReason"] == "STOP"
    assert (answer["modelVersion"], answer["responseId"]) == (MODEL, row.response_id)
    assert counts(billed) == counts(from_generate(row.usage))
    assert billed.candidates.total == 30
    assert billed.thoughts_tokens > 0
    assert (row.model, row.method) == (MODEL, "generateContent")


async def test_a_stream_says_and_counts_what_the_whole_answer_does(
    simulator: RunningSimulator, upstream: OpenAICompatibleUpstream
) -> None:
    """Chunk by chunk, the last one with reason and usage."""
    body = said("How long is the bridge? [[tokens:90]]", generationConfig={"thinkingConfig": {"thinkingLevel": "LOW"}})
    whole = await upstream.call(call_to(simulator.url, body))

    chunks = [chunk async for chunk in upstream.stream(call_to(simulator.url, body, Method.STREAM))]

    assert len(chunks) > 3
    assert "".join(map(text_of, chunks)) == text_of(whole)
    assert "".join(text_of(chunk, thoughts=True) for chunk in chunks) == text_of(whole, thoughts=True) != ""
    assert [("usageMetadata" in chunk) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1]["usageMetadata"] == whole["usageMetadata"]
    assert chunks[-1]["candidates"][0]["finishReason"] == "STOP"


async def test_a_conversation_with_functions_goes_there_and_back(
    simulator: RunningSimulator, upstream: OpenAICompatibleUpstream
) -> None:
    """The model calls a declared function, unary and streamed alike, and takes its response under the call's id."""
    tools = {"tools": [{"functionDeclarations": [WEATHER]}]}
    asked = said("How is the weather in Brno?", **tools, toolConfig={"functionCallingConfig": {"mode": "ANY"}})

    answer = await upstream.call(call_to(simulator.url, asked))
    *_, last = [chunk async for chunk in upstream.stream(call_to(simulator.url, asked, Method.STREAM))]
    [called] = answer["candidates"][0]["content"]["parts"]
    response = {"functionResponse": {"id": called["functionCall"]["id"], "name": "weather", "response": {"C": 3}}}
    turns = [*asked["contents"], answer["candidates"][0]["content"], {"role": "user", "parts": [response]}]
    told = await upstream.call(call_to(simulator.url, {"contents": turns, **tools}))

    assert called["functionCall"]["name"] == "weather"
    assert isinstance(called["functionCall"]["args"]["city"], str)
    assert last["candidates"][0]["content"]["parts"] == [called]
    assert text_of(told)


async def test_settings_bind_the_answer(simulator: RunningSimulator, upstream: OpenAICompatibleUpstream) -> None:
    """Candidates, length, structure, log probabilities and pictures in the prompt."""
    schema = {"type": "OBJECT", "properties": {"metres": {"type": "INTEGER"}}, "required": ["metres"]}
    shaped = {"responseMimeType": "application/json", "responseSchema": schema}
    short = {"maxOutputTokens": 8, "candidateCount": 2, "thinkingConfig": {"thinkingBudget": 0}}
    seen = said("What is this?")
    seen["contents"][0]["parts"].append(PICTURE)

    structured = await upstream.call(call_to(simulator.url, said("How long?", generationConfig=shaped)))
    cut = await upstream.call(call_to(simulator.url, said("Long? [[full]]", generationConfig=short)))
    odd = said("Likely?", generationConfig={"responseLogprobs": True, "logprobs": 2})
    likely = await upstream.call(call_to(simulator.url, odd))
    pictured = await upstream.call(call_to(simulator.url, seen))

    assert isinstance(json.loads(text_of(structured))["metres"], int)
    assert [each["finishReason"] for each in cut["candidates"]] == ["MAX_TOKENS", "MAX_TOKENS"]
    assert cut["usageMetadata"]["candidatesTokenCount"] == 16
    assert len(likely["candidates"][0]["logprobsResult"]["topCandidates"][0]["candidates"]) == 2
    assert pictured["usageMetadata"]["promptTokenCount"] > 1000


async def test_embeddings_and_counts(simulator: RunningSimulator, upstream: OpenAICompatibleUpstream) -> None:
    """One vector a text; a count is the prompt's, and is not in the log of what is billed."""
    requests = [{"content": {"parts": [{"text": text}]}, "outputDimensionality": 8} for text in ("a", "toll road")]
    embed = call_to(simulator.url, {"requests": requests}, Method.EMBED, model=EMBEDDING)

    vectors = await upstream.call(embed)
    count = call_to(simulator.url, said("How long is the bridge?"), Method.COUNT_TOKENS)
    counted = await upstream.call(count)

    [row] = await simulator.calls(attempt_id=str(embed.attempt_id))
    answer = await upstream.call(call_to(simulator.url, said("How long is the bridge?")))
    assert [len(each["values"]) for each in vectors["embeddings"]] == [8, 8]
    assert counts(from_embed(vectors)) == counts(from_generate(row.usage))
    assert await simulator.count_calls(attempt_id=str(count.attempt_id)) == 0
    assert counted["totalTokens"] == answer["usageMetadata"]["promptTokenCount"]


async def test_missing_usage_stays_missing(simulator: RunningSimulator, upstream: OpenAICompatibleUpstream) -> None:
    """A server that reports none is not taken to have served for nothing."""
    body = said("How long? [[no-usage]]")

    answer = await upstream.call(call_to(simulator.url, body))
    chunks = [chunk async for chunk in upstream.stream(call_to(simulator.url, body, Method.STREAM))]

    assert all("usageMetadata" not in each for each in (answer, *chunks))


@pytest.mark.parametrize("around", ["", "\n"])
async def test_the_key_and_the_attempt_travel_as_headers(
    simulator: RunningSimulator, upstream: OpenAICompatibleUpstream, around: str
) -> None:
    """A bearer token, or none at all where the account's key says so; a line's end behind it is not part of it."""
    keyed, keyless = (call_to(simulator.url, said("x"), key=f"{key}{around}") for key in (f"key-{uuid4().hex}", "none"))

    await upstream.call(keyed)
    with pytest.raises(Refused) as raised:
        await upstream.call(keyless)

    first, second = [dict(request["headers"]) for request in await simulator.requests()]
    assert first["authorization"].startswith("redacted:")
    assert first[ATTEMPT_HEADER] == str(keyed.attempt_id)
    assert "authorization" not in second
    assert raised.value.http_status == 401


async def test_what_cannot_be_expressed_is_not_sent(
    simulator: RunningSimulator, upstream: OpenAICompatibleUpstream
) -> None:
    """The server never hears of it."""
    with pytest.raises(Refused):
        await upstream.call(call_to(simulator.url, said("x", tools=[{"googleSearch": {}}])))

    assert await simulator.requests() == []


async def test_nobody_listening_is_not_sent(upstream: OpenAICompatibleUpstream) -> None:
    """A refused connection cost nothing."""
    with pytest.raises(NotSent):
        await upstream.call(call_to("http://127.0.0.1:9", said("x")))


@pytest.mark.parametrize(
    ("kind", "status"), [("429", "RESOURCE_EXHAUSTED"), ("500", "INTERNAL"), ("503", "UNAVAILABLE")]
)
@pytest.mark.parametrize("method", [Method.GENERATE, Method.STREAM])
async def test_an_error_status_is_a_refusal_in_geminis_shape(
    simulator: RunningSimulator, upstream: OpenAICompatibleUpstream, kind: str, status: str, method: Method
) -> None:
    """Nothing was served, and a 429 says when to come back."""
    await simulator.add_fault(kind, count=1, retry_delay_seconds=3)
    call = call_to(simulator.url, said("x"), method)

    with pytest.raises(Refused) as raised:
        await anext(upstream.stream(call)) if method is Method.STREAM else await upstream.call(call)

    delays = [detail["retryDelay"] for detail in raised.value.error["details"] if "retryDelay" in detail]
    assert (raised.value.http_status, raised.value.error["status"]) == (int(kind), status)
    assert delays == (["3s"] if kind == "429" else [])
    assert await simulator.count_calls(attempt_id=str(call.attempt_id)) == 0


@pytest.mark.parametrize("kind", ["reset", "garbage", "hang", "truncate"])
@pytest.mark.parametrize(("method", "after"), [(Method.GENERATE, 0), (Method.STREAM, 0), (Method.STREAM, 2)])
async def test_what_breaks_after_sending_is_broken(
    simulator: RunningSimulator, upstream: OpenAICompatibleUpstream, kind: str, method: Method, after: int
) -> None:
    """Reset, garbage, silence and an early end: perhaps charged, never called free; what came before is passed on."""
    await simulator.add_fault(kind, count=1, after_chunks=after)
    call = call_to(simulator.url, said("How long? [[tokens:90]]"), method, silence_seconds=0.3)
    came = []

    with pytest.raises(Broken) as raised:
        if method is Method.STREAM:
            async for chunk in upstream.stream(call):
                came.append(chunk)
        else:
            await upstream.call(call)

    assert len(came) == after
    assert ("silent" in str(raised.value)) is (kind == "hang")
    assert await simulator.count_calls(attempt_id=str(call.attempt_id)) == 1


async def test_the_servers_own_list_names_its_models(simulator: RunningSimulator) -> None:
    """An administrator can ask a server what it serves; with an API key the same path is Gemini's."""
    async with open_transport() as transport:
        lists = []
        for headers in ({"authorization": "Bearer key"}, {"x-goog-api-key": "key"}):
            async with transport.exchange(
                "GET", f"{simulator.url}/v1/models", headers=headers, timeout_seconds=5.0
            ) as answer:
                lists.append(json.loads(await answer.read()))

    openai, gemini = lists
    assert MODEL in {each["id"] for each in openai["data"]}
    assert f"models/{MODEL}" in {each["name"] for each in gemini["models"]}
