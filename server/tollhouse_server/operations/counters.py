"""What the processes of one server have counted, from the same values as its metrics port shows."""

import asyncio
import os
import socket
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.samples import Sample

from tollhouse_server.telemetry.declarations import calls, processes
from tollhouse_server.telemetry.declarations.declaration import CALL_BUCKETS
from tollhouse_server.telemetry.multiprocess import shared_with_other_processes

FRESH_SECONDS: Final = 1.0
"""For so long what was read is given again: reading takes milliseconds for every process of the server."""

# Of these, `cached` is part of `prompt`.
_PARTS: Final = frozenset({"cached"})


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
    rpcs: Mapping[str, RpcCounts]
    reasons: Mapping[str, int]
    tokens: int
    in_flight: int
    processes: Mapping[str, int]


class LiveCounters:
    """Reads the counters of this server when asked, and not more often than FRESH_SECONDS."""

    def __init__(self) -> None:
        self._reading = asyncio.Lock()
        self._read: tuple[float, Counters] | None = None

    async def read(self) -> Counters:
        """Return the counters; all zero in a process that shares none with others."""
        async with self._reading:
            if self._read is None or time.monotonic() - self._read[0] > FRESH_SECONDS:
                counters = await asyncio.to_thread(_counters)
                self._read = time.monotonic(), counters
            return self._read[1]


def _counters() -> Counters:
    return counters_of(_samples(), server_id=server_id(), read_at=datetime.now(UTC))


def server_id() -> str:
    """Return what tells this server, and this start of it, from others: the supervisor is every process's parent."""
    return f"{socket.gethostname()}/{os.getppid()}"


def server_version() -> str:
    """Return the version of the software."""
    return version("tollhouse")


def _samples() -> list[Sample]:
    if not shared_with_other_processes():
        return []
    registry = CollectorRegistry()
    collector = MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return [sample for metric in collector.collect() for sample in metric.samples]  # type: ignore[no-untyped-call]


def counters_of(samples: Iterable[Sample], *, server_id: str, read_at: datetime) -> Counters:
    """Return the counters that samples in Prometheus' form make."""
    by_name: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_name[sample.name].append(sample)
    rpcs: dict[str, RpcCounts] = defaultdict(RpcCounts)
    for sample in by_name[calls.CALLS.name]:
        counts = rpcs[sample.labels["rpc"]]
        if sample.labels["code"] == "OK":
            counts.ok += int(sample.value)
        else:
            counts.errors += int(sample.value)
    for sample in by_name[f"{calls.CALL_DURATION.name}_bucket"]:
        rpcs[sample.labels["rpc"]].durations[_bucket(sample.labels["le"])] = int(sample.value)
    for counts in rpcs.values():
        counts.durations = _apart(counts.durations)
    return Counters(
        server_id=server_id,
        read_at=read_at,
        rpcs=dict(sorted(rpcs.items())),
        reasons=_by(by_name[calls.REFUSALS.name], "reason"),
        tokens=sum(int(one.value) for one in by_name[calls.TOKENS.name] if one.labels["kind"] not in _PARTS),
        in_flight=sum(int(one.value) for one in by_name[calls.IN_FLIGHT_CALLS.name]),
        processes=_by(by_name[processes.PROCESSES.name], "role"),
    )


def _bucket(bound: str) -> int:
    """Return which bucket has this upper bound; the last one has none."""
    return len(CALL_BUCKETS) if bound == "+Inf" else CALL_BUCKETS.index(float(bound))


def _apart(counts: list[int]) -> list[int]:
    """Return counts of which each has those before it, without those."""
    return [count - before for before, count in zip([0, *counts], counts, strict=False)]


def _by(samples: Iterable[Sample], label: str) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for sample in samples:
        found[sample.labels[label]] += int(sample.value)
    return dict(sorted(found.items()))
