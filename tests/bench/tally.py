"""What callers are to do, and what they have seen: the same for each kind of caller."""

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field

import uvloop


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What to send: `body` is the message in base64, `seconds` for how long, `callers` how many wait at a time."""

    target: str
    path: str
    body: str
    metadata: Mapping[str, str]
    callers: int
    seconds: float


@dataclass(slots=True)
class Told:
    """What came back. `failed` calls ended without a message; times are milliseconds of those that brought one."""

    calls: int = 0
    failed: int = 0
    messages: int = 0
    seconds: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    first_p50_ms: float = 0.0
    first_p99_ms: float = 0.0
    spent_cpu_seconds: float = 0.0
    failures: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Tally:
    """Counts the calls of one load as they end."""

    load: Load
    told: Told = field(default_factory=Told)
    ends_at: float = 0.0
    _taken_ms: list[float] = field(default_factory=list)
    _first_ms: list[float] = field(default_factory=list)
    _began_at: float = 0.0
    _began_cpu: float = 0.0

    def begin(self) -> None:
        """Begin now."""
        self._began_at, self._began_cpu = time.perf_counter(), time.process_time()
        self.ends_at = self._began_at + self.load.seconds

    def answered(self, *, began_at: float, first_at: float, messages: int) -> None:
        """Count a call that ends now."""
        self.told.calls += 1
        self.told.messages += messages
        self._taken_ms.append((time.perf_counter() - began_at) * 1000)
        self._first_ms.append((first_at - began_at) * 1000)

    def failed(self, why: str, calls: int = 1) -> None:
        """Count calls that brought nothing."""
        if calls:
            self.told.failed += calls
            self.told.failures[why] = self.told.failures.get(why, 0) + calls

    def end(self) -> Told:
        """End when all calls have ended."""
        told = self.told
        told.seconds = time.perf_counter() - self._began_at
        told.spent_cpu_seconds = time.process_time() - self._began_cpu
        if len(self._taken_ms) > 1:
            told.p50_ms, told.p99_ms = _middle_and_worst(self._taken_ms)
            told.first_p50_ms, told.first_p99_ms = _middle_and_worst(self._first_ms)
        return told


def _middle_and_worst(taken_ms: list[float]) -> tuple[float, float]:
    quantiles = statistics.quantiles(taken_ms, n=100)
    return quantiles[49], quantiles[98]


def run_callers(send: Callable[[Load], Awaitable[Told]]) -> None:
    """Read a Load as JSON from standard input, send it, and write a Told as JSON."""

    async def sent() -> Told:
        return await send(Load(**json.loads(await asyncio.to_thread(sys.stdin.readline))))

    sys.stdout.write(json.dumps(asdict(uvloop.run(sent()))) + "\n")
