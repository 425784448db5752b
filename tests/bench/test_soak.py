"""A server at capacity for a long time: its memory stays, and every call that was answered is booked once.

`make bench ARGS="tests/bench/test_soak.py"` with BENCH_SOAK_SECONDS=3600 is the acceptance; without it nothing is run.
"""

import statistics
import time

import pytest

from tests.bench.governed import Governed, governed
from tests.bench.loads import STREAM, canned
from tests.bench.recorder import Recorder
from tests.bench.rounds import TRANSPORT, setting

SOAK_SECONDS = float(setting("BENCH_SOAK_SECONDS", "0"))
WARM_SHARE = 1 / 6
"""Of an hour the ten minutes in which memory may grow."""

ROUND_SECONDS = 10.0


async def _round(running: Governed, number: int) -> int:
    """Load it; every sixth time with streams. Return how many calls were answered."""
    path = {"path": STREAM} if number % 6 == 5 else {}
    told = await running.load(callers=64, seconds=ROUND_SECONDS, **path)
    return told.calls


async def _soak(running: Governed) -> tuple[int, list[tuple[float, int]]]:
    """Return how many calls were answered, and the workers' memory in bytes by the seconds that had gone by."""
    began_at, calls, seen = time.monotonic(), 0, list[tuple[float, int]]()
    while (gone := time.monotonic() - began_at) < SOAK_SECONDS:
        calls += await _round(running, len(seen))
        seen.append((gone, running.memory_bytes()))
    return calls, seen


@pytest.mark.skipif(not SOAK_SECONDS, reason="BENCH_SOAK_SECONDS says for how long")
async def test_hours_at_capacity(recorder: Recorder) -> None:
    """64 callers without a pause; unary calls, and streams a sixth of the time."""
    async with canned() as upstream, governed(upstream) as running:
        calls, seen = await _soak(running)
        booked = await running.records()

    settled = [memory for gone, memory in seen if gone >= SOAK_SECONDS * WARM_SHARE] or [seen[-1][1]]
    part = max(1, len(settled) // 4)
    first, last = statistics.median(settled[:part]), statistics.median(settled[-part:])
    key = f"soak/{TRANSPORT}/{SOAK_SECONDS:.0f}_seconds"
    recorder.record(f"{key}/calls", calls)
    recorder.record(f"{key}/lost", calls - booked)
    recorder.record(f"{key}/rss_mb", *(memory / 1e6 for memory in settled))
    recorder.record(f"{key}/growth_mb_after_warming_up", (last - first) / 1e6)
    assert booked == calls
