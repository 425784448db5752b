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

    def told(self, what: str, amount: int, unit: str) -> str:
        """Return the line of a table."""
        spent = self.own_seconds + self.postgres_seconds
        return (
            f"{what:34} {amount:>11,} {unit:8}"
            f" {self.wall_seconds:8.2f} s {amount / self.wall_seconds:>11,.0f}/s"
            f"  CPU {self.own_seconds:7.2f} s here {self.postgres_seconds:7.2f} s PostgreSQL"
            f" {amount / spent if spent else 0:>9,.0f}/CPU s"
            f"  peak {self.peak_bytes / 1e6:5.0f} MB  load {self.load:.1f}"
        )


@contextmanager
def cost(postmaster: int) -> Iterator[Cost]:
    """Measure a block; `postmaster` is the id of PostgreSQL's first process."""
    found, begun, own, theirs = Cost(), time.perf_counter(), time.process_time(), _of_family(postmaster)
    yield found
    found.wall_seconds = time.perf_counter() - begun
    found.own_seconds = time.process_time() - own
    found.postgres_seconds = _of_family(postmaster) - theirs
    found.peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found.load = os.getloadavg()[0]


def _of_family(postmaster: int) -> float:
    """Return what PostgreSQL's processes have used, those that ended included."""
    first = psutil.Process(postmaster)
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
