"""Refusals, keys and the other ways in: what the real SDK and a plain HTTP client meet."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from google.genai import errors as genai_errors
from tollhouse_server.simulator.client import RunningSimulator, running_simulator

from tests.drivers.simulator import Gemini, calls_of, sdk

pytestmark = pytest.mark.asyncio(loop_scope="module")
FLASH = "gemini-3.5-flash"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def simulator() -> AsyncIterator[RunningSimulator]:
    async with running_simulator() as running:
        yield running


@pytest.fixture
def key() -> str:
    """A key of the test's own, so that tests share one simulator without meeting."""
    return f"key-{uuid.uuid4().hex}"


@pytest_asyncio.fixture(loop_scope="module")
async def gemini(simulator: RunningSimulator, key: str) -> AsyncIterator[Gemini]:
    async with sdk(simulator, key) as client:
        yield client


async def test_an_unknown_model_gets_the_recorded_404(gemini: Gemini) -> None:
    """The text is the real API's."""
    with pytest.raises(genai_errors.ClientError) as refused:
        await gemini.models.count_tokens(model="nonexistent-model", contents="Hello")

    assert refused.value.code == 404
    assert refused.value.details["error"]["message"].startswith(
        "models/nonexistent-model is not found for API version v1beta, or is not supported for countTokens."
    )


async def test_a_429_carries_retry_info_and_the_quota_that_failed(
    simulator: RunningSimulator, gemini: Gemini, key: str
) -> None:
    """A refusal by plan is parsed by the SDK, and is not served."""
    await simulator.add_fault("429", key=key, count=1, retry_delay_seconds=7.5)

    with pytest.raises(genai_errors.ClientError) as refused:
        await gemini.models.generate_content(model=FLASH, contents="Hello")
    await gemini.models.generate_content(model=FLASH, contents="Hello")

    details = {each["@type"].rpartition(".")[2]: each for each in refused.value.details["error"]["details"]}
    assert refused.value.status == "RESOURCE_EXHAUSTED"
    assert details["RetryInfo"]["retryDelay"] == "7.5s"
    assert details["QuotaFailure"]["violations"][0]["quotaDimensions"]["model"] == FLASH
    assert len(await calls_of(simulator, key)) == 1


async def test_keys_are_refused_suspended_expired_and_limited(
    simulator: RunningSimulator, gemini: Gemini, key: str
) -> None:
    """Each state of a key is Gemini's own error."""

    async def refusal() -> tuple[int, str]:
        with pytest.raises(genai_errors.ClientError) as refused:
            await gemini.models.generate_content(model=FLASH, contents="Hello")
        error: dict[str, Any] = refused.value.details["error"]
        reasons = [each["reason"] for each in error["details"] if "reason" in each]
        return error["code"], reasons[0] if reasons else error["status"]

    await simulator.refuse_key(key)
    refused = await refusal()
    await simulator.refuse_key(key, suspended=True)
    suspended = await refusal()
    await simulator.accept_key(key)
    await simulator.expire_key(key, at=1.0)
    expired = await refusal()
    await simulator.accept_key(key, requests_per_minute=1)
    await gemini.models.generate_content(model=FLASH, contents="Hello")
    limited = await refusal()

    assert refused == expired == (400, "API_KEY_INVALID")
    assert suspended == (403, "CONSUMER_SUSPENDED")
    assert limited == (429, "RESOURCE_EXHAUSTED")


async def test_vertex_paths_bill_the_project_in_the_path(simulator: RunningSimulator, key: str) -> None:
    """A bearer token and a Vertex path, over plain HTTP: the SDK would ask Google for credentials."""
    path = f"/v1beta1/projects/{key}/locations/global/publishers/google/models/{FLASH}:generateContent"
    body = {"contents": [{"parts": [{"text": "Hello"}], "role": "user"}], "labels": {"team": "toll"}}
    headers = {"authorization": f"Bearer {key}", "x-tollhouse-attempt-id": "attempt-7"}

    async with aiohttp.ClientSession() as http, http.post(simulator.url + path, json=body, headers=headers) as answer:
        given = await answer.json()

    [row] = await simulator.calls(project=key)
    assert given["usageMetadata"]["trafficType"] == "ON_DEMAND"
    assert "createTime" in given
    assert row.attempt_id == "attempt-7"


async def test_the_service_tier_is_in_the_header_and_the_log(simulator: RunningSimulator, key: str) -> None:
    """A unary answer names its tier."""
    body = {"contents": [{"parts": [{"text": "Hello"}]}], "serviceTier": "flex"}

    async with (
        aiohttp.ClientSession(headers={"x-goog-api-key": key}) as http,
        http.post(f"{simulator.url}/v1beta/models/{FLASH}:generateContent", json=body) as answer,
    ):
        given = await answer.json()

    [row] = await calls_of(simulator, key)
    assert (
        answer.headers["x-gemini-service-tier"] == given["usageMetadata"]["serviceTier"] == row.service_tier == "flex"
    )


async def test_a_stream_without_sse_is_a_json_array(simulator: RunningSimulator, key: str) -> None:
    """Without alt=sse the chunks are the elements of one array."""
    body = {"contents": [{"parts": [{"text": "Hello [[tokens:50]]"}]}]}

    async with (
        aiohttp.ClientSession(headers={"x-goog-api-key": key}) as http,
        http.post(f"{simulator.url}/v1beta/models/{FLASH}:streamGenerateContent", json=body) as answer,
    ):
        chunks = json.loads(await answer.text())

    assert len(chunks) > 1
    assert chunks[-1]["usageMetadata"]["candidatesTokenCount"] == 50


async def test_capture_shows_raw_requests_without_the_key(
    simulator: RunningSimulator, gemini: Gemini, key: str
) -> None:
    """Bodies and headers are kept as sent, the key only as its id."""
    await simulator.capture_requests(50)
    await gemini.models.generate_content(model=FLASH, contents="Capture me")

    captured = await simulator.requests()
    mine = [each for each in captured if "Capture me" in each.get("body", "")]
    assert mine
    assert mine[-1]["path"] == f"/v1beta/models/{FLASH}:generateContent"
    assert key not in json.dumps(captured)
    await simulator.capture_requests(0)
