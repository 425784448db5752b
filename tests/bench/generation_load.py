"""A process that serves generation calls with everything around them answering at once: `python -m
tests.bench.generation_load [calls]`.

What is left is what planning, places, attempts, prices and the upstream's client cost; the ledger, the network and the
RPC are canned. Prints microseconds of processor time per call. Made for profilers, too.
"""

import asyncio
import socket
import ssl
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final
from unittest.mock import patch
from uuid import uuid4

import uvloop
from prometheus_client import CollectorRegistry
from tollhouse_server.garbage_collection import tune_garbage_collection
from tollhouse_server.generation.attempts import Attempts
from tollhouse_server.generation.calls import GenerationCall
from tollhouse_server.generation.departures import Departures
from tollhouse_server.generation.detached import DetachedCalls
from tollhouse_server.generation.generate import Generation
from tollhouse_server.generation.keys import KeyChooser
from tollhouse_server.generation.plans import Planner
from tollhouse_server.ledger.ledger import Ledger
from tollhouse_server.ledger.terms import Reservation, Settlement
from tollhouse_server.ledger.works import ReserveWork
from tollhouse_server.pricing.book import packaged_prices
from tollhouse_server.pricing.terms import PriceBook
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.telemetry.steps import CallNotes, noting
from tollhouse_server.telemetry.tracecontext import trace_context
from tollhouse_server.traffic.breakers import Breakers
from tollhouse_server.traffic.retry_budget import RetryBudget
from tollhouse_server.traffic.traffic import Traffic
from tollhouse_server.upstream import http
from tollhouse_server.upstream.connection import Connection
from tollhouse_server.upstream.gemini import GeminiUpstream
from tollhouse_server.upstream.http import PooledTransport
from tollhouse_server.upstream.protocol import Method
from tollhouse_server.vault.key_ring import KeyRing, UpstreamKeyRef

from tests.bench.canned_gemini import UNARY
from tests.drivers.generation import RefusedKeys, SecretsInMemory, UpstreamAccount, catalogue_with
from tests.drivers.ledger import SCOPE

CALLERS: Final = 64
ROUNDS: Final = 5
BODY: Final[dict[str, Any]] = {
    "contents": [{"role": "user", "parts": [{"text": "How long is the bridge? " * 18}]}],
    "generationConfig": {"temperature": 0.5, "maxOutputTokens": 64, "stopSequences": ["END"]},
}
ACCOUNT: Final = UpstreamAccount(account_id="main", base_url="http://127.0.0.1:9", secrets=("a-key",))


class _TickAtOnce:
    """Admits and books whatever it is given."""

    def submit_reserve(self, work: ReserveWork) -> None:
        work.admit(Reservation(work.terms, (), "[]", datetime.now(UTC), 1))

    def submit_settle(self, _reservation: Reservation, settlement: Settlement) -> "asyncio.Future[datetime]":
        assert settlement.outcome == "SERVED"
        booked: asyncio.Future[datetime] = asyncio.get_running_loop().create_future()
        booked.set_result(datetime.now(UTC))
        return booked


class ServerAtOnce(asyncio.Transport):
    """The other end of a connection, which answers what is written to it as soon as the event loop turns."""

    def __init__(self, connection: Connection) -> None:
        near, self._far = socket.socketpair()
        super().__init__({"socket": near})
        self._connection = connection

    def write(self, _request: Any) -> None:
        asyncio.get_running_loop().call_soon(self._connection.data_received, UNARY)

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        self._connection.connection_lost(None)


class _Permitted:
    """A permit that is sure for long."""

    async def sure_until(self) -> float:
        return time.monotonic() + 5.0


async def _dialled(*_: Any) -> Connection:
    connection = Connection()
    connection.connection_made(ServerAtOnce(connection))
    return connection


async def generation_at_once(group: asyncio.TaskGroup) -> Generation:
    """Build the room as `wiring` does, over a ledger and a server that answer at once."""
    key = UpstreamKeyRef(account_id="main", key_id="key-0", version=1)
    catalogue, book, watch = catalogue_with([ACCOUNT], [key]), PriceBook(1, packaged_prices().lists), RefusedKeys()
    secrets = SecretsInMemory({"upstream-keys/main/key-0": "a-key"})
    ring, metrics = KeyRing(secrets), Metrics(CollectorRegistry())
    await ring.expect([key])
    tick: Any = _TickAtOnce()
    return Generation(
        planner=Planner(lambda: catalogue, lambda: book, output_cap_tokens=8192, stream_step_tokens=1024),
        departures=Departures(
            traffic=Traffic(accounts=catalogue.accounts(), breakers=Breakers(), metrics=metrics),
            retries=RetryBudget(),
            keys=KeyChooser(lambda: catalogue, ring, watch.is_out),
            key_watch=watch,
        ),
        attempts=Attempts(Ledger(tick)),
        calls=DetachedCalls(group),
        upstream=GeminiUpstream(PooledTransport(ssl.create_default_context())),
        metrics=metrics,
        max_attempts=3,
        upstream_timeout_seconds=60.0,
        settle_grace_seconds=10.0,
    )


def call_now() -> GenerationCall:
    """Build a call as the API's handler does."""
    return GenerationCall(
        scope=SCOPE,
        request_id=uuid4(),
        method=Method.GENERATE,
        tier="flash",
        model=None,
        body=BODY,
        deadline=time.monotonic() + 60.0,
        permit=_Permitted(),
        correlation_id="4bf92f3577b34da6a3ce929d0e0e4736",
    )


async def one_call(generation: Generation) -> None:
    """Serve a call whose steps are noted, as those of every RPC are."""
    notes = CallNotes("GenerationService.GenerateContent", trace_context({}), "x")
    with noting(notes):
        answer = await generation.generate(call_now())
    assert answer.outcome.usage is not None


async def micros_of(work: Callable[[], Awaitable[None]], calls: int) -> float:
    """Return the processor time of one call in microseconds, the least of several rounds."""

    async def caller() -> None:
        for _ in range(calls // CALLERS):
            await work()

    found = []
    for _ in range(ROUNDS):
        started_at = time.process_time()
        async with asyncio.TaskGroup() as group:
            for _ in range(CALLERS):
                group.create_task(caller())
        found.append((time.process_time() - started_at) / (calls // CALLERS * CALLERS) * 1e6)
    return min(found)


async def main(calls: int) -> None:
    """Measure whole calls."""
    with patch.object(http, "dial", _dialled):
        async with asyncio.TaskGroup() as group:
            generation = await generation_at_once(group)
            tune_garbage_collection()
            whole = await micros_of(lambda: one_call(generation), calls)
            sys.stdout.write(f"a call {whole:7.1f} us\n")


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 12_800))
