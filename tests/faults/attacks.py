"""Rude callers during load: thousands of stream resets, connections dropped, nonsense; nothing leaks, nothing dies."""

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import grpc
import psutil
from tollhouse.v1 import generation_pb2 as g

from tests.drivers import http2
from tests.drivers.callers import bearer, prompt
from tests.drivers.load import callers
from tests.drivers.referee import Finding
from tests.faults.cast import Cast
from tests.faults.journal import Journal
from tests.faults.report import say
from tests.faults.rig import Driven, Rig
from tests.faults.traffic import KILLED, Manner, traffic_on

CAMPAIGN = "attacks"
_PATH = "/tollhouse.v1.GenerationService/StreamGenerateContent"
_STREAMS_PER_CONNECTION = 50
_WARM_UP = 1000
_MOST_GROWTH_BYTES = 48 * 1024 * 1024
_MOST_LATER_GROWTH_BYTES = 1536
"""For each reset of the second half, when there is room already for as much as comes at a time. 40 to 840 were seen
where nothing is kept, 2,100 where 6.7 KB were of each stream that is cut while it is sent."""
_POLITE = Manner(seconds=30, may_be_told=KILLED)

Attack = Callable[[Rig, random.Random], Awaitable[int]]


async def run(rig: Rig, journal: Journal, *, seed: int, resets: int) -> None:
    """Let `resets` streams be reset, in several manners, while polite callers call; then look what has stayed."""
    cast, dice = Cast(rig), random.Random(seed)
    await cast.complete()
    worker = cast.one("worker")
    await _attack(rig, dice, min(_WARM_UP, resets))
    await rig.quiet()
    before = _memory_bytes(worker)
    started_at = time.monotonic()
    async with traffic_on(rig, *[_POLITE] * 2, seed=seed) as traffic:
        first = await _attack(rig, dice, resets // 2)
        half = _memory_bytes(worker)
        second = await _attack(rig, dice, resets - first)
    done, findings = first + second, list(traffic.findings)
    if worker.ended.is_set():
        findings.append(Finding("a worker ended", "under resets and nonsense"))
        grown = later = 0
    else:
        later = _memory_bytes(worker) - half
        grown = half + later - before
    if grown > _MOST_GROWTH_BYTES:
        findings.append(Finding("memory grows", f"{grown // 1024} KiB", f"over {done} resets"))
    if second >= _WARM_UP and later > _MOST_LATER_GROWTH_BYTES * second:
        findings.append(Finding("memory goes on growing", f"{later // 1024} KiB", f"over the last {second} resets"))
    findings += await cast.next_calls("after the attacks", 50) + await rig.verdict()
    seconds = round(time.monotonic() - started_at, 1)
    memory = {"grown_kib": grown // 1024, "later_kib": later // 1024}
    measured = {"resets": done, **memory, "polite_calls": traffic.told.total(), "seconds": seconds}
    journal.add(CAMPAIGN, f"{resets} resets, seed {seed}", findings, seed=seed, **measured)
    say(f"  {measured}, told the polite {dict(traffic.told)}")
    for finding in dict.fromkeys(findings):
        say(f"      {finding} x {findings.count(finding)}")


def _memory_bytes(worker: Driven) -> int:
    """Return what a worker has in memory, 0 of one that has ended."""
    return 0 if worker.ended.is_set() else int(psutil.Process(worker.pid).memory_info().rss)


async def _attack(rig: Rig, dice: random.Random, resets: int) -> int:
    done = 0
    while done < resets:
        attack = dice.choices(ATTACKS, (6, 2, 1, 1))[0]
        done += await attack(rig, dice)
    return done


async def reset_raw(rig: Rig, dice: random.Random) -> int:
    """Open streams by hand on one connection and reset each at once, or after a moment."""
    host, port = rig.stack.grpc.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(http2.PREFACE + http2.settings())
    for number in range(_STREAMS_PER_CONNECTION):
        stream = 2 * number + 1
        message = prompt(f"Rude {dice.getrandbits(64)}").SerializeToString()
        writer.write(http2.request(stream, _PATH, rig.stack.grpc, bearer(rig.key), message))
        if dice.random() < 0.3:
            await asyncio.sleep(dice.uniform(0, 0.01))
        writer.write(http2.reset(stream))
    writer.write(http2.ping(1))
    with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
        await asyncio.wait_for(_until_pong(reader), 10)
    writer.close()
    return _STREAMS_PER_CONNECTION


async def _until_pong(reader: asyncio.StreamReader) -> None:
    while True:
        head = await reader.readexactly(9)
        await reader.readexactly(int.from_bytes(head[:3], "big"))
        if http2.is_pong(head[3], head[4]):
            return


async def cancel_streams(rig: Rig, dice: random.Random) -> int:
    """Cancel streams of a real client after none, one or two chunks."""

    async def one(chunks: int) -> None:
        with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
            stream = caller.stream(prompt(f"Rude {dice.getrandbits(64)}"), seconds=10)
            for _ in range(chunks):
                await stream.read()
            stream.cancel()

    async with callers(rig.stack, rig.key, 1) as (caller,):
        await asyncio.gather(*(one(dice.randrange(3)) for _ in range(_STREAMS_PER_CONNECTION)))
    return _STREAMS_PER_CONNECTION


async def close_channels(rig: Rig, dice: random.Random) -> int:
    """Close the connection in the midst of its streams."""
    count = 10
    async with callers(rig.stack, rig.key, 1) as (caller,):
        streams = [caller.stream(prompt(f"Rude {dice.getrandbits(64)}"), seconds=10) for _ in range(count)]
        with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
            await streams[0].read()
    return count


async def talk_nonsense(rig: Rig, dice: random.Random) -> int:
    """Send bytes that are no HTTP/2, frames that are none, messages that are none, and wrong values."""
    host, port = rig.stack.grpc.rsplit(":", 1)
    for beginning in (b"", http2.PREFACE, http2.PREFACE + http2.settings()):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(beginning + os.urandom(dice.randrange(1, 4000)))
        with suppress(OSError, TimeoutError):
            await asyncio.wait_for(reader.read(100), 0.05)
        writer.close()
    reader, writer = await asyncio.open_connection(host, int(port))
    garbage = http2.request(1, _PATH, rig.stack.grpc, bearer(rig.key), os.urandom(200))
    writer.write(http2.PREFACE + http2.settings() + garbage + http2.ping(1))
    with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
        await asyncio.wait_for(_until_pong(reader), 5)
    writer.close()
    wrong = (g.GenerateContentRequest(), prompt("x", model="no-such-model"), prompt("x", request_id="not a uuid"))
    async with callers(rig.stack, rig.key, 1) as (caller,):
        for message in wrong:
            with suppress(grpc.aio.AioRpcError):
                await caller.unary(message, seconds=5)
    return 1


ATTACKS: tuple[Attack, ...] = (reset_raw, cancel_streams, close_channels, talk_nonsense)
