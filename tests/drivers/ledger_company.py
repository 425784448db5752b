"""A company in a real ledger of two processes, as the tests against the model need it: do, kill, and look."""

import asyncio
import json
from collections import Counter
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
from tollhouse_server.database.engine import Database
from tollhouse_server.ledger.suspense_store import Resolution, Ruling, get_suspense, resolve
from tollhouse_server.ledger.terms import Amounts, CallTerms, Metric, Mode, RecordKind, Reservation, Settlement
from tollhouse_server.names import SuspenseName

from tests.drivers.ledger import LedgerProcess, ledger_process
from tests.drivers.postgres import TestDatabase

_SECONDS = 20
_ANNOUNCE = "UPDATE epoch SET value = value + 1 WHERE topic = 'limits'"
_ADD_LIMIT = """
INSERT INTO usage_limit (tenant_id, name, scope, metric, "window", mode, selector, amount, overshoot, thresholds)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
"""
# Whoever changes what alerts go by has them worked out again at the next settlement.
_WORK_OUT_ALERTS = """
UPDATE counter c SET alert_at = 0 FROM usage_limit l
WHERE l.tenant_id = $1 AND l.name = $2 AND c.tenant_id = l.tenant_id AND c.limit_id = l.limit_id
"""
_INCREASE = """
INSERT INTO limit_increase (tenant_id, increase_id, limit_id, amount, reason, state, requested_by, decided_by,
    starts_at, expires_at)
SELECT l.tenant_id, wanted.id, l.limit_id, wanted.amount, 'a test', wanted.state, 'one', 'another',
    wanted.starts_at, wanted.expires_at
FROM usage_limit l, (VALUES
    ($3, $4::bigint, 'APPROVED', NULL::timestamptz, now() + interval '1 day'),
    ($3 || '-later', 1000000, 'APPROVED', now() + interval '1 hour', now() + interval '1 day'),
    ($3 || '-expired', 1000000, 'APPROVED', NULL, now() - interval '1 hour'),
    ($3 || '-asked', 1000000, 'REQUESTED', NULL, now() + interval '1 day')
) AS wanted (id, amount, state, starts_at, expires_at)
WHERE l.tenant_id = $1 AND l.name = $2
"""
_COUNTERS = """
SELECT l.name, coalesce(sum(c.held), 0)::bigint AS held, coalesce(sum(c.expected), 0)::bigint AS expected,
    coalesce(sum(c.settled), 0)::bigint AS settled
FROM usage_limit l LEFT JOIN counter c USING (tenant_id, limit_id) WHERE l.tenant_id = $1 GROUP BY l.name
"""
_RECORDS = """
SELECT attempt_id, kind, requests, input_tokens, output_tokens, images, cost_nanos FROM usage_record
WHERE tenant_id = $1
"""
_ALERTS = """
SELECT l.name, a.kind, a.threshold, count(*) AS count FROM limit_alert a JOIN usage_limit l USING (tenant_id, limit_id)
WHERE a.tenant_id = $1 GROUP BY l.name, a.kind, a.threshold
"""
# Counters that are not what the records and the attempts that name them come to.
_UNCONSERVED = """
WITH booked AS (
    SELECT (h.value ->> 0)::bigint AS limit_id, (h.value ->> 1)::timestamptz AS window_start, 0 AS held, 0 AS expected,
        CASE h.value ->> 2 WHEN 'COST' THEN r.cost_nanos WHEN 'REQUESTS' THEN r.requests WHEN 'IMAGES' THEN r.images
            WHEN 'INPUT_TOKENS' THEN r.input_tokens WHEN 'OUTPUT_TOKENS' THEN r.output_tokens ELSE 0 END AS settled
    FROM usage_record r CROSS JOIN json_array_elements(r.holds) AS h WHERE r.tenant_id = $1
    UNION ALL
    SELECT (h.value ->> 0)::bigint, (h.value ->> 1)::timestamptz, (h.value ->> 3)::bigint, (h.value ->> 4)::bigint, 0
    FROM attempt a CROSS JOIN json_array_elements(a.holds) AS h WHERE a.tenant_id = $1
),
named AS (
    SELECT limit_id, window_start, sum(held) AS held, sum(expected) AS expected, sum(settled) AS settled FROM booked
    GROUP BY limit_id, window_start
)
SELECT limit_id, c.held, n.held, c.expected, n.expected, c.settled, n.settled
FROM (SELECT * FROM counter WHERE tenant_id = $1) AS c FULL JOIN named n USING (limit_id, window_start)
WHERE (coalesce(c.held, 0), coalesce(c.expected, 0), coalesce(c.settled, 0))
    <> (coalesce(n.held, 0), coalesce(n.expected, 0), coalesce(n.settled, 0))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitWish:
    """A limit to be made; `scope` is what follows the tenant's name."""

    scope: str
    metric: Metric
    window: str
    mode: Mode
    selector: str
    amount: int
    overshoot: int
    thresholds: tuple[int, ...]


@dataclass(slots=True)
class Company:
    """One tenant, two processes that serve it, and a look at the tables past both."""

    tenant: str
    dsn: str
    connection: "asyncpg.Connection[asyncpg.Record]"
    database: Database
    processes: list[tuple[LedgerProcess, AsyncExitStack]] = field(default_factory=list)
    epoch_of: dict[UUID, int] = field(default_factory=dict)
    """Attempt -> epoch of the process that admitted it."""

    _limits: int = 0
    _increases: int = 0

    @classmethod
    async def open(cls, database: TestDatabase) -> "Company":
        """Make a company of its own and start its processes."""
        connection = await asyncpg.connect(database.root_dsn)
        company = cls(f"t{uuid4().hex[:12]}", database.app_dsn, connection, Database(database.app_dsn))
        await connection.execute(
            "INSERT INTO tenant (tenant_id, time_zone, fiscal_month_start_day) VALUES ($1, $2, 26)",
            company.tenant,
            zone_where_it_is_noon(datetime.now(UTC)),
        )
        company.processes = [await company._start(), await company._start()]
        return company

    async def close(self) -> None:
        """End the processes, however many attempts they have in flight."""
        for _, exits in self.processes:
            await exits.aclose()
        await self.database.close()
        await self.connection.close()

    async def _start(self) -> tuple[LedgerProcess, AsyncExitStack]:
        exits = AsyncExitStack()
        return await exits.enter_async_context(ledger_process(self.dsn)), exits

    # --- what processes do ------------------------------------------------------------------------------------------

    def epoch(self, process: int) -> int:
        """Return the epoch of a process."""
        return self.processes[process][0].epoch.current

    async def all(self, works: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
        """Do things at once; errors are among the answers."""
        return await asyncio.gather(*works, return_exceptions=True)

    async def reserve(self, terms: CallTerms, process: int) -> Reservation:
        """Ask for an admission."""
        reservation = await self.processes[process][0].ledger.reserve(terms, timeout_seconds=_SECONDS)
        self.epoch_of[terms.attempt_id] = self.epoch(process)
        return reservation

    async def top_up(self, reservation: Reservation, more: Amounts, process: int) -> Reservation:
        """Ask for more for an attempt in flight."""
        return await self.processes[process][0].ledger.top_up(reservation, more, timeout_seconds=_SECONDS)

    async def settle(self, reservation: Reservation, kind: RecordKind, actual: Amounts, process: int) -> None:
        """End an attempt."""
        # A record says what its cost is made of.
        lines = json.dumps([{"sku": "output_text", "cost_nanos": actual.cost_nanos}])
        settlement = Settlement(kind=kind, actual=actual, outcome=f"TEST_{kind}", lines=lines)
        await self.processes[process][0].ledger.settle(reservation, settlement)

    async def kill(self, process: int, *, is_missed: bool = True) -> None:
        """End a process abruptly and start another in its place; `is_missed`: it has been silent for long, too."""
        running, exits = self.processes[process]
        await exits.aclose()
        if is_missed:
            await self.connection.execute(
                "UPDATE worker SET heartbeat_at = now() - interval '1 hour' WHERE epoch = $1", running.epoch.current
            )
        self.processes[process] = await self._start()

    async def sweep(self, process: int) -> None:
        """Look for the dead. Nobody else is: hearts do not beat in these tests, so we see to it."""
        silent = "UPDATE worker SET heartbeat_at = now() WHERE heartbeat_at > now() - interval '50 minutes'"
        await self.connection.execute(silent)
        await self.processes[process][0].sweeper.sweep()

    # --- what administrators do -------------------------------------------------------------------------------------

    async def add_limit(self, wish: LimitWish) -> str:
        """Make a limit and return its name."""
        self._limits += 1
        name = f"limit-{self._limits}"
        scope = f"tenants/{self.tenant}{wish.scope}"
        kind = (wish.metric, wish.window, wish.mode, wish.selector)
        bounds = (wish.amount, wish.overshoot, list(wish.thresholds))
        await self.connection.execute(_ADD_LIMIT, self.tenant, name, scope, *kind, *bounds)
        await self.connection.execute(_ANNOUNCE)
        return name

    async def change_amount(self, name: str, amount: int) -> None:
        """Set a limit's own amount."""
        change = "UPDATE usage_limit SET amount = $3 WHERE tenant_id = $1 AND name = $2"
        await self._change(name, change, amount)

    async def delete_limit(self, name: str) -> None:
        """Stop enforcing a limit."""
        await self._change(name, "UPDATE usage_limit SET state = 'DELETED' WHERE tenant_id = $1 AND name = $2")

    async def increase(self, name: str, amount: int) -> None:
        """Approve an increase that counts now, beside three large ones that do not: later, expired, only asked for."""
        self._increases += 1
        await self._change(name, _INCREASE, f"more-{self._increases}", amount)

    async def resolve(self, attempt_id: UUID, resolution: Resolution, actual: Amounts | None) -> None:
        """Say what an attempt of unknown outcome came to."""
        ruling = Ruling(resolution=resolution, actual=actual, resolved_by="users/finance", reason="a test")
        async with self.database.transaction() as session:
            entry = await get_suspense(session, SuspenseName(self.tenant, str(attempt_id)))
            await resolve(session, entry, ruling)

    async def _change(self, name: str, statement: str, *arguments: object) -> None:
        async with self.connection.transaction():
            await self.connection.execute(statement, self.tenant, name, *arguments)
            await self.connection.execute(_WORK_OUT_ALERTS, self.tenant, name)
            await self.connection.execute(_ANNOUNCE)

    # --- what is there ----------------------------------------------------------------------------------------------

    async def counters(self) -> dict[str, tuple[int, int, int]]:
        """Return limit -> (held, expected, settled)."""
        rows = await self.connection.fetch(_COUNTERS, self.tenant)
        return {row["name"]: (row["held"], row["expected"], row["settled"]) for row in rows}

    async def attempts(self) -> set[UUID]:
        """Return the attempts in flight."""
        rows = await self.connection.fetch("SELECT attempt_id FROM attempt WHERE tenant_id = $1", self.tenant)
        return {UUID(str(row["attempt_id"])) for row in rows}

    async def records(self) -> Counter[tuple[UUID, RecordKind, Amounts]]:
        """Return (attempt, kind, amounts) of every record."""
        rows = await self.connection.fetch(_RECORDS, self.tenant)
        return Counter((UUID(str(row[0])), RecordKind(row[1]), Amounts(*row[2:])) for row in map(tuple, rows))

    async def open_suspense(self) -> set[UUID]:
        """Return the attempts whose outcome is unknown."""
        query = "SELECT attempt_id FROM suspense WHERE tenant_id = $1 AND resolved_at IS NULL"
        return {UUID(str(row["attempt_id"])) for row in await self.connection.fetch(query, self.tenant)}

    async def alerts(self) -> dict[tuple[str, str, int], int]:
        """Return how often (limit, kind, threshold) was raised."""
        rows = await self.connection.fetch(_ALERTS, self.tenant)
        return {(row["name"], row["kind"], row["threshold"]): row["count"] for row in rows}

    async def unconserved(self) -> list[tuple[Any, ...]]:
        """Return the counters that are not the sum of what names them."""
        return [tuple(row) for row in await self.connection.fetch(_UNCONSERVED, self.tenant)]


def zone_where_it_is_noon(now: datetime) -> str:
    """Return a time zone in which the day has just come to noon: no day ends for hours."""
    east = 12 - now.hour
    # In these names the signs are the other way round.
    return "Etc/GMT" if east == 0 else f"Etc/GMT{-east:+d}"
