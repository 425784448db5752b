"""A whole Tollhouse to be measured: its workers on cores of their own, all else beside, its ledger on a real disk."""

import asyncio
import os
import shutil
import statistics
import tempfile
import time
import typing
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import psutil
from tollhouse_server.embedded.postgres_roles import ROOT
from tollhouse_server.settings import Settings

from tests.bench.costs import family_seconds
from tests.bench.loads import UNARY, Canned, grpc_load, per_call, send
from tests.bench.machine import SCHEDULING, measured_cores, never_interrupt, other_cores, pin
from tests.bench.rounds import TRANSPORT, setting
from tests.bench.tally import Told
from tests.drivers.stack import RunningStack, stack_environment, start_stack

TRANSPORTS = ("grpcio", "envoy")
_PLENTY_NANOS = 10**15
_RAISE = "UPDATE usage_limit SET amount = $1; UPDATE epoch SET value = value + 1 WHERE topic = 'limits'"


def knows(transport: str) -> bool:
    """Whether this server can be told to serve with a transport."""
    setting = Settings.model_fields.get("transport")
    return transport == "grpcio" if setting is None else transport in typing.get_args(setting.annotation)


@dataclass(slots=True)
class Governed:
    """A running one."""

    stack: RunningStack
    workers: Sequence[int]
    """Process ids."""

    def cpu_seconds(self) -> float:
        """Return what the workers have used of the processor."""
        return sum(family_seconds(pid) for pid in self.workers)

    def postgres_seconds(self) -> float:
        """Return what PostgreSQL has used of the processor."""
        return family_seconds(self.stack.pids["postgres"])

    def fsync_ms(self) -> float:
        """Return what the disk takes to make a page durable, the median of twenty; a call waits for it twice."""
        path, taken = self.stack.state_dir / "fsync", []
        with path.open("wb", buffering=0) as file:
            for _ in range(20):
                file.seek(0)
                file.write(bytes(8192))
                began_at = time.perf_counter()
                os.fdatasync(file.fileno())
                taken.append((time.perf_counter() - began_at) * 1e3)
        path.unlink()
        return statistics.median(taken)

    def memory_bytes(self) -> int:
        """Return what the workers have in memory."""
        processes = [psutil.Process(pid) for pid in self.workers]
        family = [one for process in processes for one in (process, *process.children(recursive=True))]
        return sum(one.memory_info().rss for one in family)

    async def load(self, *, path: str = UNARY, callers: int, seconds: float) -> Told:
        """Send a load of governed calls."""
        load = grpc_load(self.stack.grpc, self.stack.demo_api_key, path=path, callers=callers, seconds=seconds)
        return await send("governed_load", load)

    async def measure(self, *, path: str = UNARY, callers: int, seconds: float) -> dict[str, float]:
        """Return what a call costs, the worker and PostgreSQL apart."""
        workers, postgres = self.cpu_seconds(), self.postgres_seconds()
        told = await self.load(path=path, callers=callers, seconds=seconds)
        postgres_us = (self.postgres_seconds() - postgres) / told.calls * 1e6
        return {**per_call(told, self.cpu_seconds() - workers), "postgres_us_per_call": postgres_us}

    async def idle(self, seconds: float) -> dict[str, float]:
        """Return what is used of the processor while nobody calls: of few calls a second it is a large part."""
        workers, postgres, began_at = self.cpu_seconds(), self.postgres_seconds(), time.perf_counter()
        await asyncio.sleep(seconds)
        gone = time.perf_counter() - began_at
        worker_ms, postgres_ms = self.cpu_seconds() - workers, self.postgres_seconds() - postgres
        return {"cpu_ms_per_s": worker_ms * 1e3 / gone, "postgres_ms_per_s": postgres_ms * 1e3 / gone}

    async def records(self) -> int:
        """Return how many calls are booked, and make sure that nothing is held."""
        async with self.root() as root:
            held = await root.fetchval("SELECT coalesce(sum(held), 0) FROM counter")
            assert held == 0
            return int(await root.fetchval("SELECT count(*) FROM usage_record WHERE kind = 'SETTLED'"))

    def _root_password(self) -> str:
        return (self.stack.state_dir / "secrets" / f"{ROOT}.password").read_text().strip()

    @asynccontextmanager
    async def root(self) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
        """Connect as PostgreSQL's superuser."""
        found = urlsplit(str(self.stack.run["postgres"]))
        password = self._root_password()
        connection = await asyncpg.connect(
            host=found.hostname, port=found.port, user=ROOT, password=password, database=found.path[1:]
        )
        try:
            yield connection
        finally:
            await connection.close()


@contextmanager
def disk_place() -> Iterator[Path]:
    """Make a directory on a disk, not in memory: a commit that waits for nothing would measure something else.

    BENCH_DIRECTORY names another one, such as /dev/shm where others keep the disk busy.
    """
    directory = Path(tempfile.mkdtemp(prefix="tollhouse-bench-", dir=setting("BENCH_DIRECTORY", "") or None))
    directory.chmod(0o711)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@asynccontextmanager
async def governed(
    upstream: Canned, *, transport: str = TRANSPORT, workers: int = 1, **settings: object
) -> AsyncIterator[Governed]:
    """Run a server whose calls go to `upstream`, with budgets that a bench does not use up."""
    if transport != "grpcio" or "transport" in Settings.model_fields:
        settings["transport"] = transport
    with disk_place() as directory:
        environment = stack_environment(directory / "state", workers=workers, gemini_base_url=upstream.url, **settings)
        stack = start_stack({**environment, "GEMINI_API_KEY": "a-key"})
        try:
            await asyncio.to_thread(stack.wait_until_ready)
            running = Governed(stack, [stack.pids[f"worker-{number + 1}"] for number in range(workers)])
            _pin(running)
            await _raise_budgets(running)
            yield running
        finally:
            await asyncio.to_thread(stack.end)


def _pin(running: Governed) -> None:
    pids = running.stack.pids
    pin([pid for pid in pids.values() if pid not in running.workers], other_cores())
    pin(running.workers, measured_cores(len(running.workers)))
    if SCHEDULING == "batch":
        never_interrupt(running.workers)


async def _raise_budgets(running: Governed) -> None:
    async with running.root() as root:
        for statement in _RAISE.split(";"):
            await root.execute(statement, *([_PLENTY_NANOS] if "$1" in statement else []))
