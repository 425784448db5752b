"""The Developer API's client against the simulator: answers as they were sent, and every way in which a call fails."""

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from tollhouse_server.ledger.ledger import new_attempt_id
from tollhouse_server.simulator.client import RunningSimulator, running_simulator
from tollhouse_server.upstream.gemini import GeminiUpstream
from tollhouse_server.upstream.http import open_transport
from tollhouse_server.upstream.protocol import (
    ATTEMPT_HEADER,
    Broken,
    Destination,
    Method,
    NotSent,
    Refused,
    UpstreamCall,
)

MODEL = "gemini-3.5-flash"
BODY: dict[str, Any] = {"contents": [{"parts": [{"text": "How long is the bridge?"}], "role": "user"}]}


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[RunningSimulator]:
    """One simulator for all."""
    async with running_simulator() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def simulator(running: RunningSimulator) -> RunningSimulator:
    """The simulator, which remembers what this test sends."""
    await running.clear_faults()
    await running.capture_requests(0)
    await running.capture_requests(10)
    return running


@pytest_asyncio.fixture(loop_scope="module")
async def upstream() -> AsyncIterator[GeminiUpstream]:
    """The client of one worker."""
    async with open_transport() as transport:
        yield GeminiUpstream(transport)


def call_to(url: str, method: Method = Method.GENERATE, body: dict[str, Any] = BODY, **changes: Any) -> UpstreamCall:
    """Build a call."""
    values: dict[str, Any] = {
        "attempt_id": new_attempt_id(),
        "destination": Destination(base_url=url, api_version="v1beta", model=MODEL),
        "method": method,
        "body": json.dumps(body).encode(),
        "timeout_seconds": 5.0,
        "key": f"key-{uuid4().hex}",
    }
    return UpstreamCall(**(values | changes))


async def test_a_call_carries_its_attempt(simulator: RunningSimulator, upstream: GeminiUpstream) -> None:
    """The simulator's log is matched with the ledger by it."""
    call = call_to(simulator.url)

    await upstream.call(call)

    (request,) = await simulator.requests()
    assert dict(request["headers"])[ATTEMPT_HEADER] == str(call.attempt_id)
    assert await simulator.count_calls(attempt_id=str(call.attempt_id)) == 1


async def test_a_stream_yields_every_chunk_as_sent(simulator: RunningSimulator, upstream: GeminiUpstream) -> None:
    """The chunks together are the unary answer's text."""
    whole = await upstream.call(call_to(simulator.url))

    chunks = [chunk async for chunk in upstream.stream(call_to(simulator.url, Method.STREAM))]

    assert len(chunks) > 1
    assert "".join(map(text_of, chunks)) == text_of(whole)
    assert chunks[-1]["candidates"][0]["finishReason"] == "STOP"


def text_of(body: dict[str, Any]) -> str:
    """Return the text of an answer or a chunk, thoughts left out."""
    parts = body["candidates"][0]["content"]["parts"]
    return "".join(part.get("text", "") for part in parts if not part.get("thought"))


async def test_nobody_listening_is_not_sent(upstream: GeminiUpstream) -> None:
    """A refused connection cost nothing."""
    with pytest.raises(NotSent):
        await upstream.call(call_to("http://127.0.0.1:9"))


@pytest.mark.parametrize(("kind", "status"), [("429", 429), ("500", 500), ("503", 503)])
async def test_an_error_status_is_a_refusal_with_googles_body(
    simulator: RunningSimulator, upstream: GeminiUpstream, kind: str, status: int
) -> None:
    """What Google says is kept whole, and nothing was served."""
    await simulator.add_fault(kind, count=1)
    call = call_to(simulator.url)

    with pytest.raises(Refused) as raised:
        await upstream.call(call)

    assert raised.value.http_status == status
    assert raised.value.error["code"] == status
    assert await simulator.count_calls(attempt_id=str(call.attempt_id)) == 0


@pytest.mark.parametrize("kind", ["reset", "garbage", "hang"])
@pytest.mark.parametrize("method", [Method.GENERATE, Method.STREAM])
async def test_what_breaks_after_sending_is_broken(
    simulator: RunningSimulator, upstream: GeminiUpstream, kind: str, method: Method
) -> None:
    """Reset, garbage and silence after the request was sent: perhaps charged, so never called free."""
    await simulator.add_fault(kind, count=1)
    call = call_to(simulator.url, method, timeout_seconds=0.3)

    with pytest.raises(Broken):
        if method is Method.STREAM:
            _ = [chunk async for chunk in upstream.stream(call)]
        else:
            await upstream.call(call)


async def test_the_key_shows_in_no_repr(simulator: RunningSimulator) -> None:
    """A call that is logged by accident gives nothing away."""
    call = call_to(simulator.url, key="AIza-canary")

    assert "canary" not in repr(call)
