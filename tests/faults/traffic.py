"""Many callers at once, for as long as something happens to the server; what they are told is counted and judged."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import uuid4

import grpc
from grpc_status import rpc_status

from tests.drivers.callers import prompt, reason_of
from tests.drivers.load import Caller, callers
from tests.drivers.referee import Finding
from tests.faults.rig import Rig
from tests.faults.scenarios import note

_CALLS_PER_CONNECTION = 4
_TIERS = ("pro", "flash", "flash-lite")

Code = grpc.StatusCode
KILLED = frozenset({Code.UNAVAILABLE, Code.CANCELLED, Code.UNKNOWN, Code.INTERNAL})
"""What callers may see of a server that is killed in their face."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How a caller calls: with what deadline, how often it hangs up on a stream, and what it may be told.

    With `every_seconds` it waits for no answer before the next call: then some calls begin in the midst of an outage.
    """

    every_seconds: float | None = None
    seconds: float = 30.0
    hang_up_rate: float = 0.0
    may_be_told: frozenset[Code] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A call that was not answered. `ends_at` is when its caller's time was up, by the clock of the machine."""

    request_id: str
    seconds: float
    ends_at: float
    code: Code
    reason: str


@dataclass(slots=True)
class Traffic:
    """What became of the calls. `told` has codes by deadline, `longest_seconds` the slowest answer of each."""

    rig: Rig
    told: Counter[tuple[float, str]] = field(default_factory=Counter)
    longest_seconds: dict[float, float] = field(default_factory=dict)
    hang_ups: int = 0
    refusals: list[Refusal] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    async def keep_calling(self, manner: Manner, seed: int, stop: asyncio.Event) -> None:
        """Call until told to stop, each few calls over a new connection, so that every worker gets its share."""
        dice = random.Random(seed)
        if manner.every_seconds is not None:
            await self._arrive(manner, manner.every_seconds, dice, stop)
        while not stop.is_set():
            async with callers(self.rig.stack, self.rig.key, 1) as (caller,):
                for _ in range(_CALLS_PER_CONNECTION):
                    if not stop.is_set():
                        await self._call(caller, manner, dice)

    async def _arrive(self, manner: Manner, every_seconds: float, dice: random.Random, stop: asyncio.Event) -> None:
        async with callers(self.rig.stack, self.rig.key, 4) as among, asyncio.TaskGroup() as group:
            while not stop.is_set():
                group.create_task(self._call(dice.choice(among), manner, dice))
                await asyncio.sleep(every_seconds)

    async def _call(self, caller: Caller, manner: Manner, dice: random.Random) -> None:
        started_at, ends_at = time.monotonic(), time.time() + manner.seconds
        # Not of the dice: the same seed makes the same load more than once on one rig.
        request_id = str(uuid4())
        try:
            await self._one(caller, manner, dice, request_id)
            code = Code.OK
        except grpc.aio.AioRpcError as error:
            code = error.code()
            reason = _reason_of(error)
            self.refusals.append(
                Refusal(request_id=request_id, seconds=manner.seconds, ends_at=ends_at, code=code, reason=reason)
            )
            if code not in manner.may_be_told:
                self.findings.append(Finding("a caller was told", code.name, str(error.details())[:200]))
            await asyncio.sleep(0.05)
        took = time.monotonic() - started_at
        self.told[manner.seconds, code.name] += 1
        self.longest_seconds[manner.seconds] = max(took, self.longest_seconds.get(manner.seconds, 0.0))

    async def _one(self, caller: Caller, manner: Manner, dice: random.Random, request_id: str) -> None:
        request = prompt(f"Toll {dice.getrandbits(64)}", tier=dice.choice(_TIERS), request_id=request_id)
        if dice.random() < manner.hang_up_rate:
            await self._hang_up(caller, manner, dice)
        elif dice.random() < 0.5:
            note(self.rig, await caller.streamed(request, seconds=manner.seconds))
        else:
            note(self.rig, await caller.unary(request, seconds=manner.seconds))

    async def _hang_up(self, caller: Caller, manner: Manner, dice: random.Random) -> None:
        """Cancel a stream before its first chunk, or after any later one."""
        stream = caller.stream(prompt(f"Toll {dice.getrandbits(64)}"), seconds=manner.seconds)
        chunks = dice.randrange(5)
        if chunks == 0:
            await asyncio.sleep(dice.uniform(0.0, 0.08))
        else:
            async for _ in stream:
                chunks -= 1
                if not chunks:
                    break
        self.hang_ups += stream.cancel()


def _reason_of(error: grpc.aio.AioRpcError) -> str:
    """Return the documented reason of a refusal, empty where the server has said nothing."""
    return "" if rpc_status.from_call(error) is None else reason_of(error)  # type: ignore[arg-type]


@asynccontextmanager
async def traffic_on(rig: Rig, *manners: Manner, seed: int) -> AsyncIterator[Traffic]:
    """Keep one caller for each of the manners calling until the block is left; then wait for the last answers."""
    traffic, stop = Traffic(rig), asyncio.Event()
    # Slow enough that most of a call's life is spent upstream, where a fault hurts.
    await rig.simulator.set_pace(latency_ms=60, tokens_per_second=1000)
    async with asyncio.TaskGroup() as group:
        for number, manner in enumerate(manners):
            group.create_task(traffic.keep_calling(manner, seed * 1000 + number, stop))
        try:
            yield traffic
        finally:
            stop.set()
