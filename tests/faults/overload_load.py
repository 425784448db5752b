"""Open-loop load of several departments at once, each at a rate of its own, and what became of every call."""

import asyncio
import gc
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from uuid import uuid4

import grpc
import psutil
from google.rpc import error_details_pb2, status_pb2
from tollhouse.v1 import content_pb2 as c
from tollhouse.v1 import generation_pb2 as g
from tollhouse.v1.generation_pb2_grpc import GenerationServiceStub

from tests.drivers.administration import nanos_of
from tests.drivers.callers import bearer, prompt
from tests.faults.overload_rig import MODEL, QUIET, TOKENS, OverloadRig

CONNECTIONS = 16
_OPTIONS = (("grpc.use_local_subchannel_pool", 1),)
_STATUS = "grpc-status-details-bin"
_IN_FORCE_SECONDS = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Calls of one department in one class, which come at a rate whatever becomes of those before them.

    `connections` are those that they come over, by number; empty means all of them. With `hangs_up_after_seconds`
    callers do not wait for longer, and say nothing of a deadline.
    """

    department: str
    rate: float
    priority: "g.Priority.ValueType" = g.PRIORITY_DEFAULT
    deadline_seconds: float = 5.0
    connections: tuple[int, ...] = ()
    hangs_up_after_seconds: float | None = None

    @property
    def name(self) -> str:
        """What figures are kept under."""
        return f"{self.department} {g.Priority.Name(self.priority).removeprefix('PRIORITY_')}"


@dataclass(slots=True)
class Call:
    """What became of one call; `seconds` is None while it is under way, `code` is empty when it was served."""

    source: Source
    began_at: float
    seconds: float | None = None
    code: str = ""
    details: bytes = b""

    @property
    def reason(self) -> str:
        """The documented reason of a refusal, empty where the client made it up itself."""
        return told(self.details)[0]

    @property
    def retry_seconds(self) -> float | None:
        """After how long the caller was told to come back."""
        return told(self.details)[1]


@cache
def told(details: bytes) -> tuple[str, float | None]:
    """Return reason and delay of a refusal."""
    reason, seconds = "", None
    for detail in status_pb2.Status.FromString(details).details:
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(retry):
            seconds = retry.retry_delay.ToNanoseconds() / 1e9
    return reason, seconds


@dataclass(slots=True)
class Load:
    """A driver with its connections; `late_seconds` is by how much it was too slow itself, at the worst."""

    rig: OverloadRig
    dice: random.Random
    stubs: Sequence[Any]
    ports: Sequence[int] = ()
    late_seconds: float = 0.0
    calls: list[Call] = field(default_factory=list)

    async def run(self, *sources: Source, seconds: float) -> list[Call]:
        """Let calls come for so long, wait until all have ended, and return them."""
        first, ends_at = len(self.calls), time.monotonic() + seconds
        gc.collect()
        gc.freeze()
        async with asyncio.TaskGroup() as group:
            for source in sources:
                group.create_task(self._arrive(source, ends_at))
        return self.calls[first:]

    async def one(self, source: Source) -> Call:
        """Make one call."""
        call = Call(source, time.monotonic())
        await self._call(self.dice.randrange(len(self.stubs)), call)
        return call

    async def _arrive(self, source: Source, ends_at: float) -> None:
        among = source.connections or range(len(self.stubs))
        next_at = time.monotonic()
        async with asyncio.TaskGroup() as group:
            while (next_at := next_at + self.dice.expovariate(source.rate)) < ends_at:
                pause = next_at - time.monotonic()
                self.late_seconds = max(self.late_seconds, -pause)
                if pause > 0:
                    await asyncio.sleep(pause)
                call = Call(source, time.monotonic())
                self.calls.append(call)
                group.create_task(self._call(self.dice.choice(among), call))

    async def _call(self, connection: int, call: Call) -> None:
        source, request = call.source, self._request(call.source)
        metadata = bearer(self.rig.keys[source.department])
        under_way = self.stubs[connection].GenerateContent(request, metadata=metadata, timeout=source.deadline_seconds)
        try:
            if source.hangs_up_after_seconds is None:
                answer = await under_way
            else:
                answer = await asyncio.wait_for(under_way, source.hangs_up_after_seconds)
            outcome = answer.outcome
            self.rig.referee.receipts[outcome.receipt.attempt_id] = nanos_of(outcome.cost)
        except grpc.aio.AioRpcError as error:
            call.code = error.code().name
            call.details = next((value for key, value in error.trailing_metadata() or () if key == _STATUS), b"")  # type: ignore[assignment]
        except TimeoutError:
            call.code = "HUNG_UP"
        call.seconds = time.monotonic() - call.began_at

    def _request(self, source: Source) -> g.GenerateContentRequest:
        return prompt(
            f"[[tokens:{self.dice.randint(*TOKENS)}]] Toll {self.dice.getrandbits(64)}",
            model=MODEL,
            request_id=str(uuid4()),
            generation_config=c.GenerationConfig(max_output_tokens=64),
            routing=g.RoutingOptions(priority=source.priority),
        )

    async def warm(self, account_id: str, department: str = QUIET) -> None:
        """Wait until a call over each connection is served by an account."""
        ends_at = time.monotonic() + _IN_FORCE_SECONDS
        for stub in self.stubs:
            while True:
                answer = await self._warm_call(stub, department)
                if answer is not None and answer.outcome.route.account == f"accounts/{account_id}":
                    break
                assert time.monotonic() < ends_at, f"{account_id} is not in force: {answer}"
                await asyncio.sleep(0.1)

    def connections_by_worker(self) -> dict[int, list[int]]:
        """Return which connections ended up at which worker, by its process id."""
        found: dict[int, list[int]] = {}
        for process in self.rig.processes():
            peers = {one.raddr.port for one in process.net_connections("tcp") if one.raddr}
            if mine := [number for number, port in enumerate(self.ports) if port in peers]:
                found[process.pid] = mine
        return found

    async def _warm_call(self, stub: Any, department: str) -> g.GenerateContentResponse | None:
        source = Source(department=department, rate=1)
        metadata = bearer(self.rig.keys[department])
        try:
            answer: g.GenerateContentResponse = await stub.GenerateContent(
                self._request(source), metadata=metadata, timeout=5
            )
        except grpc.aio.AioRpcError:
            return None
        self.rig.referee.receipts[answer.outcome.receipt.attempt_id] = nanos_of(answer.outcome.cost)
        return answer


@asynccontextmanager
async def load_on(rig: OverloadRig, *, seed: int, connections: int = CONNECTIONS) -> AsyncIterator[Load]:
    """Open a driver's connections, enough of them for both workers to have some."""
    ports: list[int] = []
    async with AsyncExitStack() as channels:
        opened = []
        for _ in range(connections):
            before = _ports_to(rig.gateway.grpc)
            channel = await channels.enter_async_context(grpc.aio.insecure_channel(rig.gateway.grpc, options=_OPTIONS))
            await channel.channel_ready()
            ports += _ports_to(rig.gateway.grpc) - before
            opened.append(channel)
        yield Load(rig, random.Random(seed), [GenerationServiceStub(channel) for channel in opened], ports)


def _ports_to(target: str) -> set[int]:
    """Return the local ports of this process's connections to a server."""
    port = int(target.rpartition(":")[2])
    own = psutil.Process().net_connections("tcp")
    return {one.laddr.port for one in own if one.raddr and one.raddr.port == port}
