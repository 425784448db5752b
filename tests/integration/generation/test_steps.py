"""A stream that is held for in steps: it tops up while it comes, and never uses more than is held for it."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import asyncpg
import orjson
import pytest
from tollhouse_server.errors import BudgetCutOff, StoreLostMidStream
from tollhouse_server.generation.calls import Answer, GenerationCall
from tollhouse_server.ledger.terms import RecordKind
from tollhouse_server.simulator.client import ServedCall, SimulatorClient
from tollhouse_server.upstream.protocol import Method, Upstream, UpstreamCall

from tests.drivers.bills import ListPriceBook, total_nanos
from tests.drivers.generation import (
    GenerationProcess,
    Record,
    UpstreamAccount,
    call_of,
    generation_process,
    models_of,
    served_with,
)
from tests.drivers.postgres import TestDatabase

MODEL = models_of("flash")[0]
STEP, WRITTEN, ASKED = 512, 1_000, 4_000
MARGIN = STEP // 4
TIGHT = 700
CONFIG = {"maxOutputTokens": ASKED, "thinkingConfig": {"thinkingBudget": 0}}
# 16 tokens a chunk, 200 tokens a second: the margin outlasts the pauses of a busy machine.
CHUNK_SECONDS = 0.08

Item = Mapping[str, Any] | Answer


def stream_of(text: str = f"[[tokens:{WRITTEN}]]", **config: Any) -> GenerationCall:
    """Build a stream of 63 chunks that does not think and may be four times as long."""
    return call_of(text, method=Method.STREAM, config={**CONFIG, **config}, model=MODEL, deadline_seconds=60)


@pytest.fixture
async def process(
    fresh_database: TestDatabase, simulator: SimulatorClient, account: UpstreamAccount
) -> AsyncIterator[GenerationProcess]:
    """A worker that holds for streams in steps, and an upstream that writes as fast as a real one."""
    await simulator.add_fault("slow", key=account.secrets[0], delay_seconds=CHUNK_SECONDS)
    async with generation_process(
        fresh_database, account, stream_step_tokens=STEP, upstream_timeout_seconds=60
    ) as process:
        yield process


async def limited(process: GenerationProcess, amount: int, metric: str = "OUTPUT_TOKENS") -> int:
    """Put a limit on the tenant."""
    return await process.view.add_limit("tight", "tenants/acme", metric, "TOTAL", amount)


async def heard(listener: AsyncIterator[Item], items: list[Item]) -> None:
    """Listen to the end, or to the error."""
    async for item in listener:
        items.append(item)


async def bills(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount, *, written: int = WRITTEN
) -> dict[str, tuple[Record, ServedCall, int]]:
    """Return record, log row and bill of each served attempt, when the upstream has noticed every cut."""
    book = ListPriceBook()
    records = {str(one.attempt_id): one for one in await process.records()}
    cut = [attempt for attempt, record in records.items() if record.outcome != "SERVED"]
    for _ in range(200):
        log = {str(one.attempt_id): one for one in await served_with(simulator, account.secrets[0])}
        late = [(records[attempt], log[attempt]) for attempt in cut if _output(log[attempt]) >= written]
        if not late:
            break
        await asyncio.sleep(0.05)
    assert late == []
    return {
        attempt: (record, log[attempt], total_nanos([book.bill(log[attempt])])) for attempt, record in records.items()
    }


def _output(row: ServedCall) -> int:
    return int(row.usage.get("candidatesTokenCount", 0)) + int(row.usage.get("thoughtsTokenCount", 0))


@dataclass(frozen=True, slots=True)
class SlowToClose:
    """An upstream in a process that stands still in the moment at which it closes a stream."""

    upstream: Upstream
    seconds: float

    async def call(self, call: UpstreamCall) -> dict[str, Any]:
        """Send a unary call."""
        return await self.upstream.call(call)

    async def stream(self, call: UpstreamCall) -> AsyncGenerator[dict[str, Any], None]:
        """Pass a stream on."""
        async with aclosing(self.upstream.stream(call)) as chunks:
            try:
                async for chunk in chunks:
                    yield chunk
            finally:
                time.sleep(self.seconds)  # noqa: ASYNC251 - nothing else runs meanwhile, that is the point


@asynccontextmanager
async def silent_ledger(dsn: str) -> AsyncIterator[None]:
    """Keep the ledger's transactions waiting until the block is left."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE counter IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        await connection.close()


async def test_a_stream_holds_a_step_at_first_and_more_as_it_comes(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount
) -> None:
    """The upstream is told the whole bound; what is held stays ahead of what has come; the end is exact."""
    limit_id = await limited(process, 10**6)
    await simulator.capture_requests(1)
    held: list[tuple[int, int]] = []
    items: list[Item] = []

    async for item in process.streaming.stream(stream_of()):
        items.append(item)
        if not isinstance(item, Answer):
            now = (await process.view.counter(limit_id))[0]
            held.append((now, item["usageMetadata"].get("candidatesTokenCount", 0)))

    record = await process.record()
    (served,) = await served_with(simulator, account.secrets[0])
    (sent,) = await simulator.requests()
    assert orjson.loads(sent["body"])["generationConfig"]["maxOutputTokens"] == ASKED
    assert held[0][0] == STEP
    assert max(now for now, _ in held) < ASKED
    assert [one for one in held[:-1] if one[0] < one[1]] == []
    assert (record.kind, record.outcome, record.output_tokens) == (RecordKind.SETTLED, "SERVED", _output(served))
    assert record.cost_nanos == total_nanos([ListPriceBook().bill(served)])
    assert await process.view.counter(limit_id) == (0, record.output_tokens)
    await process.assert_nothing_in_flight()


async def test_a_stream_that_may_hold_no_more_is_cut_and_books_what_it_may_have_used(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount
) -> None:
    """The listener has what came and is told why; the upstream's own count is within what was held."""
    limit_id = await limited(process, TIGHT)
    items: list[Item] = []

    with pytest.raises(BudgetCutOff) as raised:
        await heard(process.streaming.stream(stream_of()), items)

    ((record, served, bill),) = (await bills(process, simulator, account)).values()
    cut = raised.value
    assert (cut.limit, cut.metric, cut.amount) == ("tenants/acme/limits/tight", "OUTPUT_TOKENS", TIGHT)
    assert (cut.attempt_id, cut.cost_nanos) == (str(record.attempt_id), record.cost_nanos)
    assert (record.kind, record.outcome) == (RecordKind.SETTLED, "CUT_OFF")
    assert STEP - MARGIN - 16 <= cut.output_tokens <= _output(served) <= record.output_tokens <= TIGHT
    assert len(items) == cut.output_tokens // 16
    assert bill <= record.cost_nanos <= record.ceiling_nanos
    assert await process.view.counter(limit_id) == (0, record.output_tokens)
    await process.assert_nothing_in_flight()


async def test_a_stream_whose_closing_nobody_watched_is_booked_at_all_that_it_may_have_used(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount
) -> None:
    """A process that stands still between its last look and the closing knows no better bound."""
    await limited(process, TIGHT)
    process.generation.upstream = SlowToClose(process.generation.upstream, 0.8)
    await simulator.clear_faults()
    await simulator.add_fault("slow", key=account.secrets[0], delay_seconds=0.02)
    items: list[Item] = []

    with pytest.raises(BudgetCutOff):
        await heard(process.streaming.stream(stream_of(f"[[tokens:{ASKED}]]")), items)

    ((record, served, bill),) = (await bills(process, simulator, account, written=ASKED)).values()
    assert _output(served) > TIGHT
    assert (record.kind, record.outcome, record.output_tokens) == (RecordKind.SETTLED, "CUT_OFF", ASKED)
    assert bill <= record.cost_nanos
    await process.assert_nothing_in_flight()


async def test_many_streams_on_one_small_budget_never_cost_more_than_it_by_the_upstreams_own_log(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount
) -> None:
    """Twelve streams, money for half: those that end are exact, those that are cut are booked at no less."""
    budget = 7_000 * 3_750
    limit_id = await limited(process, budget, "COST")
    texts = [f"[[tokens:{WRITTEN if number % 3 else 160}]] {number}" for number in range(12)]
    streams = [heard(process.streaming.stream(stream_of(text)), []) for text in texts]

    ends = await asyncio.gather(*streams, return_exceptions=True)

    found = (await bills(process, simulator, account)).values()
    cut = [record for record, _, _ in found if record.outcome == "CUT_OFF"]
    held, settled = await process.view.counter(limit_id)
    assert {type(end) for end in ends} == {type(None), BudgetCutOff}
    assert sum(isinstance(end, BudgetCutOff) for end in ends) == len(cut)
    assert sum(bill for _, _, bill in found) <= settled <= budget
    assert [record for record, _, bill in found if bill > record.cost_nanos] == []
    assert [record for record, _, bill in found if record not in cut and bill != record.cost_nanos] == []
    assert (held, settled > budget // 2) == (0, True)
    await process.assert_nothing_in_flight()


@pytest.mark.parametrize("window", ["DAY", "TOTAL"])
async def test_a_cut_stream_is_told_to_come_back_when_its_limit_is_empty_again(
    process: GenerationProcess, window: str
) -> None:
    """What the stream held itself is used up: waiting for calls in flight would not help."""
    await process.view.add_limit("tight", "tenants/acme", "OUTPUT_TOKENS", window, TIGHT)

    with pytest.raises(BudgetCutOff) as raised:
        await heard(process.streaming.stream(stream_of()), [])

    cut, now = raised.value, await process.view.connection.fetchval("SELECT clock_timestamp()")
    if window == "TOTAL":
        assert cut.retry_after_seconds is None
    else:
        assert cut.resets_at is not None
        assert cut.retry_after_seconds == pytest.approx((cut.resets_at - now).total_seconds(), abs=0.5)


async def test_a_refused_stream_goes_on_when_others_make_room(process: GenerationProcess) -> None:
    """It asks once more before it is cut."""
    limit_id = await limited(process, TIGHT)
    listener = cast(AsyncGenerator[Item, None], process.streaming.stream(stream_of("[[tokens:640]]")))
    items = [await anext(listener) for _ in range(4)]

    execute = process.view.connection.execute
    await execute("UPDATE usage_limit SET amount = 4000 WHERE limit_id = $1", limit_id)
    await execute("UPDATE epoch SET value = value + 1 WHERE topic = 'limits'")
    await heard(listener, items)

    assert isinstance(items[-1], Answer)
    assert (await process.record()).outcome == "SERVED"


async def test_a_cut_stream_without_counts_is_bounded_by_its_bytes_and_suspended(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount
) -> None:
    """No chunk says what was used: all that is held is booked until it is known."""
    limit_id = await limited(process, TIGHT)

    with pytest.raises(BudgetCutOff):
        await heard(process.streaming.stream(stream_of(f"[[tokens:{WRITTEN}]] [[no-usage]]")), [])

    record = await process.assert_in_suspense("USAGE_MISSING")
    assert record.output_tokens <= TIGHT
    assert await process.view.counter(limit_id) == (0, record.output_tokens)


async def test_a_stream_lives_on_what_it_holds_while_the_ledger_is_silent(
    process: GenerationProcess, fresh_database: TestDatabase
) -> None:
    """A short silence passes unnoticed."""
    limit_id = await limited(process, 10**6)
    listener = cast(AsyncGenerator[Item, None], process.streaming.stream(stream_of("[[tokens:320]]")))
    items = [await anext(listener)]

    async with silent_ledger(fresh_database.root_dsn):
        items += [await anext(listener) for _ in range(3)]
    await heard(listener, items)

    record = await process.record()
    assert (record.kind, record.outcome) == (RecordKind.SETTLED, "SERVED")
    assert await process.view.counter(limit_id) == (0, record.output_tokens)
    await process.assert_nothing_in_flight()


async def test_a_stream_that_outlives_what_it_holds_in_a_silence_is_cut_and_booked_after_it(
    process: GenerationProcess, fresh_database: TestDatabase, simulator: SimulatorClient, account: UpstreamAccount
) -> None:
    """The listener is told at once, not when the ledger is back; then the attempt is booked, and nothing is held."""
    limit_id = await limited(process, 10**6)
    listener = cast(AsyncGenerator[Item, None], process.streaming.stream(stream_of()))
    items = [await anext(listener)]

    async with silent_ledger(fresh_database.root_dsn):
        async with asyncio.timeout(5):
            with pytest.raises(StoreLostMidStream) as raised:
                await heard(listener, items)
        in_flight = process.ledger.ledger.in_flight
    await process.calls.drain(10)

    ((record, served, bill),) = (await bills(process, simulator, account)).values()
    assert in_flight <= 1
    assert raised.value.attempt_id == str(record.attempt_id)
    assert (record.kind, record.outcome) == (RecordKind.SETTLED, "CUT_OFF")
    assert raised.value.output_tokens <= _output(served) <= record.output_tokens
    assert bill <= record.cost_nanos
    assert await process.view.counter(limit_id) == (0, record.output_tokens)
    await process.assert_nothing_in_flight()


async def test_a_stream_nobody_reads_holds_all_before_it_waits_for_its_listener(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount
) -> None:
    """What piles up unread on the way is held for; he gets all in the end."""
    limit_id = await limited(process, 10**6)
    await simulator.clear_faults()
    await simulator.add_fault("slow", key=account.secrets[0], delay_seconds=0.02)
    listener = cast(AsyncGenerator[Item, None], process.streaming.stream(stream_of("[[tokens:1600]]")))
    items = [await anext(listener)]

    async with asyncio.timeout(10):
        while (await process.view.counter(limit_id))[0] < ASKED:  # noqa: ASYNC110 - the database has no event
            await asyncio.sleep(0.02)
    waiting = await process.records()
    await heard(listener, items)

    assert waiting == []
    assert len(items) > 100
    assert (await process.record()).outcome == "SERVED"
    await process.assert_nothing_in_flight()


async def test_a_stream_nobody_reads_is_cut_all_the_same(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount
) -> None:
    """Where not all can be held it is read on without its listener, up to what is held."""
    limit_id = await limited(process, 2_000)
    await simulator.clear_faults()
    await simulator.add_fault("slow", key=account.secrets[0], delay_seconds=0.02)
    listener = cast(AsyncGenerator[Item, None], process.streaming.stream(stream_of("[[tokens:3200]]")))
    items = [await anext(listener)]

    async with asyncio.timeout(10):
        while not await process.records():  # noqa: ASYNC110 - the database has no event
            await asyncio.sleep(0.02)
    with pytest.raises(BudgetCutOff):
        await heard(listener, items)

    record = await process.record()
    assert (record.outcome, len(items) > 64) == ("CUT_OFF", True)
    assert await process.view.counter(limit_id) == (0, record.output_tokens)
    assert record.output_tokens <= 2_000


async def test_a_caller_who_goes_away_does_not_stop_the_steps(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount
) -> None:
    """The stream is read to its end and topped up on the way: only the end tells what it cost."""
    listener = cast(AsyncGenerator[Item, None], process.streaming.stream(stream_of()))
    await anext(listener)

    await listener.aclose()
    await process.calls.drain(10)

    (served,) = await served_with(simulator, account.secrets[0])
    record = await process.record()
    assert (record.outcome, record.cost_nanos) == ("SERVED", total_nanos([ListPriceBook().bill(served)]))
    await process.assert_nothing_in_flight()
