"""What streams cost: the way of the first chunk, the processor time of each, and the memory of a thousand at once."""

import asyncio

import pytest

from tests.bench.canned_gemini import Manner
from tests.bench.governed import TRANSPORTS, Governed, governed, knows
from tests.bench.loads import GEMINI_STREAM, STREAM, Canned, canned, echo
from tests.bench.recorder import Recorder
from tests.bench.rounds import ROUNDS, SECONDS, in_turns, setting

FEW, MANY = 10, 210
STREAMS = int(setting("BENCH_STREAMS", "1000"))
_MEGABYTE = 1e6


async def _first_chunk(recorder: Recorder, running: Governed, upstream: Canned, transport: str, callers: int) -> None:
    await upstream.be(Manner(chunks=FEW))
    direct = await upstream.load(path=GEMINI_STREAM, callers=callers, seconds=SECONDS)
    told = await running.load(path=STREAM, callers=callers, seconds=SECONDS)
    found = {
        "first_chunk_added_ms": told.first_p50_ms - direct.first_p50_ms,
        "first_chunk_ms": told.first_p50_ms,
        "first_chunk_added_p99_ms": told.first_p99_ms - direct.first_p99_ms,
    }
    recorder.record_all(f"stream/{transport}/c{callers}", found)


async def _chunks(recorder: Recorder, running: Governed, upstream: Canned, transport: str, callers: int) -> None:
    """A stream's own cost falls out of the difference between long and short ones."""
    costs = []
    for chunks in (FEW, MANY):
        await upstream.be(Manner(chunks=chunks))
        before = running.cpu_seconds()
        told = await running.load(path=STREAM, callers=callers, seconds=SECONDS)
        costs.append((running.cpu_seconds() - before) / told.calls * 1e6)
        assert told.messages >= told.calls * chunks
    found = {"cpu_us_per_chunk": (costs[1] - costs[0]) / (MANY - FEW), f"cpu_us_per_stream_of_{FEW}": costs[0]}
    recorder.record_all(f"stream/{transport}/c{callers}", found)


async def test_what_a_chunk_costs_grpc_itself(recorder: Recorder) -> None:
    """grpc.aio alone, a chunk each millisecond: the part that no server on it is without."""
    async with echo() as server:
        for callers in in_turns((1, 16)):
            few, many = [
                await server.stream_micros(chunks=chunks, callers=callers, seconds=SECONDS) for chunks in (FEW, MANY)
            ]
            recorder.record(f"stream/grpc_echo/c{callers}/cpu_us_per_chunk", (many - few) / (MANY - FEW))
            assert many > few


def _skip_unknown(transport: str, recorder: Recorder) -> None:
    if not knows(transport):
        reason = "this server does not know the transport"
        recorder.skip(f"stream/{transport}", reason)
        pytest.skip(reason)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_first_chunks_and_all_others(recorder: Recorder, transport: str) -> None:
    """Chunks of 300 bytes, a millisecond apart; the first one beside that of a stream from the upstream directly."""
    _skip_unknown(transport, recorder)

    async with canned() as upstream, governed(upstream, transport=transport) as running:
        await running.load(path=STREAM, callers=16, seconds=SECONDS)
        for callers in in_turns((1, 16)):
            await _first_chunk(recorder, running, upstream, transport, callers)
            await _chunks(recorder, running, upstream, transport, callers)
        booked = await running.records()

    assert booked > 0


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_thousand_streams_at_once(recorder: Recorder, transport: str) -> None:
    """The worker's memory while all of them are open, ten seconds each, and how much more that is than before."""
    _skip_unknown(transport, recorder)

    async with canned() as upstream, governed(upstream, transport=transport, max_calls_upstream=2 * STREAMS) as running:
        await running.load(path=STREAM, callers=64, seconds=SECONDS)
        await upstream.be(Manner(chunks=20, pause_seconds=0.5))
        for _ in range(ROUNDS):
            before = running.memory_bytes()
            load = asyncio.create_task(running.load(path=STREAM, callers=STREAMS, seconds=0.1))
            most = before
            while not load.done():
                await asyncio.wait([load], timeout=0.2)
                most = max(most, running.memory_bytes())
            told = await load
            found = {"rss_mb": most / _MEGABYTE, "more_mb": (most - before) / _MEGABYTE, "streams": float(told.calls)}
            recorder.record_all(f"stream_memory/{transport}/{STREAMS}_at_once", found)
            assert told.calls >= STREAMS
