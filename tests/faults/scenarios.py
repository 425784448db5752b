"""Loads that lead a process past its boundaries: each some tenths of a second, seeded, and deaf to errors.

What callers are told in the midst of a fault is not judged here: the referee looks at the books.
"""

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import grpc
from tollhouse.v1 import content_pb2 as c
from tollhouse.v1 import generation_pb2 as g

from tests.drivers.administration import nanos_of
from tests.drivers.callers import prompt
from tests.drivers.load import Caller, callers
from tests.faults import neighbour
from tests.faults.rig import Driven, Rig

_SECONDS = 5.0
_MODEL = "gemini-3.5-flash"
_TIERS = ("pro", "flash", "flash-lite")
_REFUSING_MODEL = "gemini-2.5-flash-lite"
_LONG = "A long way to go. " * 20_000
"""More than a call may have without being cut in pieces: 360 kB."""

_CLAIM = """
INSERT INTO request_key (tenant_id, request_id, day, fingerprint, attempt_id)
VALUES ('demo', $1::text::uuid, (now() AT TIME ZONE 'UTC')::date, 'another', gen_random_uuid())
ON CONFLICT DO NOTHING
"""

Run = Callable[[Rig, Driven, random.Random], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A load for one process: `role` says which kind is watched and struck."""

    name: str
    run: Run
    role: str = "worker"


async def one_call(rig: Rig, caller: Caller, dice: random.Random, **fields: Any) -> None:
    """Make a call of some kind; note the receipt if there is one."""
    request = prompt(f"Toll {dice.getrandbits(64)}", **(fields or {"tier": dice.choice(_TIERS)}))
    kind = dice.randrange(4)
    if kind == 0:
        await read_some(caller, request, chunks=1 + dice.randrange(2))
    elif kind == 1:
        note(rig, await caller.streamed(request, seconds=_SECONDS))
    else:
        note(rig, await caller.unary(request, seconds=_SECONDS))


async def read_some(caller: Caller, request: g.GenerateContentRequest, *, chunks: int) -> None:
    """Hang up on a stream after some chunks."""
    stream = caller.stream(request, seconds=_SECONDS)
    async for _ in stream:
        chunks -= 1
        if not chunks:
            stream.cancel()
            return


def note(rig: Rig, outcome: g.Outcome) -> None:
    """Keep a receipt for the referee."""
    rig.referee.receipts[outcome.receipt.attempt_id] = nanos_of(outcome.cost)


async def noted(rig: Rig, call: Awaitable[g.Outcome]) -> None:
    """Make a call and keep its receipt."""
    note(rig, await call)


async def all_of(calls: Iterable[Awaitable[Any]]) -> None:
    """Make calls at once, whatever becomes of them."""

    async def deaf(call: Awaitable[Any]) -> None:
        with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
            await call

    async with asyncio.TaskGroup() as group:
        for call in calls:
            group.create_task(deaf(call))


@asynccontextmanager
async def under(calls: Iterable[Awaitable[Any]]) -> AsyncIterator[None]:
    """Have calls under way while the block runs; wait for them at its end."""
    async with asyncio.TaskGroup() as group:
        group.create_task(all_of(calls))
        yield


@asynccontextmanager
async def load_of(rig: Rig, dice: random.Random, count: int) -> AsyncIterator[None]:
    """Have `count` calls of all kinds under way while the block runs; wait for them at its end."""
    async with callers(rig.stack, rig.key, 2) as among:
        calls = [one_call(rig, dice.choice(among), dice) for _ in range(count)]
        async with under(calls):
            yield


async def mixed(rig: Rig, target: Driven, dice: random.Random) -> None:
    """Every method, unary and streamed, some hung up on."""
    await rig.simulator.set_pace(latency_ms=10, tokens_per_second=5000)
    text = [c.Content(role="user", parts=[c.Part(text="How many tolls?")])]
    items = [g.EmbedContentItem(content=content) for content in text]
    async with callers(rig.stack, rig.key, 2) as (one, two):
        await all_of(
            (
                one.unary(prompt("One call alone"), seconds=_SECONDS),
                two.streamed(prompt("One stream alone"), seconds=_SECONDS),
                two.unary(g.EmbedContentRequest(tier="embedding", requests=items), seconds=_SECONDS),
                one.unary(g.CountTokensRequest(model=_MODEL, contents=text), seconds=_SECONDS),
            )
        )
        await all_of(one_call(rig, dice.choice((one, two)), dice) for _ in range(6))


async def upstream_faults(rig: Rig, target: Driven, dice: random.Random) -> None:
    """Refusals with a fall-back, connections that break, answers that are none.

    The quota of a 429 is learned, and kept to: it has room for all that comes after.
    """
    await rig.simulator.set_pace(latency_ms=10, tokens_per_second=5000)
    async with callers(rig.stack, rig.key, 1) as (caller,):
        for kind in ("429", "503", "400", "reset", "garbage", "truncate"):
            await rig.simulator.add_fault(
                kind, count=2, after_chunks=1 if kind == "truncate" else 0, requests_per_minute=100_000
            )
            await all_of(
                (caller.unary(prompt(kind), seconds=_SECONDS), caller.streamed(prompt(kind), seconds=_SECONDS))
            )
            await rig.simulator.clear_faults()


async def refusals(rig: Rig, target: Driven, dice: random.Random) -> None:
    """Request ids used again, at once and later, and with other content; a limit without room; no time left."""
    await rig.simulator.set_pace(latency_ms=10, tokens_per_second=5000)
    request_id = str(UUID(int=dice.getrandbits(128), version=4))
    async with callers(rig.stack, rig.key, 2) as (one, two), callers(rig.stack, rig.poor_key, 1) as (poor,):
        same = [prompt("Once", request_id=request_id) for _ in range(4)]
        await all_of(
            caller.unary(request, seconds=_SECONDS) for caller, request in zip((one, two) * 2, same, strict=True)
        )
        await all_of(
            (
                one.unary(same[0], seconds=_SECONDS),
                two.unary(prompt("Another", request_id=request_id), seconds=_SECONDS),
                poor.unary(prompt("Not affordable"), seconds=_SECONDS),
                poor.streamed(prompt("Not affordable"), seconds=_SECONDS),
                one.unary(prompt("In no time"), seconds=0.004),
            )
        )
        await claimed_elsewhere(rig, one, str(UUID(int=dice.getrandbits(128), version=4)))


async def claimed_elsewhere(rig: Rig, caller: Caller, request_id: str) -> None:
    """Another server claims the id of a call in the same moment and commits first: the call loses what it holds."""
    async with rig.another_session() as other, asyncio.TaskGroup() as group, other.transaction():
        await other.execute(_CLAIM, request_id)
        group.create_task(all_of([caller.unary(prompt("Mine", request_id=request_id), seconds=_SECONDS)]))
        await asyncio.sleep(0.1)


async def outage(rig: Rig, target: Driven, dice: random.Random) -> None:
    """The database ends the ledger's connections in the midst of calls and of transactions."""
    await rig.simulator.set_pace(latency_ms=40, tokens_per_second=4000)
    async with load_of(rig, dice, 12):
        for _ in range(4):
            # A transaction that waits for the counters is cut in its midst.
            async with rig.root.transaction():
                await rig.root.execute("SELECT FROM counter FOR NO KEY UPDATE")
                await asyncio.sleep(0.04)
                await cut_connections(rig)
            await asyncio.sleep(dice.uniform(0.0, 0.03))


async def statement_errors(rig: Rig, target: Driven, dice: random.Random) -> None:
    """Serialization failures and deadlocks; works that spoil a whole batch; texts that PostgreSQL will not take."""
    await rig.simulator.set_pace(latency_ms=10, tokens_per_second=5000)
    async with callers(rig.stack, rig.key, 2) as among:
        for fault in ("40001", "40P01", "22023", "22P05"):
            await rig.raise_errors(fault)
            await all_of(one_call(rig, dice.choice(among), dice) for _ in range(8))
            await all_of(one_call(rig, dice.choice(among), dice) for _ in range(4))
        await rig.raise_errors(None)


async def cut_connections(rig: Rig) -> None:
    """Terminate every connection of the ledger."""
    await rig.root.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tollhouse-ledger'"
    )


async def steps(rig: Rig, target: Driven, dice: random.Random) -> None:
    """Streams that hold in steps: to their end, and cut for want of room; a limit that alerts."""
    await rig.simulator.set_pace(latency_ms=5, tokens_per_second=0)
    await rig.simulator.add_fault("slow", model=_MODEL, delay_seconds=0.02)
    await rig.leave_room("tight", 700)
    await rig.forget_alerts()
    config = c.GenerationConfig(max_output_tokens=4000, thinking_config=c.ThinkingConfig(thinking_budget=0))
    async with callers(rig.stack, rig.key, 1) as (rich,), callers(rig.stack, rig.tight_key, 1) as (tight,):
        written = [prompt(f"[[tokens:{count}]]", model=_MODEL, generation_config=config) for count in (900, 1200)]
        await all_of(caller.streamed(request, seconds=_SECONDS) for caller in (rich, tight) for request in written)
    await rig.simulator.clear_faults()


async def late(rig: Rig, target: Driven, dice: random.Random) -> None:
    """The worker is declared dead while it lives: it is fenced, and corrects what was booked for it."""
    await rig.simulator.set_pace(latency_ms=600, tokens_per_second=2000)
    await rig.simulator.add_fault("reset", model=_MODEL, count=2)
    await rig.simulator.add_fault("503", model=_REFUSING_MODEL, count=1)
    async with callers(rig.stack, rig.key, 1) as (caller,):
        broken = [caller.unary(prompt("To be broken", model=_MODEL), seconds=_SECONDS) for _ in range(2)]
        refused = caller.unary(prompt("To be refused", model=_REFUSING_MODEL), seconds=_SECONDS)
        async with under((*broken, refused, *(one_call(rig, caller, dice) for _ in range(4)))):
            await asyncio.sleep(0.1)
            await rig.root.execute("UPDATE worker SET state = 'DEAD' WHERE pid = $1 AND state = 'ALIVE'", target.pid)
    await rig.simulator.clear_faults()


async def drain(rig: Rig, target: Driven, dice: random.Random) -> None:
    """SIGTERM under load: calls that end in time, calls that do not."""
    await rig.simulator.set_pace(latency_ms=900, tokens_per_second=100)
    async with load_of(rig, dice, 6):
        await asyncio.sleep(0.1)
        target.send(signal.SIGTERM)
    try:
        await asyncio.wait_for(target.ended.wait(), 10)
    except TimeoutError:
        # As the supervisor does with a process that does not end in time.
        await rig.end(target)


async def sweep(rig: Rig, target: Driven, dice: random.Random) -> None:
    """A worker dies with calls in flight, and the housekeeper, who is watched, sweeps up after it."""
    await rig.simulator.set_pace(latency_ms=250, tokens_per_second=400)
    victim = next(one for one in reversed(rig.driven) if one.role == "worker" and not one.ended.is_set())
    async with callers(rig.stack, rig.key, 1) as (caller,), under(one_call(rig, caller, dice) for _ in range(4)):
        await asyncio.sleep(0.1)
        await rig.end(victim)
    for _ in range(60):
        if target.struck.is_set() or not await rig.referee.in_flight():
            break
        await asyncio.sleep(0.05)


async def _both_ways(rig: Rig, one: Caller, two: Caller, request: g.GenerateContentRequest) -> None:
    await all_of(
        (
            noted(rig, one.unary(request, seconds=_SECONDS)),
            noted(rig, two.streamed(request, seconds=_SECONDS)),
        )
    )


async def elsewhere(rig: Rig, target: Driven, dice: random.Random) -> None:
    """Another company's calls: on Vertex AI, where a token is refused once, and on a server of its own; a long prompt.

    All of them go past a guard, and those that generate are kept.
    """
    await rig.simulator.set_pace(latency_ms=10, tokens_per_second=5000)
    vertex = neighbour.VERTEX
    text = [c.Content(role="user", parts=[c.Part(text="How many tolls?")])]
    items = [g.EmbedContentItem(content=content) for content in text]
    far = c.GenerationConfig(max_output_tokens=65_536, thinking_config=c.ThinkingConfig(thinking_budget=0))
    async with callers(rig.stack, rig.neighbour_key, 2) as (one, two):
        await _both_ways(rig, one, two, prompt("Tell toll@example.com", routing=vertex))
        await rig.simulator.add_fault("401", project=neighbour.PROJECT, count=1)
        await _both_ways(rig, one, two, prompt("Tell toll@example.com", routing=vertex))
        await rig.simulator.clear_faults()
        await rig.simulator.set_pace(latency_ms=10, tokens_per_second=0)
        await all_of(
            (
                one.unary(g.EmbedContentRequest(tier="embedding", requests=items, routing=vertex), seconds=_SECONDS),
                two.unary(g.CountTokensRequest(model=_MODEL, contents=text, routing=vertex), seconds=_SECONDS),
                noted(rig, one.unary(prompt(_LONG, routing=vertex), seconds=_SECONDS)),
                noted(
                    rig,
                    two.unary(prompt("[[tokens:65500]]", routing=vertex, generation_config=far), seconds=_SECONDS),
                ),
                _both_ways(rig, two, one, prompt("At home", tier=neighbour.TIER)),
                two.unary(g.CountTokensRequest(tier=neighbour.TIER, contents=text), seconds=_SECONDS),
            )
        )


SCENARIOS = (
    Scenario("mixed", mixed),
    Scenario("upstream-faults", upstream_faults),
    Scenario("refusals", refusals),
    Scenario("outage", outage),
    Scenario("statement-errors", statement_errors),
    Scenario("steps", steps),
    Scenario("late", late),
    Scenario("drain", drain),
    Scenario("sweep", sweep, role="housekeeper"),
    Scenario("elsewhere", elsewhere),
)
