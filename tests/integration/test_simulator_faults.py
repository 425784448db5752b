"""Fault plans, seen from the wire: what a client meets, and what the call log says was served."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson
import pytest
import pytest_asyncio
from tollhouse_server.simulator.client import RunningSimulator, SimulatorRefused, running_simulator

pytestmark = pytest.mark.asyncio(loop_scope="module")
_UNARY = "gemini-3.5-flash:generateContent"
_STREAM = "gemini-3.5-flash:streamGenerateContent"
_BODY = {"contents": [{"parts": [{"text": "Hello [[tokens:200]]"}]}]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def simulator() -> AsyncIterator[RunningSimulator]:
    async with running_simulator() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def caller(simulator: RunningSimulator) -> AsyncIterator[Caller]:
    key = uuid.uuid4().hex
    known = await simulator.accept_key(key, project=f"project-{key}")
    async with aiohttp.ClientSession(headers={"x-goog-api-key": key}) as http:
        yield Caller(simulator, http, key, known["id"])


class Caller:
    """A client with a key of its own."""

    def __init__(self, simulator: RunningSimulator, http: aiohttp.ClientSession, key: str, key_id: str) -> None:
        self.simulator, self.http, self.key, self.key_id = simulator, http, key, key_id

    async def post(self, target: str = _UNARY) -> tuple[int, bytes]:
        query = "?alt=sse" if "stream" in target else ""
        async with self.http.post(f"{self.simulator.url}/v1beta/models/{target}{query}", json=_BODY) as answer:
            return answer.status, await answer.read()

    async def read_until_broken(self, target: str) -> bytes:
        """Read what comes before the connection breaks."""
        received = b""
        with pytest.raises(aiohttp.ClientError):
            async with self.http.post(f"{self.simulator.url}/v1beta/models/{target}?alt=sse", json=_BODY) as answer:
                async for piece in answer.content.iter_any():
                    received += piece
        return received

    async def served(self) -> int:
        return await self.simulator.count_calls(key_id=self.key_id)


@pytest.mark.parametrize(
    ("kind", "code"),
    [("400", 400), ("401", 401), ("403", 403), ("404", 404), ("429", 429), ("500", 500), ("503", 503), ("504", 504)],
)
async def test_a_refusal_hits_as_often_as_planned_and_is_not_served(
    simulator: RunningSimulator, caller: Caller, kind: str, code: int
) -> None:
    """The next two calls are refused in Gemini's shape, the third is served."""
    await simulator.add_fault(kind, key=caller.key, count=2)

    answers = [await caller.post() for _ in range(3)]

    assert [status for status, _ in answers] == [code, code, 200]
    assert orjson.loads(answers[0][1])["error"]["code"] == code
    assert await caller.served() == 1


async def test_plans_match_by_project_model_and_method(simulator: RunningSimulator, caller: Caller) -> None:
    """Only the calls that a plan names are hit."""
    project = f"project-{caller.key}"
    await simulator.add_fault("503", project=project, model="gemini-3.5-flash", method="generateContent")

    assert (await caller.post())[0] == 503
    assert (await caller.post(_STREAM))[0] == 200
    assert (await caller.post("gemini-2.5-flash:generateContent"))[0] == 200


async def test_a_rate_is_drawn_from_its_seed(simulator: RunningSimulator, caller: Caller) -> None:
    """The same seed hits the same calls."""

    async def hits() -> list[int]:
        plan = await simulator.add_fault("500", key=caller.key, rate=0.3, seed=11)
        statuses = [(await caller.post())[0] for _ in range(40)]
        await simulator.clear_faults(plan["id"])
        return [at for at, status in enumerate(statuses) if status == 500]

    first, second = await hits(), await hits()

    assert first == second
    assert 5 <= len(first) <= 20


async def test_a_reset_before_the_first_byte_was_served_unless_the_plan_says_otherwise(
    simulator: RunningSimulator, caller: Caller
) -> None:
    """The two outcomes that a client cannot tell apart."""
    await simulator.add_fault("reset", key=caller.key, count=1)
    await simulator.add_fault("reset", key=caller.key, count=1, served=False)

    for _ in range(2):
        with pytest.raises(aiohttp.ClientError):
            await caller.post()

    [row] = await simulator.calls(key_id=caller.key_id)
    assert row.fault == "reset"


async def test_a_reset_mid_stream_leaves_whole_chunks_and_is_served(
    simulator: RunningSimulator, caller: Caller
) -> None:
    """Exactly the planned chunks arrive, then the connection breaks; the log has the full usage."""
    await simulator.add_fault("reset", key=caller.key, count=1, after_chunks=3)

    received = await caller.read_until_broken(_STREAM)

    [row] = await simulator.calls(key_id=caller.key_id)
    assert received.count(b"data: ") == 3
    assert row.usage["candidatesTokenCount"] == 200


async def test_a_truncated_stream_ends_in_good_order_without_a_finish_reason(
    simulator: RunningSimulator, caller: Caller
) -> None:
    """HTTP looks whole; the last event is cut and no finish reason ever came."""
    await simulator.add_fault("truncate", key=caller.key, count=1, after_chunks=2)

    status, received = await caller.post(_STREAM)

    assert status == 200
    assert received.count(b"data: ") == 3
    assert not received.endswith(b"\n")
    assert b"finishReason" not in received
    assert await caller.served() == 1


async def test_a_stream_truncated_before_its_first_chunk_has_half_an_event(
    simulator: RunningSimulator, caller: Caller
) -> None:
    """A 200 that begins and says nothing whole."""
    await simulator.add_fault("truncate", key=caller.key, count=1)

    status, received = await caller.post(_STREAM)

    assert status == 200
    assert received.startswith(b"data: ")
    assert b"\r\n\r\n" not in received
    assert await caller.served() == 1


@pytest.mark.parametrize("chunks", [0, 2])
async def test_a_cut_stream_ends_between_two_events_without_a_finish_reason(
    simulator: RunningSimulator, caller: Caller, chunks: int
) -> None:
    """Every event is whole and HTTP ends in good order: only the missing finish reason tells."""
    await simulator.add_fault("cut", key=caller.key, count=1, after_chunks=chunks)

    status, received = await caller.post(_STREAM)

    assert status == 200
    assert received.count(b"\r\n\r\n") == received.count(b"data: ") == chunks
    assert b"finishReason" not in received
    assert await caller.served() == 1


@pytest.mark.parametrize(
    ("settings", "code", "text"),
    [
        ({"kind": "403"}, 403, "has been suspended"),
        ({"kind": "403", "reason": "leaked"}, 403, "reported as leaked"),
        ({"kind": "401"}, 401, "ACCESS_TOKEN_EXPIRED"),
        ({"kind": "429", "retry_delay_seconds": 3.5}, 429, '"retryDelay":"3.5s"'),
        ({"kind": "429", "requests_per_minute": 600}, 429, '"quotaValue":"600"'),
        ({"kind": "429", "retry_delay_seconds": None}, 429, "Please try again later."),
    ],
)
async def test_a_refusal_says_what_the_plan_wants(
    simulator: RunningSimulator, caller: Caller, settings: dict[str, Any], code: int, text: str
) -> None:
    """Reasons of a 403, and a 429 with RetryInfo or without anything."""
    kind = str(settings["kind"])
    await simulator.add_fault(key=caller.key, count=1, **settings)

    status, received = await caller.post()

    assert status == code == int(kind)
    assert text in received.decode()
    assert (b"details" in received) is (text not in {"Please try again later.", "reported as leaked"})


async def test_a_leaked_key_is_refused_until_it_is_accepted_again(simulator: RunningSimulator, caller: Caller) -> None:
    """Google revokes keys that it finds in public: 403, and nothing is served."""
    await simulator.refuse_key(caller.key, leaked=True)
    refused = await caller.post()
    await simulator.accept_key(caller.key)

    assert refused[0] == 403
    assert b"leaked" in refused[1]
    assert (await caller.post())[0] == 200
    assert await caller.served() == 1


@pytest.mark.parametrize("kind", ["truncate", "cut", "garbage"])
async def test_a_spoiled_unary_body_is_no_json_though_it_is_a_200(
    simulator: RunningSimulator, caller: Caller, kind: str
) -> None:
    """A served call whose answer cannot be read."""
    await simulator.add_fault(kind, key=caller.key, count=1)

    status, received = await caller.post()

    assert status == 200
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(received)
    assert await caller.served() == 1


async def test_garbage_in_a_stream_stands_where_the_plan_puts_it(simulator: RunningSimulator, caller: Caller) -> None:
    """The chunk after the planned ones is garbage, the rest goes on."""
    await simulator.add_fault("garbage", key=caller.key, count=1, after_chunks=1)

    _, received = await caller.post(_STREAM)

    events = received.split(b"\r\n\r\n")
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(events[1].removeprefix(b"data: "))
    orjson.loads(events[2].removeprefix(b"data: "))


@pytest.mark.parametrize("target", [_UNARY, _STREAM])
async def test_a_hang_lasts_until_the_client_gives_up_and_was_served(
    simulator: RunningSimulator, caller: Caller, target: str
) -> None:
    """The call is in the log while the client still waits."""
    await simulator.add_fault("hang", key=caller.key, count=1, after_chunks=1 if target == _STREAM else 0)

    waiting = asyncio.create_task(caller.post(target))
    done, _ = await asyncio.wait([waiting], timeout=0.3)
    served = await caller.served()
    waiting.cancel()
    await asyncio.wait([waiting])

    assert not done
    assert served == 1


async def test_slow_delays_the_first_byte(simulator: RunningSimulator, caller: Caller) -> None:
    """A slow call is late, not wrong."""
    await simulator.add_fault("slow", key=caller.key, count=1, delay_seconds=0.2)

    began = time.monotonic()
    status, _ = await caller.post()

    assert status == 200
    assert time.monotonic() - began >= 0.2


async def test_a_model_keeps_the_pace_that_was_set(simulator: RunningSimulator, caller: Caller) -> None:
    """Latency and tokens per second are settings of a model."""
    await simulator.set_pace("gemini-2.0-flash", latency_ms=50, tokens_per_second=1000)

    began = time.monotonic()
    await caller.post("gemini-2.0-flash:generateContent")
    took = time.monotonic() - began

    await simulator.set_pace("gemini-2.0-flash", latency_ms=0, tokens_per_second=0)
    assert 0.25 <= took < 2


async def test_the_admin_path_names_what_is_wrong_with_a_plan(simulator: RunningSimulator) -> None:
    """A plan that cannot be read is refused and not set."""
    before = await simulator.faults()

    with pytest.raises(SimulatorRefused, match="unknown kind"):
        await simulator.add_fault("explode")
    with pytest.raises(SimulatorRefused, match="unexpected keyword"):
        await simulator.add_fault("500", modle="gemini-3.5-flash")

    assert await simulator.faults() == before
