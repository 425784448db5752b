"""A crowd of callers in a process of its own: `python -m tests.faults.crowd`, an order on stdin, what came on stdout.

All calls are in the air at once, spread over the servers and over several connections to each.
"""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

import grpc
import uvloop
from tollhouse.v1 import content_pb2 as c
from tollhouse.v1 import generation_pb2 as g
from tollhouse.v1.generation_pb2_grpc import GenerationServiceStub

from tests.drivers.callers import bearer, prompt, reason_of

_STREAMS_PER_CONNECTION = 900
_OPTIONS = (
    # Without it every channel of a process shares one connection to a server.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
)
_GONE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL}
"""What a caller may see of a server that is killed in his face, or that has more connections than it can take up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a crowd is to do. Who is cut off calls again, as a new call, until he is served or refused."""

    targets: Sequence[str]
    key: str
    model: str
    output_tokens: int
    calls: int


@dataclass(slots=True)
class Outcome:
    """What a crowd got: nano-dollars by attempt for those who were served, reasons for those who were not."""

    receipts: dict[str, int] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)
    cut_off: int = 0
    seconds: float = 0.0


async def send_all(order: Order) -> Outcome:
    """Start every call before the first is answered, and wait for all."""
    outcome, began = Outcome(), time.monotonic()
    per_target = -(-order.calls // (len(order.targets) * _STREAMS_PER_CONNECTION))
    async with AsyncExitStack() as channels:
        stubs = []
        for target in [*order.targets] * per_target:
            channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
            stubs.append(GenerationServiceStub(await channels.enter_async_context(channel)))
        await asyncio.gather(*(_call(order, stubs, number, outcome) for number in range(order.calls)))
    outcome.seconds = time.monotonic() - began
    return outcome


async def _call(order: Order, stubs: Sequence[Any], number: int, outcome: Outcome) -> None:
    config = c.GenerationConfig(max_output_tokens=order.output_tokens)
    request = prompt(f"[[full]] call {number}", model=order.model, generation_config=config)
    while True:
        try:
            answer = await _send(order, stubs[number % len(stubs)], request)
        except grpc.aio.AioRpcError as error:
            if error.code() in _GONE:
                outcome.cut_off += 1
                await asyncio.sleep(0.5)
                # The next connection leads to another server.
                number += 1
                continue
            reason = _reason(error)
            outcome.refusals[reason] = outcome.refusals.get(reason, 0) + 1
        else:
            cost = answer.outcome.cost
            outcome.receipts[answer.outcome.receipt.attempt_id] = cost.units * 10**9 + cost.nanos
        return


def _reason(error: grpc.aio.AioRpcError) -> str:
    # What the client itself made up has a code and no details.
    return reason_of(error) if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED else error.code().name


async def _send(order: Order, stub: Any, request: g.GenerateContentRequest) -> g.GenerateContentResponse:
    answer: g.GenerateContentResponse = await stub.GenerateContent(request, metadata=bearer(order.key), timeout=300)
    return answer


def main() -> None:
    """Carry out the order on stdin."""
    order = Order(**json.load(sys.stdin))
    sys.stdout.write(json.dumps(asdict(uvloop.run(send_all(order)))))


if __name__ == "__main__":
    main()
