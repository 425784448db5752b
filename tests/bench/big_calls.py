"""Calls with a large prompt or a large answer, from a process of its own, and how late a worker's event loop is.

`python -m tests.bench.big_calls` reads an Order as JSON from each line of its standard input, sends its calls at once
and writes what it has Seen as a line of JSON. While calls are under way it asks the worker for its health every two
milliseconds: the worker answers that from the same event loop, so that the longest wait is the loop's longest block.
"""

import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import grpc
import uvloop
from grpc_health.v1 import health_pb2
from tollhouse.v1 import content_pb2, generation_pb2

from tests.bench.loads import UNARY

_PING = "/grpc.health.v1.Health/Check"
_PING_SECONDS = 0.002
_UNBOUNDED: list[tuple[str, int]] = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
_PROSE = "The bridge is 1,280 metres long between its towers, and was opened to traffic in May of that year. "


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """So many calls at once, each with so many bytes of inline media and of text. `seconds` of 0: one of each."""

    target: str
    metadata: Mapping[str, str]
    calls: int
    media_bytes: int = 0
    text_bytes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What it came to: calls answered, their median, the size of the largest answer, and how late the loop was."""

    calls: int
    p50_ms: float
    answer_bytes: int
    blocked_ms: float
    ping_p50_ms: float


def request_of(order: Order) -> bytes:
    """Return the message of an order. Media are random, text is prose."""
    parts = []
    if order.media_bytes:
        blob = content_pb2.Blob(mime_type="image/png", data=os.urandom(order.media_bytes))
        parts.append(content_pb2.Part(inline_data=blob))
    text = _PROSE * (order.text_bytes // len(_PROSE)) or "Draw the bridge."
    parts.append(content_pb2.Part(text=text))
    contents = [content_pb2.Content(role="user", parts=parts)]
    return generation_pb2.GenerateContentRequest(tier="flash", contents=contents).SerializeToString()


async def _pings(channel: grpc.aio.Channel, waits: list[float]) -> None:
    check = channel.unary_unary(
        _PING,
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    while True:
        began_at = time.perf_counter()
        await check(health_pb2.HealthCheckRequest())
        waits.append((time.perf_counter() - began_at) * 1e3)
        await asyncio.sleep(_PING_SECONDS)


async def obeyed(order: Order) -> Seen:
    """Send the calls of an order; each of them must be answered."""
    request, ends_at = request_of(order), time.perf_counter() + order.seconds
    waits: list[float] = []
    taken: list[float] = []
    sizes: list[int] = []
    options = [*_UNBOUNDED, ("grpc.use_local_subchannel_pool", 1)]
    async with (
        grpc.aio.insecure_channel(order.target, options=options) as big,
        grpc.aio.insecure_channel(order.target, options=options) as beside,
    ):
        call: Any = big.unary_unary(UNARY)
        pinging = asyncio.create_task(_pings(beside, waits))
        await beside.channel_ready()

        async def caller() -> None:
            while not taken or time.perf_counter() < ends_at:
                began_at = time.perf_counter()
                answer = await call(request, metadata=tuple(order.metadata.items()), timeout=120)
                taken.append((time.perf_counter() - began_at) * 1e3)
                sizes.append(len(answer))
                if time.perf_counter() >= ends_at:
                    return

        await asyncio.gather(*(caller() for _ in range(order.calls)))
        pinging.cancel()
    return Seen(
        calls=len(taken),
        p50_ms=statistics.median(taken),
        answer_bytes=max(sizes),
        blocked_ms=max(waits, default=0.0),
        ping_p50_ms=statistics.median(waits or [0.0]),
    )


async def _obey() -> None:
    while line := await asyncio.to_thread(sys.stdin.readline):
        seen = await obeyed(Order(**json.loads(line)))
        sys.stdout.write(json.dumps(asdict(seen)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(_obey())
