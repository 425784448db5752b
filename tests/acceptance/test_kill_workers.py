"""kill -9 under load: workers, the housekeeper, the supervisor. The books stay right. Some 30 s."""

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

import grpc
import psutil
import pytest
from tollhouse.admin.v1 import limits_pb2 as limits
from tollhouse.v1 import generation_pb2 as g
from tollhouse_server.simulator.client import SimulatorClient

from tests.drivers.administration import administration, nanos_of
from tests.drivers.callers import prompt
from tests.drivers.load import Caller, callers
from tests.drivers.places import servers_place
from tests.drivers.reconciliation import Attempts, assert_books_agree, in_flight, served_calls
from tests.drivers.stack import RunningStack, stack_environment, start_stack

KILLS = 4
CALLERS = 10
CALLS_PER_CONNECTION = 4
RESEARCH = "tenants/demo/departments/research"
TIERS = ("ultra", "pro", "flash", "flash-lite")
SETTINGS = {"transport": "auto", "worker_dead_after_seconds": 4, "drain_seconds": 3}
GONE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL}
"""What callers may see of a server that is killed in their face."""


@dataclass(slots=True)
class Installation:
    """A server that may be killed and started again on what it left; `receipts` is what its callers were told."""

    environment: dict[str, str]
    stack: RunningStack
    receipts: dict[str, int] = field(default_factory=dict)

    def pid(self, name: str) -> int:
        """Return the process id of a part as run.json has it now."""
        return int(self.stack.current_pids()[name])

    def serves(self, worker: str) -> bool:
        """Tell whether a worker listens."""
        port = int(self.stack.grpc.rsplit(":", 1)[1])
        with suppress(psutil.Error):
            sockets = psutil.Process(self.pid(worker)).net_connections("tcp")
            return any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in sockets)
        return False

    def start_again(self) -> None:
        """Start a server on the same state and ports."""
        self.stack = start_stack(self.environment)
        self.stack.wait_until_ready()


@pytest.fixture(scope="module")
def installation() -> Iterator[Installation]:
    """A server whose workers count as dead sooner than by default, with a second limit, on the number of calls."""
    with servers_place("kills") as directory:
        environment = stack_environment(directory / "state", **SETTINGS)
        made = Installation(environment, start_stack(environment))
        try:
            made.stack.wait_until_ready()
            with administration(made.stack) as admin:
                per_day = limits.LimitAmount(units=1_000_000)
                admin.add_limit("calls", RESEARCH, limits.LIMIT_METRIC_REQUESTS, limits.LIMIT_WINDOW_TOTAL, per_day)
            yield made
        finally:
            made.stack.end()


async def until(what: str, is_so: Callable[[], bool], *, seconds: float = 30) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(is_so):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.1)


async def call_once(caller: Caller, dice: random.Random) -> g.Outcome | None:
    """Make a call: unary or streamed, every fifth one given up half-way; None if it did not come to its end."""
    request = prompt(f"Entry {dice.getrandbits(64)} in the book of tolls", tier=dice.choice(TIERS))
    is_given_up = dice.random() < 0.2
    if dice.random() < 0.5:
        stream = caller.stream(request)
        last = g.GenerateContentResponse()
        async for message in stream:
            last = message
            if is_given_up:
                stream.cancel()
                return None
        return last.outcome
    try:
        return await asyncio.wait_for(caller.unary(request), 0.1 if is_given_up else 60)
    except TimeoutError:
        return None


async def keep_calling(installation: Installation, seed: int, stop: asyncio.Event) -> None:
    """Call until told to stop, each few calls over a new connection, so that every worker gets its share."""
    dice = random.Random(seed)
    while not stop.is_set():
        async with callers(installation.stack, installation.stack.demo_api_key, 1) as (caller,):
            for _ in range(CALLS_PER_CONNECTION):
                try:
                    outcome = await call_once(caller, dice)
                except grpc.aio.AioRpcError as error:
                    assert error.code() in GONE, error
                    await asyncio.sleep(0.1)
                else:
                    if outcome is not None:
                        installation.receipts[outcome.receipt.attempt_id] = nanos_of(outcome.cost)


@asynccontextmanager
async def load_on(installation: Installation) -> AsyncIterator[None]:
    """Keep callers calling until the block is left."""
    stop = asyncio.Event()
    async with SimulatorClient(installation.stack.simulator) as simulator:
        # Slow enough that most of a call's life is spent upstream, where a kill hurts.
        await simulator.set_pace(latency_ms=100, tokens_per_second=500)
    async with asyncio.TaskGroup() as group:
        for seed in range(CALLERS):
            group.create_task(keep_calling(installation, seed, stop))
        try:
            yield
        finally:
            stop.set()


async def assert_all_is_booked(installation: Installation) -> Attempts:
    """Wait until no attempt is left in flight; then the books and the simulator's log must agree."""
    stack = installation.stack
    await until("the attempts of the dead are swept", lambda: in_flight(stack) == 0)
    booked = await asyncio.to_thread(Attempts.read, stack, RESEARCH)
    assert_books_agree(booked, await served_calls(stack), installation.receipts)
    return booked


async def test_killed_workers_lose_no_call_and_book_none_twice(installation: Installation) -> None:
    """Time and again kill -9 at a random moment, now this worker, now that: every call is settled or in suspense."""
    dice = random.Random(10)
    before = await asyncio.to_thread(Attempts.read, installation.stack, RESEARCH)

    async with load_on(installation):
        for number in range(KILLS):
            for worker in ("worker-1", "worker-2"):
                await until(f"{worker} serves", partial(installation.serves, worker))
            await asyncio.sleep(dice.uniform(0.2, 0.8))
            os.kill(installation.pid(f"worker-{number % 2 + 1}"), signal.SIGKILL)
        await until("calls came through all of it", lambda: len(installation.receipts) > 10 * KILLS)

    booked = await assert_all_is_booked(installation)
    assert len(booked.ended_as("SUSPENSE")) > len(before.ended_as("SUSPENSE")), (
        "no kill hit a call: the test has shown nothing"
    )
    assert len(booked.ended_as("SETTLED")) > 10 * KILLS


async def test_a_killed_housekeeper_is_replaced_and_sweeps(installation: Installation) -> None:
    """A worker dies and then the housekeeper, before it could have noticed: its successor does."""
    before = await asyncio.to_thread(Attempts.read, installation.stack, RESEARCH)
    old = installation.pid("housekeeper")

    async with load_on(installation):
        await until("worker-1 serves", lambda: installation.serves("worker-1"))
        await until("calls are under way", lambda: in_flight(installation.stack) > CALLERS // 2)
        os.kill(installation.pid("worker-1"), signal.SIGKILL)
        os.kill(old, signal.SIGKILL)
        await until("there is another housekeeper", lambda: installation.pid("housekeeper") != old)

    booked = await assert_all_is_booked(installation)
    assert len(booked.ended_as("SUSPENSE")) > len(before.ended_as("SUSPENSE")), "the kill hit no call"


async def test_after_a_killed_supervisor_everything_ends_and_a_new_run_recovers(installation: Installation) -> None:
    """Nothing of the server outlives it for long; the next one finds the books, and the calls that were cut off."""
    before = installation.stack.current_pids()
    processes = [psutil.Process(pid) for pid in before.values()]

    async with load_on(installation):
        await asyncio.sleep(1)
        installation.stack.process.kill()
        installation.stack.process.wait()
        _, alive = await asyncio.to_thread(psutil.wait_procs, processes, timeout=20)
        assert alive == []
    await asyncio.to_thread(installation.start_again)
    async with callers(installation.stack, installation.stack.demo_api_key, 1) as (caller,):
        outcome = await caller.unary(prompt("Is anybody there?"))
    installation.receipts[outcome.receipt.attempt_id] = nanos_of(outcome.cost)

    await assert_all_is_booked(installation)
