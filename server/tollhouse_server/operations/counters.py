"""What the processes of one server have counted, read as its metrics port reads it."""

import asyncio
import os
import socket
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Final

from tollhouse_server.telemetry.declarations import calls, processes
from tollhouse_server.telemetry.declarations.declaration import CALL_BUCKETS
from tollhouse_server.telemetry.exposition import Exposition
from tollhouse_server.telemetry.multiprocess import shared_directory

FRESH_SECONDS: Final = 1.0
"""For so long what was read is given again: reading takes milliseconds for every process of the server."""

# Part of `prompt`.
_CACHED: Final = "cached"


@dataclass(slots=True)
class RpcCounts:
    """What was counted of one RPC. `durations` has a number for each of CALL_BUCKETS and one for what took longer."""

    ok: int = 0
    errors: int = 0
    durations: list[int] = field(default_factory=lambda: [0] * (len(CALL_BUCKETS) + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """The counters of one server, since it began."""

    server_id: str
    read_at: datetime
    rpcs: Mapping[str, RpcCounts] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)
    tokens: int = 0
    in_flight: int = 0
    processes: Mapping[str, int] = field(default_factory=dict)


class LiveCounters:
    """Reads the counters of this server when asked, and not more often than FRESH_SECONDS."""

    def __init__(self) -> None:
        directory = shared_directory()
        self._exposition = None if directory is None else Exposition(directory)
        self._reading = asyncio.Lock()
        self._read: tuple[float, Counters] | None = None

    async def read(self) -> Counters:
        """Return the counters; all zero in a process that shares none with others."""
        async with self._reading:
            if self._read is None or time.monotonic() - self._read[0] > FRESH_SECONDS:
                counters = await asyncio.to_thread(counters_of, self._exposition)
                self._read = time.monotonic(), counters
            return self._read[1]


def server_id() -> str:
    """Return what tells this server, and this start of it, from others: the supervisor is every process's parent."""
    return f"{socket.gethostname()}/{os.getppid()}"


def server_version() -> str:
    """Return the version of the software."""
    return version("tollhouse")


def counters_of(exposition: Exposition | None) -> Counters:
    """Return the counters of now. Blocking."""
    found = Counters(server_id=server_id(), read_at=datetime.now(UTC))
    if exposition is None:
        return found
    tokens = exposition.values_of(calls.TOKENS)
    return replace(
        found,
        rpcs=_rpcs(exposition),
        reasons=_by_label(exposition.values_of(calls.REFUSALS)),
        tokens=sum(int(count) for (_, _, kind), count in tokens.items() if kind != _CACHED),
        in_flight=sum(int(count) for count in exposition.values_of(calls.IN_FLIGHT_CALLS).values()),
        processes=_by_label(exposition.values_of(processes.PROCESSES)),
    )


def _rpcs(exposition: Exposition) -> Mapping[str, RpcCounts]:
    rpcs: dict[str, RpcCounts] = defaultdict(RpcCounts)
    for (rpc, code), count in exposition.values_of(calls.CALLS).items():
        if code == "OK":
            rpcs[rpc].ok += int(count)
        else:
            rpcs[rpc].errors += int(count)
    for (rpc,), counts in exposition.counts_of(calls.CALL_DURATION).items():
        rpcs[rpc].durations = [int(count) for count in counts]
    return dict(sorted(rpcs.items()))


def _by_label(values: Mapping[tuple[str, ...], float]) -> dict[str, int]:
    return {label: int(count) for (label,), count in sorted(values.items())}
