"""Tollhouse beside its peers: the same upstream, equally cheap callers, the same core, in turns.

Only what `make peers` has installed takes part. Ratios are of calls per second of one core, round by round. Peers speak
OpenAI's form in and out, which costs them no translation; Envoy, the limit, passes bytes on. Neither keeps a ledger.
"""

import asyncio
import os
import re
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.bench.costs import family_seconds
from tests.bench.governed import TRANSPORTS, Governed, governed, knows
from tests.bench.loads import Canned, canned, http_load, per_call, send
from tests.bench.machine import measured_cores, pin
from tests.bench.peers import NOT_HAD, PEERS, Peer, Start
from tests.bench.recorder import Recorder
from tests.bench.rounds import SECONDS, TRANSPORT, in_turns
from tests.drivers.stack import free_ports

CALLERS = 64
_START_SECONDS = 90.0
_SERVING = re.compile(rb"serving at http://127\.0\.0\.1:(\d+)")


@dataclass(frozen=True, slots=True)
class RunningPeer:
    """One that serves."""

    start: Start
    port: int
    pid: int

    async def measure(self, seconds: float) -> dict[str, float]:
        """Return what a call costs it."""
        before, start = family_seconds(self.pid), self.start
        load = http_load(
            f"127.0.0.1:{self.port}", start.path, callers=CALLERS, seconds=seconds, body=start.body, **start.headers
        )
        told = await send("http_load", load)
        return per_call(told, family_seconds(self.pid) - before)


@asynccontextmanager
async def running_peer(peer: Peer, upstream: Canned) -> AsyncIterator[RunningPeer]:
    """Run it on the cores of what is measured until the block is left."""
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="tollhouse-peer-") as place:
        start = peer.start(upstream.port, port, Path(place))
        process = _started(start, Path(place))
        try:
            port = await _port_of(process, Path(place), port)
            pin([process.pid], measured_cores())
            yield RunningPeer(start, port, process.pid)
        finally:
            await asyncio.to_thread(_end, process)


def _started(start: Start, place: Path) -> "subprocess.Popen[bytes]":
    for name, text in start.files.items():
        (place / name).write_text(text)
    with (place / "output").open("wb") as output:
        return subprocess.Popen(
            start.command,
            cwd=place,
            env=os.environ | start.environment,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


async def _port_of(process: "subprocess.Popen[bytes]", place: Path, port: int) -> int:
    """Wait until it accepts connections; one that chooses a port by itself says which."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        said = await asyncio.to_thread((place / "output").read_bytes)
        port = int(found[1]) if (found := _SERVING.search(said)) else port
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return port
        await asyncio.sleep(0.1)
    said = await asyncio.to_thread((place / "output").read_bytes)
    raise AssertionError(f"{process.args!r} did not start: {said[-2000:].decode(errors='replace')}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for one in family:
            with suppress(psutil.NoSuchProcess):
                one.kill()
    process.wait(30)


def installed(recorder: Recorder) -> list[Peer]:
    """Return the peers that are there; note the others."""
    for what, reason in NOT_HAD.items():
        recorder.skip(what, reason)
    for peer in PEERS:
        if not peer.installed.exists():
            recorder.skip(f"peer/{peer.name}", "not installed; `make peers` does it")
    return [peer for peer in PEERS if peer.installed.exists()]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_beside_the_peers(recorder: Recorder, transport: str) -> None:
    """One worker and 64 callers; `ratio/<peer>/c64` is how many times a peer's calls per second of a core are ours."""
    if not knows(transport):
        pytest.skip("this server does not know the transport")
    peers = installed(recorder)
    if not peers:
        pytest.skip("no peer is installed; `make peers` does it")

    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(canned())
        ours = await stack.enter_async_context(governed(upstream, transport=transport))
        others = {peer.name: await stack.enter_async_context(running_peer(peer, upstream)) for peer in peers}
        for each in others.values():
            await each.measure(SECONDS)
        await ours.load(callers=CALLERS, seconds=SECONDS)
        for name in in_turns(list(others)):
            await _beside(recorder, ours, others[name], transport, name)

    assert len(recorder.found[f"{_suite(transport)}/{peers[0].name}/c64"]) >= 1


def _suite(transport: str) -> str:
    """Where ratios stand: those of the default transport without its name."""
    return "ratio" if transport == TRANSPORT else f"ratio_{transport}"


async def _beside(recorder: Recorder, ours: Governed, peer: RunningPeer, transport: str, name: str) -> None:
    """Measure one of each."""
    theirs = await peer.measure(SECONDS)
    found = await ours.measure(callers=CALLERS, seconds=SECONDS)
    recorder.record_all(f"peer/{name}/c64", theirs)
    recorder.record_all(f"peer/tollhouse_{transport}/c64", found)
    suite, speed = _suite(transport), theirs["calls_per_s_core"]
    recorder.record(f"{suite}/{name}/c64", found["calls_per_s_core"] / speed)
    whole_us = found["cpu_us_per_call"] + found["postgres_us_per_call"]
    recorder.record(f"{suite}/{name}/c64_with_postgres", 1e6 / whole_us / speed)
