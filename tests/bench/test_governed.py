"""What a governed unary call costs: the whole server, one worker on a core of its own.

Beside each round a round of a grpc.aio server that does nothing: on a machine with neighbours the ratio of the two says
more than either. A benchmark holds only that every call was answered and is booked, never how long it took.
"""

import pytest

from tests.bench.canned_gemini import Manner
from tests.bench.governed import TRANSPORTS, Governed, governed, knows
from tests.bench.loads import Canned, Echo, canned, echo
from tests.bench.recorder import Recorder
from tests.bench.rounds import ROUNDS, SECONDS, in_turns

CALLERS = (1, 16, 64, 256)
DELAYS_MS = (0, 50)
UNKNOWN = "this server does not know the transport"


async def _round(recorder: Recorder, running: Governed, beside: Echo, name: str, callers: int) -> None:
    least = await beside.measure(callers=callers, seconds=SECONDS / 2)
    found = await running.measure(callers=callers, seconds=SECONDS)
    recorder.record_all(f"echo/{name}/c{callers}", least)
    recorder.record_all(f"governed_unary/{name}/c{callers}", found)
    ratio = found["cpu_us_per_call"] / least["cpu_us_per_call"]
    recorder.record(f"governed_unary/{name}/c{callers}/cpu_ratio_to_echo", ratio)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_governed_call(recorder: Recorder, transport: str) -> None:
    """From one caller to 256, and what is added to an upstream that answers at once or in 50 ms."""
    if not knows(transport):
        recorder.skip(f"governed_unary/{transport}", UNKNOWN)
        pytest.skip(UNKNOWN)

    async with canned() as upstream, echo() as beside, governed(upstream, transport=transport) as running:
        await running.load(callers=64, seconds=SECONDS)
        for _ in range(ROUNDS):
            recorder.record_all(f"idle/{transport}", await running.idle(SECONDS))
        for callers in in_turns(CALLERS):
            await _round(recorder, running, beside, transport, callers)
        for delay in in_turns(DELAYS_MS):
            await _added(recorder, running, upstream, transport, delay)
        booked = await running.records()

    assert booked > 0


async def _added(recorder: Recorder, running: Governed, upstream: Canned, transport: str, delay_ms: int) -> None:
    """Measure the time that a call takes beyond the median of one that goes to the upstream directly."""
    await upstream.be(Manner(delay_seconds=delay_ms / 1000))
    for callers in (1, 64):
        direct = await upstream.load(callers=callers, seconds=SECONDS / 2)
        told = await running.load(callers=callers, seconds=SECONDS)
        added = {
            "added_p50_ms": told.p50_ms - direct.p50_ms,
            "added_p99_ms": told.p99_ms - direct.p50_ms,
            "direct_p50_ms": direct.p50_ms,
            "direct_p99_ms": direct.p99_ms,
            "fsync_ms": running.fsync_ms(),
            "calls_per_s": told.calls / told.seconds,
        }
        recorder.record_all(f"added_latency/{transport}/upstream_{delay_ms}ms/c{callers}", added)
    await upstream.be(Manner())


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_two_workers(recorder: Recorder, transport: str) -> None:
    """One worker and two, 64 callers, in turns; they share the cores with the load where there are no more."""
    if not knows(transport):
        pytest.skip(UNKNOWN)

    async with (
        canned() as upstream,
        governed(upstream, transport=transport) as one,
        governed(upstream, transport=transport, workers=2) as two,
    ):
        running = {"w1": one, "w2": two}
        for each in running.values():
            await each.load(callers=64, seconds=SECONDS)
        for name in in_turns(list(running)):
            found = await running[name].measure(callers=64, seconds=SECONDS)
            recorder.record_all(f"workers/{transport}/{name}", found)
    speeds = [recorder.found[f"workers/{transport}/{name}/calls_per_s"] for name in ("w2", "w1")]
    recorder.record_ratios(f"workers/{transport}/w2/ratio_to_w1", *speeds)

    assert speeds[0]
