"""Starts the processes that benches have around what they measure, on the cores that it does not use."""

import asyncio
import base64
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson

from tests.bench.canned_gemini import Manner
from tests.bench.costs import family_seconds
from tests.bench.machine import ROOT_DIRECTORY, measured_cores, other_cores, pin
from tests.bench.tally import Load, Told
from tests.drivers.callers import bearer, prompt

PROMPT = "How long is the bridge? " * 18
"""About 430 bytes: with its frame, a call of 600."""

UNARY = "/tollhouse.v1.GenerationService/GenerateContent"
STREAM = "/tollhouse.v1.GenerationService/StreamGenerateContent"
GEMINI = "/v1beta/models/gemini-3.5-flash:generateContent"
GEMINI_STREAM = "/v1beta/models/gemini-3.5-flash:streamGenerateContent?alt=sse"
_BODY = {"contents": [{"role": "user", "parts": [{"text": PROMPT}]}]}
_SETTLING_SECONDS = 60.0


async def started(module: str, *arguments: str, on: str = "others") -> asyncio.subprocess.Process:
    """Start a module of this folder as a process, on the cores of what is `measured` or on those of the `others`."""
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", f"tests.bench.{module}", *arguments)
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, cwd=ROOT_DIRECTORY)
    pin([process.pid], measured_cores() if on == "measured" else other_cores())
    return process


async def line_of(process: asyncio.subprocess.Process) -> str:
    """Return the next line of what a process writes."""
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


@asynccontextmanager
async def serving(module: str, *arguments: str, on: str = "others") -> AsyncIterator[tuple[int, Any]]:
    """Run a server of this folder until the block is left; yield its port and its process."""
    process = await started(module, *arguments, on=on)
    assert process.stdin is not None
    yield int(await line_of(process)), process
    process.stdin.close()
    await process.wait()


@dataclass(frozen=True, slots=True)
class Canned:
    """A canned upstream that runs."""

    port: int
    process: asyncio.subprocess.Process

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.port}"

    async def be(self, manner: Manner) -> None:
        """Have it answer so from now on."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(asdict(manner)).encode() + b"\n")
        assert await line_of(self.process) == "ok"

    async def load(self, *, path: str = GEMINI, callers: int, seconds: float) -> Told:
        """Load it directly: what calls take without anybody between."""
        return await send("http_load", http_load(f"127.0.0.1:{self.port}", path, callers=callers, seconds=seconds))


@asynccontextmanager
async def canned(*arguments: str) -> AsyncIterator[Canned]:
    """Run a canned upstream."""
    async with serving("canned_gemini", *arguments) as (port, process):
        yield Canned(port, process)


async def send(module: str, load: Load) -> Told:
    """Send a load from a process of its own; every call must have been answered."""
    process = await started(module)
    written, _ = await asyncio.wait_for(
        process.communicate(json.dumps(asdict(load)).encode() + b"\n"), load.seconds + _SETTLING_SECONDS
    )
    assert process.returncode == 0
    told = Told(**json.loads(written))
    assert told.calls, told
    assert not told.failed, told.failures
    return told


def grpc_load(target: str, key: str, *, path: str = UNARY, callers: int, seconds: float) -> Load:
    """Build a load of governed calls."""
    body = base64.b64encode(prompt(PROMPT).SerializeToString()).decode()
    return Load(target=target, path=path, body=body, metadata=dict(bearer(key)), callers=callers, seconds=seconds)


def http_load(target: str, path: str, *, callers: int, seconds: float, body: object = None, **headers: str) -> Load:
    """Build a load of POST requests, in Gemini's form unless there is a body."""
    encoded = base64.b64encode(orjson.dumps(body or _BODY)).decode()
    metadata = {name.replace("_", "-"): value for name, value in headers.items()}
    return Load(target=target, path=path, body=encoded, metadata=metadata, callers=callers, seconds=seconds)


@dataclass(frozen=True, slots=True)
class Echo:
    """A grpc.aio server that does nothing."""

    port: int
    pid: int

    async def measure(self, *, callers: int, seconds: float) -> dict[str, float]:
        """Return what a call costs it."""
        before = family_seconds(self.pid)
        told = await send(
            "governed_load", grpc_load(f"127.0.0.1:{self.port}", "none", callers=callers, seconds=seconds)
        )
        return per_call(told, family_seconds(self.pid) - before)

    async def stream_micros(self, *, chunks: int, callers: int, seconds: float) -> float:
        """Return what a stream of so many chunks, a millisecond apart, costs it."""
        before = family_seconds(self.pid)
        load = grpc_load(f"127.0.0.1:{self.port}", "none", callers=callers, seconds=seconds)
        told = await send("governed_load", replace(load, metadata={"chunks": str(chunks)}))
        return (family_seconds(self.pid) - before) / told.calls * 1e6


@asynccontextmanager
async def echo() -> AsyncIterator[Echo]:
    """Run it on the cores of what is measured: they take turns."""
    async with serving("grpc_echo", on="measured") as (port, process):
        yield Echo(port, process.pid)


def per_call(told: Told, cpu_seconds: float) -> dict[str, float]:
    """Return the figures of a load that cost the processes that served it so many seconds."""
    return {
        "cpu_us_per_call": cpu_seconds / told.calls * 1e6,
        "calls_per_s": told.calls / told.seconds,
        "calls_per_s_core": told.calls / max(cpu_seconds, 1 / os.sysconf("SC_CLK_TCK")),
        "p50_ms": told.p50_ms,
        "p99_ms": told.p99_ms,
    }
