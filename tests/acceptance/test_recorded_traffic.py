"""Everything that was recorded of the real Gemini API, on its whole way through gRPC and back. Some 5 s."""

import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.json_format import MessageToDict
from tollhouse.v1 import generation_pb2 as g
from tollhouse.v1.generation_pb2_grpc import GenerationServiceStub
from tollhouse_server.api.gemini_json import Mapper
from tollhouse_server.simulator.client import SimulatorClient

from tests.drivers.callers import bearer, details_of, reason_of
from tests.drivers.stack import RunningStack
from tests.recorded import RecordedExchange, recorded_exchanges

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXCHANGES = recorded_exchanges()
CATALOGUED = {"gemini-2.5-flash", "gemini-2.5-flash-lite", "gemini-2.5-pro", "gemini-3.5-flash", "gemini-embedding-2"}
MAPPER = Mapper()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def simulator(running_stack: RunningStack) -> AsyncIterator[SimulatorClient]:
    async with SimulatorClient(running_stack.simulator) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def channel(running_stack: RunningStack) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(running_stack.grpc) as opened:
        yield opened


def entry_of(exchange: RecordedExchange) -> dict[str, Any]:
    """Return an exchange in the form in which the simulator takes recordings."""
    return {
        "path": exchange.path,
        "request": exchange.request,
        "status": exchange.status,
        "response": exchange.raw_response,
    }


def request_of(exchange: RecordedExchange) -> Any:
    """Return the recorded request as a message, addressed to its own model or to one that the catalogue has."""
    kind = _REQUESTS[exchange.operation]
    # Google's method for one content is served by the one for several.
    body = {"requests": [exchange.request]} if exchange.operation == "embedContent" else exchange.request
    request = MAPPER.to_message(body, kind)
    is_embedding = kind is g.EmbedContentRequest
    stand_in = "gemini-embedding-2" if is_embedding else "gemini-3-flash-preview"
    request.model = exchange.model if exchange.model in CATALOGUED else stand_in
    return request


_REQUESTS: dict[str, Any] = {
    "generateContent": g.GenerateContentRequest,
    "streamGenerateContent": g.GenerateContentRequest,
    "countTokens": g.CountTokensRequest,
    "embedContent": g.EmbedContentRequest,
    "batchEmbedContents": g.EmbedContentRequest,
}


async def answers_to(exchange: RecordedExchange, channel: grpc.aio.Channel, key: str) -> list[Any]:
    """Send a recorded request and return the messages that came back."""
    stub = GenerationServiceStub(channel)
    request, metadata = request_of(exchange), bearer(key)
    if exchange.operation == "streamGenerateContent":
        return [message async for message in stub.StreamGenerateContent(request, metadata=metadata, timeout=20)]
    methods: dict[str, Any] = {
        "generateContent": stub.GenerateContent,
        "countTokens": stub.CountTokens,
        "embedContent": stub.EmbedContent,
        "batchEmbedContents": stub.EmbedContent,
    }
    return [await methods[exchange.operation](request, metadata=metadata, timeout=20)]


def numbered(*statuses: int) -> list[Any]:
    """Return the exchanges that ended with one of these statuses, each named by its number, method and model."""
    return [
        pytest.param(exchange, id=f"{number}-{exchange.operation}-{exchange.model}")
        for number, exchange in enumerate(EXCHANGES)
        if exchange.status in statuses
    ]


async def test_all_222_exchanges_are_there() -> None:
    """Each is either an answer or a refusal, and each goes through one of the tests below."""
    assert len(numbered(200)) + len(numbered(404)) == len(EXCHANGES) == 222


@pytest.mark.parametrize("exchange", numbered(200))
async def test_an_answer_survives_the_way_through_grpc_unchanged(
    running_stack: RunningStack, simulator: SimulatorClient, channel: grpc.aio.Channel, exchange: RecordedExchange
) -> None:
    """The JSON that Google sent comes out again, chunk by chunk, and the usage read from it adds up."""
    await simulator.replay_next(entry_of(exchange))

    answers = await answers_to(exchange, channel, running_stack.demo_api_key)

    outcome = answers[-1].outcome
    is_stream = exchange.operation == "streamGenerateContent"
    content = answers[:-1] if is_stream else answers
    assert [exactly(MAPPER.to_json(answer)) for answer in content] == [exactly(body) for body in exchange.responses]
    assert not is_stream or MAPPER.to_json(answers[-1]) == {}
    assert_usage_adds_up(outcome, exchange)


def exactly(body: Any) -> str:
    """Return JSON as text, the order of members aside: 1 and 1.0 and true, which Python takes for equal, differ."""
    return json.dumps(body, sort_keys=True)


def assert_usage_adds_up(outcome: g.Outcome, exchange: RecordedExchange) -> None:
    """What is reported is read in full: parts, modalities and total agree with each other and with Google's total."""
    reports = [body["usageMetadata"] for body in exchange.responses if "usageMetadata" in body]
    if not reports:
        is_free = exchange.operation == "countTokens"
        assert is_free or [notice.code for notice in outcome.notices] == [g.NOTICE_CODE_USAGE_ESTIMATED]
        assert is_free or not outcome.HasField("usage")
        return
    usage, report = outcome.usage, reports[-1]
    by_direction = dict.fromkeys(g.UsageDirection.values(), 0)
    for line in usage.by_modality:
        by_direction[line.direction] += line.tokens
    parts = usage.prompt_tokens + usage.tool_use_prompt_tokens + usage.candidates_tokens + usage.thoughts_tokens
    assert usage.total_tokens == parts == report.get("totalTokenCount", usage.prompt_tokens)
    assert by_direction[g.USAGE_DIRECTION_PROMPT] == usage.prompt_tokens == report.get("promptTokenCount", 0)
    assert by_direction[g.USAGE_DIRECTION_CACHED] == usage.cached_tokens == report.get("cachedContentTokenCount", 0)
    assert by_direction[g.USAGE_DIRECTION_CANDIDATES] == usage.candidates_tokens
    assert usage.candidates_tokens == report.get("candidatesTokenCount", 0)
    assert usage.thoughts_tokens == report.get("thoughtsTokenCount", 0)
    assert sum(line.quantity for line in outcome.receipt.lines if line.unit == "token") == usage.total_tokens


@pytest.mark.parametrize("exchange", numbered(404))
async def test_a_refusal_comes_through_with_googles_own_words(
    running_stack: RunningStack, simulator: SimulatorClient, channel: grpc.aio.Channel, exchange: RecordedExchange
) -> None:
    """Status, message and details of the error body are all there."""
    await simulator.replay_next(entry_of(exchange))

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await answers_to(exchange, channel, running_stack.demo_api_key)

    error = exchange.responses[0]["error"]
    passed_on: Any = details_of(raised.value)["UpstreamError"]
    assert reason_of(raised.value) == "UPSTREAM_REFUSED"
    assert (passed_on.http_status, passed_on.status) == (error["code"], error["status"])
    assert passed_on.message == error["message"]
    assert [MessageToDict(detail) for detail in passed_on.details] == error.get("details", [])
