"""The same request id many times at once on three servers, with kills: at most one upstream call per id."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import grpc

from tests.drivers.callers import prompt, reason_of
from tests.drivers.load import Caller, callers_at
from tests.drivers.referee import Finding
from tests.drivers.stack import free_ports
from tests.faults.cast import Cast
from tests.faults.journal import Journal
from tests.faults.report import say
from tests.faults.rig import Driven, Rig
from tests.faults.scenarios import note
from tests.faults.traffic import KILLED

CAMPAIGN = "duplicates"
SERVERS, COPIES = 3, 20
_CONNECTIONS = 4
_IDS_AT_ONCE = 4
_KILL_EVERY_SECONDS = 3.0

_DISPATCHES = """
SELECT request_id::text, attempt_id::text, kind FROM usage_record
WHERE request_id = ANY ($1::uuid[]) AND kind IN ('SETTLED', 'SUSPENSE')
"""


async def run(rig: Rig, journal: Journal, *, seed: int, ids: int) -> None:
    """Send each of `ids` request ids 20 times at once to each of three servers."""
    started_at, dice, told = time.monotonic(), random.Random(seed), Counter[str]()
    request_ids = [str(UUID(int=dice.getrandbits(128), version=4)) for _ in range(ids)]
    await rig.simulator.set_pace(latency_ms=30, tokens_per_second=0)
    cast = Cast(rig, workers=0)
    await cast.complete()
    ports = free_ports(SERVERS)
    servers = {port: await rig.start("worker", port) for port in ports}
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        killing = group.create_task(_kill_now_and_then(rig, servers, random.Random(seed), stop))
        await _send_all(rig, ports, request_ids, told)
        stop.set()
        kills = await killing
    findings = await _judge(rig, request_ids)
    for server in servers.values():
        await rig.end(server)
    findings += await rig.verdict()
    seconds = round(time.monotonic() - started_at, 1)
    measured = {"ids": ids, "calls": sum(told.values()), "kills": kills, "told": told, "seconds": seconds}
    journal.add(CAMPAIGN, f"{ids} ids, seed {seed}", findings, seed=seed, **measured)
    say(f"  {ids} ids x {COPIES} x {SERVERS} servers, {kills} kills: {dict(told)}, {seconds} s")
    for finding in findings:
        say(f"      {finding}")


async def _send_all(rig: Rig, ports: list[int], request_ids: list[str], told: Counter[str]) -> None:
    waiting = iter(request_ids)

    async def keep_sending(among: list[Caller]) -> None:
        for request_id in waiting:
            await asyncio.gather(*(_send(rig, caller, request_id, told) for caller in among for _ in range(COPIES)))

    async with _connections(rig, ports) as sets, asyncio.TaskGroup() as group:
        for among in sets:
            group.create_task(keep_sending(among))


@asynccontextmanager
async def _connections(rig: Rig, ports: list[int]) -> AsyncIterator[list[list[Caller]]]:
    """Open, for each of the ids that are in the air at once, a connection to every server."""
    targets = [f"127.0.0.1:{port}" for port in ports for _ in range(_IDS_AT_ONCE)]
    async with callers_at(targets, rig.key) as opened:
        yield [opened[number::_IDS_AT_ONCE] for number in range(_IDS_AT_ONCE)]


async def _send(rig: Rig, caller: Caller, request_id: str, told: Counter[str]) -> None:
    try:
        note(rig, await caller.unary(prompt("Once, please", request_id=request_id), seconds=20))
        told["served"] += 1
    except grpc.aio.AioRpcError as error:
        told[reason_of(error) if error.code() not in KILLED else error.code().name] += 1


async def _kill_now_and_then(rig: Rig, servers: dict[int, Driven], dice: random.Random, stop: asyncio.Event) -> int:
    kills = 0
    while not stop.is_set():
        try:
            await asyncio.wait_for(stop.wait(), dice.uniform(0.5, 1.5) * _KILL_EVERY_SECONDS)
        except TimeoutError:
            port = dice.choice(sorted(servers))
            await rig.end(servers[port])
            servers[port] = await rig.start("worker", port)
            kills += 1
    return kills


async def _judge(rig: Rig, request_ids: list[str]) -> list[Finding]:
    """Count what was served for each id, by the simulator's log."""
    await rig.quiet()
    findings = await rig.referee.check()
    rows = await rig.root.fetch(_DISPATCHES, request_ids)
    served = Counter(row["request_id"] for row in rows if row["attempt_id"] in rig.referee.bills)
    booked = Counter(row["request_id"] for row in rows)
    findings += [
        Finding("one id was served more than once", one, str(times)) for one, times in served.items() if times > 1
    ]
    findings += [
        Finding("one id was booked more than once", one, str(times)) for one, times in booked.items() if times > 1
    ]
    return findings
