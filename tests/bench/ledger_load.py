"""A process that does nothing but reserve and settle, set up as a worker is: `python -m tests.bench.ledger_load`.

Reads a Plan as JSON from standard input, says `ready` when it has made its first calls, begins at a line on standard
input, and writes a Measured as JSON. The DSN is in LEDGER_LOAD_DSN: it holds a password.
"""

import asyncio
import json
import os
import random
import sys
import time
from dataclasses import asdict, dataclass
from uuid import UUID, uuid4

import uvloop
from tollhouse_server.garbage_collection import tune_garbage_collection
from tollhouse_server.ledger.ledger import new_attempt_id
from tollhouse_server.ledger.terms import CallTerms, Scope

from tests.drivers.ledger import LedgerProcess, ledger_process, settled, terms

SETTLEMENT = settled(60)
SHAPE = terms()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do: so many calls from so many callers, spread over departments."""

    departments: int
    callers: int
    calls: int
    lanes: int
    seed: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What it took."""

    calls: int
    seconds: float
    cpu_seconds: float
    works_per_tick: float
    reserve_p50_ms: float
    reserve_p99_ms: float


def scope_of(number: int) -> Scope:
    """Return where calls of a department are booked."""
    name = f"tenants/acme/departments/d{number}/projects/p{number}"
    return Scope(
        tenant_id="acme",
        department_path=(f"d{number}",),
        project_id=f"p{number}",
        credential_id=f"k{number}",
        credential_name=f"{name}/apiKeys/k{number}",
        principal_id="robot",
    )


class Load:
    """The callers of one plan."""

    def __init__(self, process: LedgerProcess, plan: Plan) -> None:
        self._process = process
        self._plan = plan
        self._scopes = [scope_of(number) for number in range(plan.departments)]
        self._random = random.Random(plan.seed)
        self._waits: list[float] = []

    async def run(self, calls: int) -> None:
        """Make so many calls."""
        callers = self._plan.callers
        await asyncio.gather(*(self._call(calls // callers) for _ in range(callers)))

    async def visit_every_department(self) -> None:
        """Make the counters of all departments, and have their limits in memory."""
        numbers = iter(range(self._plan.departments))

        async def visit() -> None:
            for number in numbers:
                asked = self._terms(self._scopes[number])
                await self._process.ledger.release(await self._process.ledger.reserve(asked, timeout_seconds=60))

        await asyncio.gather(*(visit() for _ in range(256)))

    async def _call(self, times: int) -> None:
        ledger, waits = self._process.ledger, self._waits
        for _ in range(times):
            asked = self._terms(self._random.choice(self._scopes))
            started_at = time.perf_counter()
            reservation = await ledger.reserve(asked, timeout_seconds=60)
            waits.append(time.perf_counter() - started_at)
            await ledger.settle(reservation, SETTLEMENT)

    def _terms(self, scope: Scope) -> CallTerms:
        request_id: UUID = uuid4()
        return CallTerms(
            attempt_id=new_attempt_id(),
            request_id=request_id,
            fingerprint=SHAPE.fingerprint,
            first=True,
            scope=scope,
            method=SHAPE.method,
            tier=SHAPE.tier,
            model=SHAPE.model,
            account_id=SHAPE.account_id,
            labels=SHAPE.labels,
            price_version=SHAPE.price_version,
            ceiling=SHAPE.ceiling,
        )

    async def measure(self) -> Measured:
        """Make the plan's calls and say what they took."""
        self._waits.clear()
        ticks, cpu, started_at = self._process.observer.finished, time.process_time(), time.perf_counter()
        await self.run(self._plan.calls)
        seconds, cpu_seconds = time.perf_counter() - started_at, time.process_time() - cpu
        waits = sorted(self._waits)
        return Measured(
            calls=len(waits),
            seconds=seconds,
            cpu_seconds=cpu_seconds,
            works_per_tick=2 * len(waits) / (self._process.observer.finished - ticks),
            reserve_p50_ms=waits[len(waits) // 2] * 1e3,
            reserve_p99_ms=waits[len(waits) * 99 // 100] * 1e3,
        )


async def main() -> None:
    """Carry out one plan."""
    plan = Plan(**json.loads(await asyncio.to_thread(sys.stdin.readline)))
    async with ledger_process(os.environ["LEDGER_LOAD_DSN"], lanes=plan.lanes) as process:
        load = Load(process, plan)
        await load.visit_every_department()
        await load.run(min(plan.calls, 20 * plan.callers))
        tune_garbage_collection()
        print("ready", flush=True)  # noqa: T201 - the protocol of this process
        await asyncio.to_thread(sys.stdin.readline)
        print(json.dumps(asdict(await load.measure())), flush=True)  # noqa: T201 - the protocol of this process


if __name__ == "__main__":
    uvloop.run(main())
