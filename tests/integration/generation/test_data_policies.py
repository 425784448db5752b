"""Calls of a tenant with a data policy: what the simulator is sent, what the caller reads, what is booked and noted."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import orjson
import pytest
from prometheus_client import CollectorRegistry
from tollhouse_server.database.engine import Database
from tollhouse_server.dlp.findings import FindingLog
from tollhouse_server.dlp.guard import DataGuard
from tollhouse_server.dlp.policy import Action, DataPolicies, DataPolicy, Direction
from tollhouse_server.errors import DataPolicyBlocked
from tollhouse_server.generation.calls import Answer, GenerationCall
from tollhouse_server.ledger.terms import RecordKind
from tollhouse_server.simulator.client import SimulatorClient
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.upstream.protocol import Method

from tests.drivers.generation import GenerationProcess, call_of
from tests.drivers.postgres import TestDatabase
from tests.unit.dlp.builders import EVERYTHING, KEY, policy

EMAIL, CARD, PHONE = "jane.doe@example.com", "4111 1111 1111 1111", "13800138000"
ECHO = "[[echo]] "
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
HIDE = policy(*EVERYTHING, directions=[Direction.PROMPT])
HIDE_ANSWERS = policy(*EVERYTHING, directions=[Direction.ANSWER])
BLOCK = policy("PAYMENT", action=Action.BLOCK, directions=[Direction.PROMPT])
BLOCK_ANSWERS = policy("PAYMENT", action=Action.BLOCK, directions=[Direction.ANSWER])


@dataclass(slots=True)
class Guarded:
    """A worker whose tenant has a policy, and the simulator that it sends to."""

    process: GenerationProcess
    simulator: SimulatorClient
    log: FindingLog

    def obey(self, given: DataPolicy) -> None:
        """Put a policy in force."""
        policies = DataPolicies({"tenants/acme": given}, KEY)
        self.process.generation.guard = DataGuard(lambda: policies, self.log)

    async def sent(self) -> list[Mapping[str, Any]]:
        """Return the bodies that went upstream."""
        return [orjson.loads(one["body"]) for one in await self.simulator.requests() if one["method"] == "POST"]

    async def findings(self) -> list[tuple[str, str, str, int]]:
        """Return what was noted, as the database has it."""
        await self.log.write()
        rows = await self.process.view.connection.fetch(
            "SELECT direction, detector, action, value_count FROM data_finding ORDER BY direction, detector"
        )
        return [tuple(row) for row in rows]

    async def heard(self, call: GenerationCall) -> tuple[str, list[Mapping[str, Any]]]:
        """Listen to a stream to its end; return its text and its chunks."""
        chunks = [one async for one in self.process.streaming.stream(call) if not isinstance(one, Answer)]
        return "".join(map(text_of, chunks)), chunks


@pytest.fixture
async def guarded(
    process: GenerationProcess, simulator: SimulatorClient, fresh_database: TestDatabase
) -> AsyncIterator[Guarded]:
    """The worker of this folder with a log of findings on its database."""
    database = Database(fresh_database.app_dsn, pool_size=1)
    await simulator.capture_requests(20)
    yield Guarded(process, simulator, FindingLog(database, Metrics(CollectorRegistry())))
    await database.close()


def text_of(body: Mapping[str, Any]) -> str:
    """Return the text of an answer or a chunk, thoughts left out."""
    parts = [part for one in body.get("candidates", ()) for part in one.get("content", {}).get("parts", ())]
    return "".join(part.get("text", "") for part in parts if not part.get("thought"))


async def test_values_are_hidden_upstream_and_put_back_for_the_caller(guarded: Guarded) -> None:
    """The same value has one token, and the answer that uses it comes back with the value."""
    guarded.obey(HIDE)

    answer = await guarded.process.generate(call_of(f"{ECHO}Write to {EMAIL} or {EMAIL}, pay with {CARD}."))

    (sent,) = await guarded.sent()
    wanted = f"{ECHO}Write to [EMAIL_1] or [EMAIL_1], pay with [PAYMENT_CARD_1]."
    assert sent["contents"][0]["parts"][0]["text"] == wanted
    assert f"Write to {EMAIL} or {EMAIL}, pay with {CARD}." in text_of(answer.body)
    assert await guarded.findings() == [("PROMPT", "EMAIL", "MASK", 2), ("PROMPT", "PAYMENT_CARD", "MASK", 1)]
    await guarded.process.assert_nothing_in_flight()


async def test_a_stream_restores_what_its_chunks_cut(guarded: Guarded) -> None:
    """Its text is that of the unary answer, its last chunk still has the usage."""
    guarded.obey(HIDE)
    text = f"{ECHO}" + f"Write to {EMAIL}, call {PHONE}. " * 20
    whole = text_of((await guarded.process.generate(call_of(text))).body)

    streamed, chunks = await guarded.heard(call_of(text, method=Method.STREAM))

    assert streamed == whole
    assert streamed.count(EMAIL) == streamed.count(PHONE) == 20
    assert len(chunks) > 3
    assert "usageMetadata" in chunks[-1]
    assert all(EMAIL not in orjson.dumps(sent).decode() for sent in await guarded.sent())


@pytest.mark.parametrize("method", [Method.GENERATE, Method.STREAM, Method.COUNT_TOKENS, Method.EMBED])
async def test_a_blocked_prompt_costs_nothing_and_is_sent_nowhere(guarded: Guarded, method: Method) -> None:
    """The error names the detector and the place, and has no value."""
    guarded.obey(BLOCK)
    call = call_of(f"pay with {CARD}", method=method, **embedding(method, f"pay with {CARD}"))

    with pytest.raises(DataPolicyBlocked) as raised:
        if method is Method.STREAM:
            await guarded.heard(call)
        else:
            await guarded.process.generate(call)

    assert raised.value.detector == "PAYMENT_CARD"
    assert raised.value.field.endswith("parts[0].text")
    assert "4111" not in f"{raised.value.message()}{vars(raised.value)}"
    assert await guarded.sent() == []
    assert await guarded.findings() == [("PROMPT", "PAYMENT_CARD", "BLOCK", 1)]
    await guarded.process.assert_nothing_booked()


def embedding(method: Method, text: str) -> dict[str, Any]:
    """Return what makes a call one to embed."""
    if method is not Method.EMBED:
        return {}
    content = {"parts": [{"text": text}]}
    return {"tier": "embedding", "body": {"requests": [{"content": content}]}}


async def test_texts_of_embeddings_and_of_counts_are_hidden_too(guarded: Guarded) -> None:
    """All that goes upstream goes through the same hands."""
    guarded.obey(HIDE)

    await guarded.process.generate(call_of(f"call {PHONE}", method=Method.COUNT_TOKENS))
    await guarded.process.generate(call_of(method=Method.EMBED, **embedding(Method.EMBED, f"call {PHONE}")))

    assert all(PHONE not in orjson.dumps(sent).decode() for sent in await guarded.sent())
    assert len(await guarded.sent()) == 2


async def test_an_answer_is_hidden_from_its_caller_in_one_piece_and_in_chunks(guarded: Guarded) -> None:
    """The model's own values have tokens of their own, and nothing puts them back."""
    guarded.obey(HIDE_ANSWERS)
    text = f"{ECHO}" + f"Write to {EMAIL}, pay with {CARD}. " * 5

    whole = text_of((await guarded.process.generate(call_of(text))).body)
    streamed, _ = await guarded.heard(call_of(text, method=Method.STREAM))

    assert whole == streamed
    assert EMAIL not in whole
    assert "4111" not in whole
    assert whole.count("[EMAIL_1]") == whole.count("[PAYMENT_CARD_1]") == 5
    assert ("ANSWER", "EMAIL", "MASK", 5) in await guarded.findings()


@pytest.mark.parametrize("method", [Method.GENERATE, Method.STREAM])
async def test_a_blocked_answer_is_booked_exactly(guarded: Guarded, method: Method) -> None:
    """Its caller gets none of the value, and pays for what the model wrote, all of it."""
    guarded.obey(BLOCK_ANSWERS)
    call = call_of(f"{ECHO}" + "Say it. " * 60 + CARD + " and more. " * 60, method=method)
    heard: list[str] = []

    with pytest.raises(DataPolicyBlocked) as raised:
        if method is Method.STREAM:
            async for chunk in guarded.process.streaming.stream(call):
                heard.append(text_of(cast(Mapping[str, Any], chunk)))
        else:
            await guarded.process.generate(call)

    await until_settled(guarded.process)
    record = await guarded.process.record()
    assert raised.value.direction == "ANSWER"
    assert bool(heard) is (method is Method.STREAM)
    assert "4111" not in "".join(heard)
    assert (record.kind, record.outcome) == (RecordKind.SETTLED, "SERVED")
    await guarded.process.assert_nothing_in_flight()


async def until_settled(process: GenerationProcess) -> None:
    """Wait until a call that its caller has left is booked."""
    async with asyncio.timeout(10):
        while not await process.records():  # noqa: ASYNC110 - it is another task's commit
            await asyncio.sleep(0.02)


async def test_every_text_of_a_request_is_looked_through(guarded: Guarded) -> None:
    """Instructions, arguments, results of tools, their keys, long numbers, inline text; and the structure stays."""
    guarded.obey(HIDE)
    inline = {"mimeType": "text/csv", "data": "amFuZS5kb2VAZXhhbXBsZS5jb20sMQ=="}
    picture = {
        "mimeType": "image/png",
        "data": PIXEL,
    }
    arguments = {"who": EMAIL, "card": 4111111111111111}
    body = {
        "systemInstruction": {"parts": [{"text": f"You are {EMAIL}."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "Look at it."}, {"inlineData": inline}, {"inlineData": picture}]},
            {"role": "model", "parts": [{"functionCall": {"name": "find", "args": arguments}}]},
            {"role": "user", "parts": [{"functionResponse": {"name": "find", "response": {EMAIL: [PHONE, 7]}}}]},
        ],
    }  # fmt: skip

    await guarded.process.generate(call_of(body=body))

    (sent,) = await guarded.sent()
    user, model, tool = sent["contents"]
    assert sent["systemInstruction"]["parts"][0]["text"] == "You are [EMAIL_1]."
    assert user["parts"][1]["inlineData"] == {"mimeType": "text/csv", "data": "W0VNQUlMXzFdLDE="}
    assert user["parts"][2]["inlineData"] == picture
    assert model["parts"][0]["functionCall"]["args"] == {"who": "[EMAIL_1]", "card": "[PAYMENT_CARD_1]"}
    assert tool["parts"][0]["functionResponse"]["response"] == {"[EMAIL_1]": ["[PHONE_1]", 7]}


async def test_a_tenant_without_a_policy_is_sent_as_it_is(guarded: Guarded) -> None:
    """Nothing is looked for unless somebody has said so."""
    policies = DataPolicies({"tenants/other": HIDE}, KEY)
    guarded.process.generation.guard = DataGuard(lambda: policies, guarded.log)

    await guarded.process.generate(call_of(f"{ECHO}Write to {EMAIL}"))

    (sent,) = await guarded.sent()
    assert sent["contents"][0]["parts"][0]["text"] == f"{ECHO}Write to {EMAIL}"
    assert await guarded.findings() == []


async def test_a_drain_that_meets_a_writing_under_way_loses_no_finding(guarded: Guarded) -> None:
    """Each takes what it has written off the list, and nothing else."""
    guarded.obey(HIDE)
    await guarded.process.generate(call_of(f"{ECHO}Write to {EMAIL}"))

    await asyncio.gather(guarded.log.write(), guarded.log.write())

    assert await guarded.findings() == [("PROMPT", "EMAIL", "MASK", 1)]
