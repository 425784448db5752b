"""What a call to Gemini costs a worker: HTTP and JSON both ways, beside google-genai's own call in the same run.

Each figure is made by a process of its own (`upstream_load.py`) against a canned server in another, so that only the
client's processor time is counted. A benchmark holds only that every call was answered, never how long it took.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.bench.canned_gemini import CHUNKS
from tests.bench.upstream_load import CLIENTS, ROUNDS, Measured, Plan
from tests.drivers.wire import certified

ROOT_DIRECTORY = Path(__file__).parents[2]
CALLS = int(os.environ.get("BENCH_CALLS", "6400"))
CALLERS = (1, 64)


@asynccontextmanager
async def canned_server(*arguments: str) -> AsyncIterator[int]:
    """Run the server and give its port."""
    process = await _start("tests.bench.canned_gemini", *arguments)
    assert process.stdout is not None
    assert process.stdin is not None
    yield int(await process.stdout.readline())
    process.stdin.close()
    await process.wait()


async def run(plan: Plan) -> Measured:
    """Run a client's process."""
    process = await _start("tests.bench.upstream_load")
    written, _ = await process.communicate(json.dumps(asdict(plan)).encode() + b"\n")
    assert process.returncode == 0
    return Measured(**json.loads(written))


async def _start(module: str, *arguments: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", module, *arguments)
    return await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, cwd=ROOT_DIRECTORY)


class Table:
    """Prints rows as they come."""

    def __init__(self, capsys: pytest.CaptureFixture[str], title: str, unit: str) -> None:
        self._capsys = capsys
        self.print(f"\n{title}\n{'':16} callers  cpu us per {unit:6} {unit:>8}s/s")

    def print(self, text: str) -> None:
        """Print past pytest."""
        with self._capsys.disabled():
            print(text, flush=True)  # noqa: T201 - a benchmark's result

    def row(self, plan: Plan, figure: Measured) -> None:
        """Print one row."""
        self.print(f"{plan.client:16} {plan.callers:7} {figure.cpu_us:17.1f} {figure.units_per_second:10,.0f}")


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_unary_calls(capsys: pytest.CaptureFixture[str], tmp_path: Path, scheme: str) -> None:
    """About 600 bytes out and 1.5 kB back, keep-alive."""
    certified(tmp_path)
    pem = str(tmp_path / "server.pem")
    table = Table(capsys, f"upstream, unary calls over {scheme}", "call")

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
                table.row(plan, figure)

                assert figure.units == calls // callers * callers * ROUNDS


async def test_streams(capsys: pytest.CaptureFixture[str]) -> None:
    """Chunks of 300 bytes, a millisecond apart, as a quick model sends them."""
    table = Table(capsys, "upstream, streams", "chunk")

    async with canned_server() as port:
        for client in CLIENTS:
            for callers in CALLERS:
                calls = 20 * callers if callers == 1 else 4 * callers
                url = f"http://127.0.0.1:{port}"
                plan = Plan(client=client, url=url, callers=callers, calls=calls, streams=True)
                figure = await run(plan)
                table.row(plan, figure)

                assert figure.units == calls * CHUNKS * ROUNDS
