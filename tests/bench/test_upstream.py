"""What a call to Gemini costs a worker: HTTP and JSON both ways, beside google-genai's own call in the same run.

Each figure is made by a process of its own (`upstream_load.py`) against a canned server in another, so that only the
client's processor time is counted. A benchmark holds only that every call was answered, never how long it took.
"""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.bench.canned_gemini import CHUNKS
from tests.bench.loads import canned, started
from tests.bench.recorder import Recorder
from tests.bench.upstream_load import CLIENTS, ROUNDS, Measured, Plan
from tests.drivers.wire import certified

CALLS = int(os.environ.get("BENCH_CALLS", "6400"))
CALLERS = (1, 64)


@asynccontextmanager
async def canned_server(*arguments: str) -> AsyncIterator[int]:
    """Run the server and give its port."""
    async with canned(*arguments) as upstream:
        yield upstream.port


async def run(plan: Plan) -> Measured:
    """Run a client's process."""
    process = await started("upstream_load", on="measured")
    written, _ = await process.communicate(json.dumps(asdict(plan)).encode() + b"\n")
    assert process.returncode == 0
    return Measured(**json.loads(written))


def record(recorder: Recorder, suite: str, plan: Plan, figure: Measured, unit: str) -> None:
    """Record one figure."""
    found = {f"cpu_us_per_{unit}": figure.cpu_us, f"{unit}s_per_s": figure.units_per_second}
    recorder.record_all(f"{suite}/{plan.client}/c{plan.callers}", found)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_unary_calls(recorder: Recorder, tmp_path: Path, scheme: str) -> None:
    """About 600 bytes out and 1.5 kB back, keep-alive."""
    certified(tmp_path)
    pem = str(tmp_path / "server.pem")

    async with canned_server(*([pem] if scheme == "https" else [])) as port:
        for client in CLIENTS:
            for callers in CALLERS:
                calls = CALLS // 10 if client == "google-genai" else CALLS
                plan = Plan(
                    client=client,
                    url=f"{scheme}://127.0.0.1:{port}",
                    callers=callers,
                    calls=calls,
                    streams=False,
                    authority=pem,
                )
                figure = await run(plan)
                record(recorder, f"upstream_{scheme}", plan, figure, "call")

                assert figure.units == calls // callers * callers * ROUNDS


async def test_streams(recorder: Recorder) -> None:
    """Chunks of 300 bytes, a millisecond apart, as a quick model sends them."""

    async with canned_server() as port:
        for client in CLIENTS:
            for callers in CALLERS:
                calls = 20 * callers if callers == 1 else 4 * callers
                url = f"http://127.0.0.1:{port}"
                plan = Plan(client=client, url=url, callers=callers, calls=calls, streams=True)
                figure = await run(plan)
                record(recorder, "upstream_stream", plan, figure, "chunk")

                assert figure.units == calls * CHUNKS * ROUNDS
