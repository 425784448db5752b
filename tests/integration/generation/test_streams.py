"""A streaming call: chunks as they come, and what is booked however it ends, for whoever listens."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self, cast
from uuid import UUID

import orjson
import pytest
from tollhouse_server.errors import NoUpstreamKey, UpstreamOutcomeUnknown
from tollhouse_server.generation.calls import Answer, GenerationCall
from tollhouse_server.ledger.terms import RecordKind
from tollhouse_server.long_values import Json
from tollhouse_server.simulator.client import SimulatorClient
from tollhouse_server.upstream.protocol import Method

from tests.drivers.bills import ListPriceBook, total_nanos
from tests.drivers.generation import (
    GenerationProcess,
    UpstreamAccount,
    account_at,
    call_of,
    generation_process,
    models_of,
    served_with,
)
from tests.drivers.postgres import TestDatabase

FIRST, SECOND, _ = models_of("flash")
MANY = "[[tokens:3200]]"
"""200 chunks: three times what is kept for a slow reader."""
MANY_SETTINGS = {"maxOutputTokens": 6000}

Listening = AsyncGenerator[Mapping[str, Any] | Answer, None]


def stream_of(text: str = "[[tokens:160]]", **changes: Any) -> GenerationCall:
    """Build a streaming call whose answer has ten chunks or so."""
    return call_of(text, method=Method.STREAM, **changes)


def listening(process: GenerationProcess, call: GenerationCall) -> Listening:
    """Start to listen."""
    return cast(Listening, process.streaming.stream(call))


async def heard(listener: Listening) -> tuple[list[Mapping[str, Any]], Answer]:
    """Listen to the end; part the chunks from the answer that follows them."""
    *chunks, answer = [item async for item in listener]
    assert isinstance(answer, Answer)
    assert not any(isinstance(chunk, Answer) for chunk in chunks)
    return cast(list[Mapping[str, Any]], chunks), answer


def finish_of(chunk: Mapping[str, Any] | Answer) -> str | None:
    """Return a chunk's finish reason."""
    assert not isinstance(chunk, Answer)
    return cast(str | None, chunk["candidates"][0].get("finishReason"))


def text_of(chunk: Mapping[str, Any] | Answer) -> str:
    """Return the text of a chunk or of a whole answer, thoughts left out."""
    assert not isinstance(chunk, Answer)
    parts = chunk["candidates"][0]["content"].get("parts", [])
    return "".join(part["text"] for part in parts if not part.get("thought"))


async def test_a_stream_is_settled_at_what_its_last_chunk_reports(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount
) -> None:
    """All chunks, then the receipt alone; record and the simulator's own log agree."""
    chunks, answer = await heard(listening(process, stream_of()))

    (served,) = await served_with(simulator, account.secrets[0])
    record = await process.record()
    assert len(chunks) >= 10
    assert [finish_of(chunk) for chunk in chunks] == [None] * (len(chunks) - 1) + ["STOP"]
    assert chunks[-1]["usageMetadata"] == served.usage
    assert (record.kind, str(record.attempt_id)) == (RecordKind.SETTLED, served.attempt_id)
    assert record.cost_nanos == answer.outcome.priced.cost_nanos == total_nanos([ListPriceBook().bill(served)])
    assert (answer.body, record.response_id) == ({}, chunks[-1]["responseId"])
    await process.assert_nothing_in_flight()


async def test_chunks_are_passed_on_while_the_answer_is_still_being_written(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount
) -> None:
    """The upstream says nothing after three chunks; the listener has them, and the attempt is open."""
    await simulator.add_fault("hang", key=account.secrets[0], after_chunks=3)
    listener = listening(process, stream_of())

    async with asyncio.timeout(5):
        chunks = [await anext(listener) for _ in range(3)]

    assert [finish_of(chunk) for chunk in chunks] == [None] * 3
    assert await process.view.count("attempt") == 1
    assert await process.records() == []
    await listener.aclose()


async def test_a_refused_stream_is_served_by_the_next_target(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount
) -> None:
    """Before the first chunk a stream may go elsewhere as any call."""
    await simulator.add_fault("429", key=account.secrets[0], model=FIRST)

    chunks, answer = await heard(listening(process, stream_of()))

    assert {chunk["modelVersion"] for chunk in chunks} == {SECOND}
    assert [notice.code for notice in answer.outcome.notices] == ["FALLBACK_USED"]
    assert [record.kind for record in await process.records()] == [RecordKind.REFUSED, RecordKind.SETTLED]
    await process.assert_nothing_in_flight()


@pytest.mark.parametrize("kind", ["reset", "garbage", "truncate"])
@pytest.mark.parametrize("after_chunks", [0, 3])
async def test_a_broken_stream_that_may_not_be_sent_anew_ends_in_suspense(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount, kind: str, after_chunks: int
) -> None:
    """The listener gets what came, then the error."""
    await simulator.add_fault(kind, key=account.secrets[0], after_chunks=after_chunks, count=1)
    chunks: list[Mapping[str, Any] | Answer] = []

    with pytest.raises(UpstreamOutcomeUnknown) as raised:
        async for chunk in listening(process, stream_of(resend_unknown=False)):
            chunks.append(chunk)

    record = await process.assert_in_suspense("BROKEN:")
    (served,) = await served_with(simulator, account.secrets[0])
    # A reset may overtake what was sent just before it.
    assert len(chunks) <= after_chunks if kind == "reset" else len(chunks) == after_chunks
    assert raised.value.attempt_id == str(record.attempt_id) == served.attempt_id


@pytest.mark.parametrize("kind", ["garbage", "truncate"])
async def test_a_stream_that_breaks_before_its_first_chunk_is_served_by_the_next_target(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount, kind: str
) -> None:
    """Nobody has heard anything of it yet."""
    await simulator.add_fault(kind, key=account.secrets[0], model=FIRST, after_chunks=0)

    *chunks, answer = [item async for item in listening(process, stream_of())]

    suspended, settled = await process.records()
    assert (suspended.kind, settled.kind, settled.model) == (RecordKind.SUSPENSE, RecordKind.SETTLED, SECOND)
    assert chunks
    assert isinstance(answer, Answer)
    await process.assert_nothing_in_flight()


@pytest.mark.parametrize("kind", ["garbage", "truncate"])
async def test_a_stream_that_breaks_after_its_first_chunk_is_never_begun_anew(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount, kind: str
) -> None:
    """Its listener would hear the beginning twice."""
    await simulator.add_fault(kind, key=account.secrets[0], after_chunks=2)
    chunks: list[Mapping[str, Any] | Answer] = []

    with pytest.raises(UpstreamOutcomeUnknown):
        async for chunk in listening(process, stream_of()):
            chunks.append(chunk)

    assert len(chunks) == 2
    await process.assert_in_suspense("BROKEN:")


@dataclass(slots=True)
class Kept:
    """Keeps every call, and has what was kept of one."""

    wants_answer: bool = True
    pieces: list[Json] = field(default_factory=list)
    booked: list[tuple[UUID, Json]] = field(default_factory=list)
    is_whole: bool | None = None

    def keeps(self, _tenant_id: str) -> bool:
        """Keep the calls of all."""
        return True

    async def begin(self, _scope: object, /, **_facts: object) -> Self:
        """Be the recording too."""
        return self

    def add(self, piece: Json) -> None:
        """Take what the caller is given."""
        self.pieces.append(piece)

    def settled(self, *, attempt_id: UUID, prompt: Json, **_facts: object) -> None:
        """Take what was sent."""
        self.booked.append((attempt_id, prompt))

    def close(self, *, is_whole: bool) -> None:
        """Note whether the caller has all."""
        self.is_whole = is_whole


async def test_what_was_heard_of_a_broken_stream_is_kept(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount
) -> None:
    """Under the attempt that is in suspense: the prompt was sent, and its answer was read as far as it came."""
    await simulator.add_fault("truncate", key=account.secrets[0], after_chunks=2)
    process.generation.keeper = kept = Kept()

    with pytest.raises(UpstreamOutcomeUnknown):
        await heard(listening(process, stream_of()))

    record = await process.assert_in_suspense("BROKEN:")
    ((attempt_id, prompt),) = kept.booked
    assert attempt_id == record.attempt_id
    assert orjson.loads(bytes(prompt))["contents"][0]["parts"] == [{"text": "[[tokens:160]]"}]
    assert (len(kept.pieces), kept.is_whole) == (2, False)


@pytest.mark.parametrize("kind", ["500", "reset"])
async def test_an_attempt_that_may_have_been_read_is_kept_and_a_refused_one_is_not(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount, kind: str
) -> None:
    """Each under its own id; what the caller was answered belongs to the last."""
    await simulator.add_fault(kind, key=account.secrets[0], model=FIRST)
    process.generation.keeper = kept = Kept()

    answer = await process.generate(call_of())

    first, second = await process.records()
    expected = [first.attempt_id] * (kind == "reset") + [second.attempt_id]
    assert [attempt_id for attempt_id, _ in kept.booked] == expected
    assert answer.outcome.attempt_id == second.attempt_id
    assert (len(kept.pieces), kept.is_whole) == (1, True)


UNFINISHED: dict[str, Any] = {
    "candidates": [{"content": {"parts": [{"text": "The"}], "role": "model"}, "index": 0}],
    "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 1, "totalTokenCount": 6},
}
FAILED = {"error": {"code": 500, "message": "An internal error has occurred.", "status": "INTERNAL"}}


@pytest.mark.parametrize("last", [None, FAILED], ids=["no finish", "an error"])
async def test_a_stream_that_ends_orderly_without_an_end_is_suspended(
    process: GenerationProcess, simulator: SimulatorClient, last: dict[str, Any] | None
) -> None:
    """Without a finish reason the usage so far is not what will be charged."""
    events = [UNFINISHED, UNFINISHED, *([last] if last else [])]
    response = "\n\n".join(f"data: {orjson.dumps(event).decode()}" for event in events)
    await simulator.replay_next({"path": "", "request": {}, "status": 200, "response": response})
    listener = listening(process, stream_of())

    chunks = [await anext(listener), await anext(listener)]
    with pytest.raises(UpstreamOutcomeUnknown):
        await anext(listener)

    assert chunks == [UNFINISHED, UNFINISHED]
    await process.assert_in_suspense("BROKEN:the stream")


async def test_a_blocked_prompt_ends_a_stream(process: GenerationProcess) -> None:
    """There is no candidate that could finish; what the prompt used is settled."""
    (chunk,), answer = await heard(listening(process, stream_of("[[block:SAFETY]]")))

    record = await process.record()
    assert chunk["promptFeedback"]["blockReason"] == "SAFETY"
    assert (record.kind, record.output_tokens) == (RecordKind.SETTLED, 0)
    assert record.input_tokens == chunk["usageMetadata"]["promptTokenCount"]
    assert answer.outcome.attempt_id == record.attempt_id


async def test_a_stream_without_usage_goes_to_suspense_and_says_so(process: GenerationProcess) -> None:
    """The listener gets every chunk; the ceiling stays booked."""
    chunks, answer = await heard(listening(process, stream_of("[[tokens:160]] [[no-usage]]")))

    await process.assert_in_suspense("USAGE_MISSING")
    assert finish_of(chunks[-1]) == "STOP"
    assert [notice.code for notice in answer.outcome.notices] == ["USAGE_ESTIMATED"]


async def test_a_stream_without_a_key_is_refused_and_holds_nothing(
    process: GenerationProcess, simulator: SimulatorClient
) -> None:
    """The error comes in the place of the first chunk."""
    await process.use(account_at(simulator.url, keys=0))

    with pytest.raises(NoUpstreamKey):
        await anext(listening(process, stream_of()))

    await process.assert_nothing_booked()


@pytest.mark.parametrize("text", ["[[tokens:160]]", MANY], ids=["a short answer", "more than is kept ahead"])
async def test_a_stream_is_settled_although_its_listener_went_away(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount, text: str
) -> None:
    """It is read to its end: only the last chunk tells what is charged."""
    await simulator.add_fault("slow", key=account.secrets[0], delay_seconds=0.002)
    listener = listening(process, stream_of(text, config=MANY_SETTINGS))
    await anext(listener)

    await listener.aclose()
    in_flight = await process.view.count("attempt")
    await process.calls.drain(10)

    (served,) = await served_with(simulator, account.secrets[0])
    record = await process.record()
    assert in_flight == 1
    assert (record.kind, record.cost_nanos) == (RecordKind.SETTLED, total_nanos([ListPriceBook().bill(served)]))
    await process.assert_nothing_in_flight()


async def test_a_stalled_listener_who_goes_away_sets_the_stream_free(process: GenerationProcess) -> None:
    """The call waits for him while he is there, and goes on at once when he is not."""
    listener = listening(process, stream_of(MANY, config=MANY_SETTINGS))
    await anext(listener)
    await asyncio.sleep(0.3)
    waiting = await process.records()

    await listener.aclose()
    await process.calls.drain(10)

    assert waiting == []
    assert (await process.record()).kind == RecordKind.SETTLED
    await process.assert_nothing_in_flight()


async def test_a_slow_listener_holds_the_upstream_back_and_misses_nothing(process: GenerationProcess) -> None:
    """No more than so many chunks are kept for him; he gets all, in order, and the call is settled."""
    listener = listening(process, stream_of(MANY, config=MANY_SETTINGS))
    first = await anext(listener)

    await asyncio.sleep(0.3)
    waiting = await process.records()
    chunks, answer = await heard(listener)

    whole = await process.generate(call_of(MANY, config=MANY_SETTINGS))
    assert waiting == []
    assert len(chunks) >= 200
    assert "".join(map(text_of, (first, *chunks))) == text_of(whole.body)
    assert (await process.records())[0].attempt_id == answer.outcome.attempt_id
    await process.assert_nothing_in_flight()


async def test_a_stream_that_falls_silent_is_given_up_and_suspended(
    fresh_database: TestDatabase, simulator: SimulatorClient, account: UpstreamAccount
) -> None:
    """The upstream's own time is bounded from the first byte to the last."""
    await simulator.add_fault("hang", key=account.secrets[0], after_chunks=2)

    async with generation_process(fresh_database, account, upstream_timeout_seconds=0.5) as process:
        with pytest.raises(UpstreamOutcomeUnknown):
            await heard(listening(process, stream_of()))

        await process.assert_in_suspense("BROKEN:no whole answer within")


async def test_a_drain_suspends_the_stream_that_does_not_end(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount
) -> None:
    """A shutdown waits so long and no longer; the listener is not left waiting."""
    await simulator.add_fault("hang", key=account.secrets[0], after_chunks=2)
    listener = listening(process, stream_of())
    await anext(listener)
    await anext(listener)

    await process.calls.drain(0.05)

    await process.assert_in_suspense("INTERRUPTED")
    with pytest.raises(asyncio.CancelledError):
        await anext(listener)


async def test_a_drain_does_not_wait_for_a_listener_who_has_stalled(process: GenerationProcess) -> None:
    """What he has not taken by then cannot hold up a shutdown; the attempt is booked."""
    listener = listening(process, stream_of(MANY, config=MANY_SETTINGS))
    await anext(listener)
    await asyncio.sleep(0.3)

    async with asyncio.timeout(2):
        await process.calls.drain(0.05)

    await process.assert_in_suspense("INTERRUPTED")
    await listener.aclose()
