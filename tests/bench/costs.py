"""What a piece of work has cost: seconds on the clock, and of the processor for this process and for PostgreSQL."""

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import psutil


@dataclass(slots=True)
class Cost:
    """Seconds. On a machine with neighbours those of the processor tell more than those on the clock."""

    wall_seconds: float = 0.0
    own_seconds: float = 0.0
    postgres_seconds: float = 0.0
    peak_bytes: int = 0
    load: float = 0.0

    def figures(self, amount: int, unit: str) -> dict[str, float]:
        """Return what a Recorder keeps of it, for so many units."""
        return {
            f"{unit}_per_s": amount / self.wall_seconds,
            f"cpu_us_per_{unit.removesuffix('s')}": self.own_seconds / amount * 1e6,
            f"postgres_us_per_{unit.removesuffix('s')}": self.postgres_seconds / amount * 1e6,
        }


@contextmanager
def cost(postmaster: int) -> Iterator[Cost]:
    """Measure a block; `postmaster` is the id of PostgreSQL's first process."""
    found, begun, own, theirs = Cost(), time.perf_counter(), time.process_time(), family_seconds(postmaster)
    yield found
    found.wall_seconds = time.perf_counter() - begun
    found.own_seconds = time.process_time() - own
    found.postgres_seconds = family_seconds(postmaster) - theirs
    found.peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found.load = os.getloadavg()[0]


def family_seconds(pid: int) -> float:
    """Return what a process and its children have used of the processor, those that ended included."""
    first = psutil.Process(pid)
    times = [first.cpu_times()]
    seconds = times[0].children_user + times[0].children_system
    for one in [first, *first.children(recursive=True)]:
        try:
            spent = one.cpu_times()
        except psutil.NoSuchProcess:
            continue
        seconds += spent.user + spent.system
    return seconds


async def postmaster_of(connection: "asyncpg.Connection[Any]") -> int:
    """Return the id of the first process of the server that a connection is with."""
    backend: int = await connection.fetchval("SELECT pg_backend_pid()")
    return psutil.Process(backend).ppid()
