"""Calls that come at a rate, whatever becomes of those before them, each with a deadline; what became of each."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import uuid4

import grpc
from grpc_status import rpc_status
from tollhouse.v1 import content_pb2 as c
from tollhouse.v1 import generation_pb2 as g

from tests.drivers.administration import nanos_of
from tests.drivers.callers import prompt, reason_of
from tests.drivers.load import Caller, callers
from tests.faults.upstream_rig import MODELS, UpstreamRig

_CONNECTIONS = 16
_SHORTEST_SECONDS, _LONGEST_SECONDS = 10.0, 30.0
_STREAMS = 0.5
_OUTPUT_TOKENS = (20, 80)
_STREAM_TOKENS = (40, 120)
"""More than one chunk of the simulator's."""

_BROKEN_OFF = "UPSTREAM_OUTCOME_UNKNOWN"


@dataclass(slots=True, kw_only=True)
class Call:
    """One call; `seconds` is None while it is under way, `code` is empty when it was served."""

    request_id: str
    phase: str
    model: str
    is_stream: bool
    deadline_seconds: float
    seconds: float | None = None
    chunks: int = 0
    code: str = ""
    reason: str = ""
    detail: str = ""
    may_run_out: bool = False

    @property
    def broke_midway(self) -> bool:
        """Tell whether this is a stream that nobody could save, and whose listener was told so.

        Where one may stand still until its caller's time is up, that is all there is to say.
        """
        ran_out = self.may_run_out and self.code == "DEADLINE_EXCEEDED"
        return self.is_stream and self.chunks > 0 and (self.reason == _BROKEN_OFF or ran_out)


@dataclass(slots=True)
class Load:
    """The calls of one case, by phase."""

    rig: UpstreamRig
    kind: "g.UpstreamKind.ValueType"
    rate: float
    dice: random.Random
    phase: str = ""
    may_run_out: bool = False
    calls: list[Call] = field(default_factory=list)
    late_seconds: float = 0.0
    """By how much the callers themselves were too slow at the worst: the machine's share in what is measured."""

    async def arrive(self, among: Sequence[Caller], stop: asyncio.Event) -> None:
        """Begin calls at the rate until told to stop, then wait for all."""
        next_at = time.monotonic()
        async with asyncio.TaskGroup() as group:
            while not stop.is_set():
                next_at += self.dice.expovariate(self.rate)
                pause = next_at - time.monotonic()
                self.late_seconds = max(self.late_seconds, -pause)
                await asyncio.sleep(max(0.0, pause))
                group.create_task(self._call(self.dice.choice(among)))

    def of(self, phase: str) -> list[Call]:
        """Return the calls that began in a phase."""
        return [call for call in self.calls if call.phase == phase]

    async def _call(self, caller: Caller) -> None:
        dice = self.dice
        call = Call(
            request_id=str(uuid4()),
            phase=self.phase,
            model=dice.choice(MODELS),
            is_stream=dice.random() < _STREAMS,
            deadline_seconds=dice.uniform(_SHORTEST_SECONDS, _LONGEST_SECONDS),
            may_run_out=self.may_run_out,
        )
        self.calls.append(call)
        request = self._request(call)
        began_at = time.monotonic()
        try:
            outcome = await (self._stream(caller, call, request) if call.is_stream else _unary(caller, call, request))
            self.rig.referee.receipts[outcome.receipt.attempt_id] = nanos_of(outcome.cost)
        except grpc.aio.AioRpcError as error:
            call.code, call.reason, call.detail = error.code().name, _reason(error), str(error.details())[:200]
        call.seconds = time.monotonic() - began_at

    def _request(self, call: Call) -> g.GenerateContentRequest:
        tokens = self.dice.randint(*(_STREAM_TOKENS if call.is_stream else _OUTPUT_TOKENS))
        return prompt(
            f"[[tokens:{tokens}]] Toll {self.dice.getrandbits(64)}",
            model=call.model,
            request_id=call.request_id,
            generation_config=c.GenerationConfig(max_output_tokens=512),
            routing=g.RoutingOptions(kinds=[self.kind]),
        )

    async def _stream(self, caller: Caller, call: Call, request: g.GenerateContentRequest) -> g.Outcome:
        outcome = g.Outcome()
        async for message in caller.stream(request, seconds=call.deadline_seconds):
            if message.candidates:
                call.chunks += 1
            if message.HasField("outcome"):
                outcome = message.outcome
        return outcome


async def _unary(caller: Caller, call: Call, request: g.GenerateContentRequest) -> g.Outcome:
    return await caller.unary(request, seconds=call.deadline_seconds)


def _reason(error: grpc.aio.AioRpcError) -> str:
    """Return the documented reason of a refusal, empty where the client made it up itself."""
    return "" if rpc_status.from_call(error) is None else reason_of(error)  # type: ignore[arg-type]


@asynccontextmanager
async def load_on(rig: UpstreamRig, kind: "g.UpstreamKind.ValueType", *, rate: float, seed: int) -> AsyncIterator[Load]:
    """Keep calls coming until the block is left; then wait for the last answers."""
    load, stop = Load(rig, kind, rate, random.Random(seed)), asyncio.Event()
    async with callers(rig.gateway, rig.gateway.demo_api_key, _CONNECTIONS) as among, asyncio.TaskGroup() as group:
        group.create_task(load.arrive(among, stop))
        try:
            yield load
        finally:
            stop.set()
