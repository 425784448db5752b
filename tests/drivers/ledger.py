"""A real ledger on a real database: the tick, the epoch and the sweeper of one process."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import asyncpg
from tollhouse_server.ledger import connections
from tollhouse_server.ledger.ledger import Ledger, new_attempt_id
from tollhouse_server.ledger.terms import Amounts, CallTerms, RecordKind, Scope, Settlement
from tollhouse_server.ledger.tick import LANES, Tick
from tollhouse_server.ledger.workers import Liveness, Sweeper, WorkerEpoch

SCOPE = Scope(
    tenant_id="acme",
    department_path=("research", "vision"),
    project_id="labels",
    credential_id="k1",
    credential_name="tenants/acme/departments/vision/projects/labels/apiKeys/k1",
    principal_id="robot",
)


@dataclass(slots=True)
class CountingObserver:
    """Counts ticks, and the works of each."""

    works: list[int] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def finished(self) -> int:
        """Return how many ticks were committed."""
        return len(self.works)

    def tick_finished(self, *, seconds: float, works: int) -> None:
        """Count one commit."""
        assert seconds >= 0
        assert works > 0
        self.works.append(works)

    def tick_failed(self, *, cause: str) -> None:
        """Note one failure."""
        self.failures.append(cause)


@dataclass(slots=True)
class LedgerProcess:
    """What one server process has of the ledger."""

    ledger: Ledger
    tick: Tick
    epoch: WorkerEpoch
    sweeper: Sweeper
    observer: CountingObserver


@asynccontextmanager
async def ledger_process(dsn: str, *, lanes: int = LANES, looks_first: bool = False) -> AsyncIterator[LedgerProcess]:
    """Run the ledger of one process; leaving the block ends it as abruptly as kill -9 ends a process.

    With `looks_first` each of its ticks looks before it writes, as if a plan had just failed.
    """
    pool = await connections.create_pool(dsn)
    epoch = WorkerEpoch(pool, Liveness())
    await epoch.register()
    observer = CountingObserver()
    tick = Tick(partial(connections.connect, dsn), lambda: epoch.current, observer, lanes=lanes)
    if looks_first:
        tick.memory.backoff.ticks_to_look = 10**9
    running = asyncio.create_task(tick.run())
    try:
        yield LedgerProcess(Ledger(tick), tick, epoch, Sweeper(pool, tick, Liveness()), observer)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await pool.close()


def terms(*, cost_nanos: int = 100, first: bool = True, request_id: UUID | None = None, **changes: Any) -> CallTerms:
    """Build the terms of a call of 10 input and 20 output tokens that may cost `cost_nanos`."""
    ceiling = Amounts(requests=1, input_tokens=10, output_tokens=20, cost_nanos=cost_nanos)
    values: dict[str, Any] = {
        "attempt_id": new_attempt_id(),
        "request_id": request_id or uuid4(),
        "fingerprint": b"same",
        "first": first,
        "scope": SCOPE,
        "method": "generateContent",
        "tier": "flash",
        "model": "gemini-3.5-flash",
        "account_id": "main",
        "labels": {"team": "a"},
        "price_version": 1,
        "ceiling": ceiling,
    }
    return CallTerms(**(values | changes))


def settled(cost_nanos: int = 100) -> Settlement:
    """Build the settlement of a call that really cost `cost_nanos`, in one priced line."""
    actual = Amounts(requests=1, input_tokens=9, output_tokens=11, cost_nanos=cost_nanos)
    line = {"sku": "output_text", "quantity": 11, "unit": "TOKEN", "nanos_per_million": 0, "cost_nanos": cost_nanos}
    return Settlement(kind=RecordKind.SETTLED, actual=actual, outcome="SERVED", lines=json.dumps([line]))


@dataclass(slots=True)
class LedgerView:
    """Reads and prepares the ledger's tables past the code under test."""

    connection: "asyncpg.Connection[asyncpg.Record]"

    async def add_tenant(self, tenant_id: str = "acme") -> None:
        """Insert a tenant in UTC."""
        await self.connection.execute("INSERT INTO tenant (tenant_id, time_zone) VALUES ($1, 'UTC')", tenant_id)

    async def add_limit(
        self,
        name: str,
        scope: str,
        metric: str,
        window: str,
        amount: int,
        selector: str = "",
        *,
        mode: str = "STRICT",
        overshoot: int = 0,
        thresholds: Sequence[int] = (),
    ) -> int:
        """Insert a limit on a scope of tenant acme and announce it; return its id."""
        limit_id: int = await self.connection.fetchval(
            'INSERT INTO usage_limit (tenant_id, name, scope, metric, "window", amount, selector, mode, overshoot, '
            "thresholds) VALUES ('acme', $1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING limit_id",
            *(name, scope, metric, window, amount, selector, mode, overshoot, list(thresholds)),
        )
        await self.announce()
        return limit_id

    async def announce(self) -> None:
        """Say that limits have changed."""
        await self.connection.execute("UPDATE epoch SET value = value + 1 WHERE topic = 'limits'")

    async def alerts(self) -> list[tuple[str, int]]:
        """Return (kind, threshold) of every alert, in the order in which they were raised."""
        rows = await self.connection.fetch("SELECT kind, threshold FROM limit_alert ORDER BY alert_id")
        return [(row["kind"], row["threshold"]) for row in rows]

    async def counter(self, limit_id: int) -> tuple[int, int]:
        """Return (held, settled) of a limit over all its windows."""
        row = await self.connection.fetchrow(
            "SELECT coalesce(sum(held), 0)::bigint AS held, coalesce(sum(settled), 0)::bigint AS settled "
            "FROM counter WHERE limit_id = $1",
            limit_id,
        )
        assert row is not None
        return row["held"], row["settled"]

    async def records(self) -> list[tuple[str, int]]:
        """Return (kind, cost_nanos) of every usage record, by time."""
        rows = await self.connection.fetch("SELECT kind, cost_nanos FROM usage_record ORDER BY settled_at")
        return [(row["kind"], row["cost_nanos"]) for row in rows]

    async def count(self, table: str) -> int:
        """Return how many rows a table has."""
        return int(await self.connection.fetchval(f"SELECT count(*) FROM {table}"))  # noqa: S608 - a test's constant


@asynccontextmanager
async def ledger_view(dsn: str) -> AsyncIterator[LedgerView]:
    """Open a view of the database."""
    connection = await asyncpg.connect(dsn)
    try:
        yield LedgerView(connection)
    finally:
        await connection.close()
