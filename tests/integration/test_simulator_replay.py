"""Recorded traffic: every exchange can be replayed, and every key path of it produced or replayed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from tollhouse_server.simulator.client import RunningSimulator, running_simulator

from tests import recorded
from tests.recorded import RecordedExchange, recorded_exchanges

pytestmark = pytest.mark.asyncio(loop_scope="module")
_TRAFFIC = Path(recorded.__file__).with_name("gemini_traffic.jsonl.gz")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def simulator() -> AsyncIterator[RunningSimulator]:
    async with running_simulator(replay=str(_TRAFFIC)) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers={"x-goog-api-key": "k"}) as session:
        yield session


def bodies(content: str) -> tuple[dict[str, Any], ...]:
    """Read a unary body, or the events of a stream."""
    if content.startswith("data:"):
        return tuple(json.loads(line.removeprefix("data:")) for line in content.splitlines() if line)
    return (json.loads(content),)


def key_paths(value: Any, path: str = "") -> set[str]:
    """Collect the paths of all keys, list positions left out."""
    if isinstance(value, list):
        return set().union(*(key_paths(each, f"{path}[]") for each in value))
    if not isinstance(value, dict):
        return set()
    own = {f"{path}.{name}" for name in value}
    return own.union(*(key_paths(inner, f"{path}.{name}") for name, inner in value.items()))


async def fetch(http: aiohttp.ClientSession, url: str, exchange: RecordedExchange, **headers: str) -> tuple[int, str]:
    async with http.post(url + exchange.path, json=exchange.request, headers=headers) as answer:
        return answer.status, await answer.text()


async def test_every_recorded_exchange_is_replayed_by_its_number(
    simulator: RunningSimulator, http: aiohttp.ClientSession
) -> None:
    """The header `x-simulator-replay` picks a recording, whatever was asked; no key path is missing then."""
    wanted: set[str] = set()
    given: set[str] = set()
    for number, exchange in enumerate(recorded_exchanges()):
        status, content = await fetch(http, simulator.url, exchange, **{"x-simulator-replay": str(number)})

        assert status == exchange.status
        assert bodies(content) == exchange.responses
        wanted |= key_paths(list(exchange.responses))
        given |= key_paths(list(bodies(content)))

    assert len(wanted) > 100
    assert wanted <= given


async def test_a_request_equal_to_a_recorded_one_gets_the_recorded_answer(
    simulator: RunningSimulator, http: aiohttp.ClientSession
) -> None:
    """Without a header, path and body decide; twins of one request share its first answer."""
    exchanges = recorded_exchanges()
    answers: dict[str, tuple[dict[str, Any], ...]] = {}
    for exchange in exchanges:
        question = json.dumps([exchange.path.split("?")[0], exchange.request], sort_keys=True)
        answers.setdefault(question, exchange.responses)

        status, content = await fetch(http, simulator.url, exchange)

        assert status == exchange.status
        assert bodies(content) == answers[question]
    assert len(answers) > 150


async def test_a_replayed_call_is_logged_with_its_recorded_usage(
    simulator: RunningSimulator, http: aiohttp.ClientSession
) -> None:
    """The referee books what the recording reports."""
    exchanges = recorded_exchanges()
    number = next(at for at, each in enumerate(exchanges) if each.operation == "streamGenerateContent")
    before = await simulator.calls()

    await fetch(http, simulator.url, exchanges[number], **{"x-simulator-replay": str(number)})

    after = await simulator.calls(after=before[-1].sequence if before else 0)
    assert [row.usage for row in after] == [exchanges[number].responses[-1]["usageMetadata"]]


async def test_recorded_requests_are_understood_without_their_recordings() -> None:
    """Every request that the real API answered is answered; unknown models are the only exception."""
    async with running_simulator() as plain, aiohttp.ClientSession(headers={"x-goog-api-key": "k"}) as session:
        for exchange in recorded_exchanges():
            status, content = await fetch(session, plain.url, exchange)

            if status != 200:
                assert status == 404, content
                assert exchange.model in {"nonexistent-model", "gemini-1.5-flash", "gemini-2.5-pro-preview-03-25"}


async def test_recordings_that_wait_answer_the_next_calls_in_turn() -> None:
    """Whatever is asked, and without replay in the settings; new ones take the place of those that still wait."""
    with_usage = [each for each in recorded_exchanges() if each.operation == "generateContent"][:3]
    entries = [
        {"path": each.path, "request": each.request, "status": each.status, "response": each.raw_response}
        for each in with_usage
    ]
    question = json.dumps({"contents": [{"parts": [{"text": "Hello"}]}]})
    async with running_simulator() as plain, aiohttp.ClientSession(headers={"x-goog-api-key": "k"}) as session:

        async def ask() -> Any:
            path = "/v1beta/models/gemini-2.5-flash:generateContent"
            async with session.post(plain.url + path, data=question) as answer:
                return await answer.json(content_type=None)

        await plain.replay_next(entries[2])
        await plain.replay_next(*entries[:2])
        given = [await ask() for _ in range(3)]

    assert given[:2] == [with_usage[0].responses[0], with_usage[1].responses[0]]
    assert given[2] not in [each.responses[0] for each in with_usage]
