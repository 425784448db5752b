"""The ledger worked out a second time, in SQL: each check returns what does not add up, for one tenant.

Everything runs on one snapshot. Sums are numeric, so exact; PostgreSQL adds up and only findings come back, so that
memory is bounded on both sides whatever the number of records.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.rows import SNAPSHOT, run_sql
from tollhouse_server.ledger import verification_checks as checks
from tollhouse_server.ledger.verification_checks import IN_REACH

if TYPE_CHECKING:
    from tollhouse_server.ledger.connections import Pool
    from tollhouse_server.ledger.store import Connection

# Any constant that no other advisory lock of Tollhouse uses: spells "veri".
_LEADER_LOCK = 0x76657269


class Check(StrEnum):
    """One of the ways in which the ledger must add up, in the order in which they are made."""

    PARTITIONS = "PARTITIONS"
    ATTEMPTS = "ATTEMPTS"
    RECORDS = "RECORDS"
    SUSPENSE = "SUSPENSE"
    HOLDS = "HOLDS"
    COUNTERS = "COUNTERS"
    ROLLUPS = "ROLLUPS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What is verified: what a tenant sent from `since` until `until`, and counters whose windows began then.

    Records from before `kept_since` may have been dropped after an export.
    """

    tenant: str
    since: datetime
    until: datetime
    kept_since: datetime

    def parameters(self) -> dict[str, Any]:
        """Return it as the checks take it."""
        return {"tenant": self.tenant, "since": self.since, "until": self.until, "kept_since": self.kept_since}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One place in which the ledger does not add up: a table, a row of it, a column, what should and what does stand.

    `field` is `row` where there are too few or too many of them.
    """

    tenant: str
    check: Check
    table: str
    key: str
    field: str
    expected: str
    found: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How much there is of a tenant to verify."""

    records: int = 0
    unnamed_records: int = 0
    counters: int = 0
    suspense: int = 0
    attempts: int = 0
    rollup_days: int = 0


_SETTINGS = (
    SNAPSHOT,
    # A partition that is dropped after an export is gone from every snapshot at once: not before this one ends.
    "LOCK TABLE usage_record IN ACCESS SHARE MODE",
    # Beyond it PostgreSQL sorts and groups on disk: bounded memory, whatever there is.
    "SET LOCAL work_mem = '64MB'",
    # Compiling costs more than it gives to queries of seconds.
    "SET LOCAL jit = off",
)

# A tenant without a row of its own could not be verified by name, and must not go unseen. The records' tenants are
# found by leaping from one to the next in the index.
_TENANTS = """
WITH RECURSIVE recorded AS (
    (SELECT tenant_id FROM usage_record ORDER BY tenant_id LIMIT 1)
    UNION ALL
    SELECT (SELECT r.tenant_id FROM usage_record r WHERE r.tenant_id > recorded.tenant_id ORDER BY r.tenant_id LIMIT 1)
    FROM recorded WHERE recorded.tenant_id IS NOT NULL
),
known AS (
    SELECT tenant_id FROM tenant
    UNION SELECT tenant_id FROM recorded WHERE tenant_id IS NOT NULL
    UNION SELECT tenant_id FROM counter
    UNION SELECT tenant_id FROM suspense
    UNION SELECT tenant_id FROM attempt
)
SELECT known.tenant_id, coalesce(t.time_zone, 'UTC') AS time_zone
FROM known LEFT JOIN tenant t USING (tenant_id) ORDER BY known.tenant_id
"""

_CLOCK = """
SELECT clock_timestamp() AS now, coalesce(
    (SELECT (max(month) + interval '1 month') AT TIME ZONE 'UTC' FROM usage_export WHERE state = 'DROPPED'),
    timestamptz '0001-01-02'
) AS kept_since
"""

_EXTENT = f"""
SELECT count(*) AS records,
    count(*) FILTER (WHERE r.holds::text = '[]' AND r.kind <> 'REFUSED') AS unnamed_records,
    (SELECT count(*) FROM counter
     WHERE tenant_id = :tenant AND window_start >= :since AND window_start < :until) AS counters,
    (SELECT count(*) FROM suspense WHERE tenant_id = :tenant AND suspended_at >= :since) AS suspense,
    (SELECT count(*) FROM attempt WHERE tenant_id = :tenant) AS attempts,
    (SELECT count(*) FROM usage_rollup_day
     WHERE tenant_id = :tenant AND day_start >= :since AND day_start < :until) AS rollup_days
FROM usage_record r WHERE {IN_REACH}
"""  # noqa: S608 - constants of this file


_QUERIES: Mapping[Check, str] = MappingProxyType(
    {
        Check.PARTITIONS: checks.PARTITIONS,
        Check.ATTEMPTS: checks.ATTEMPTS,
        Check.RECORDS: checks.RECORDS,
        Check.SUSPENSE: checks.SUSPENSE,
        Check.HOLDS: checks.HOLDS,
    }
)

_COLUMNS = "(place, key, field, expected, found)"

# Counters that cannot be worked out any more are counted, not listed.
_COUNTERS = f"""
SELECT *, count(*) FILTER (WHERE NOT is_checkable) OVER () AS unchecked
FROM ({checks.COUNTERS}) AS differing (place, key, field, expected, found, is_checkable)
ORDER BY is_checkable DESC, key LIMIT :most
"""  # noqa: S608 - constants of this room


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The state of the ledger that is verified: its moment, what of it is kept, and (tenant, time zone) of all."""

    now: datetime
    kept_since: datetime
    tenants: tuple[tuple[str, str], ...]


async def begin_snapshot(session: AsyncSession) -> Snapshot:
    """Make all that follows in the transaction see one state of the ledger; must be its first statement."""
    for setting in _SETTINGS:
        await run_sql(session, setting)
    clock = (await run_sql(session, _CLOCK)).one()
    tenants = [(row.tenant_id, row.time_zone) for row in await run_sql(session, _TENANTS)]
    return Snapshot(now=clock.now, kept_since=clock.kept_since, tenants=tuple(tenants))


async def extent(session: AsyncSession, reach: Reach) -> Extent:
    """Return how much there is to verify."""
    return Extent(**(await run_sql(session, _EXTENT, reach.parameters())).one()._mapping)


async def findings(session: AsyncSession, check: Check, reach: Reach, *, most: int) -> list[Finding]:
    """Return up to `most` places that fail a check, which must not be COUNTERS or ROLLUPS."""
    query = f"SELECT * FROM ({_QUERIES[check]}) AS failing {_COLUMNS} LIMIT :most"  # noqa: S608 - constants of this room
    rows = await run_sql(session, query, reach.parameters() | {"most": most})
    return [_finding(row, check, reach) for row in rows]


async def counter_findings(session: AsyncSession, reach: Reach, *, most: int) -> tuple[list[Finding], int]:
    """Return up to `most` counters that are not the sum of their records, and how many cannot be worked out."""
    rows = (await run_sql(session, _COUNTERS, reach.parameters() | {"most": most})).all()
    found = [_finding(row, Check.COUNTERS, reach) for row in rows if row.is_checkable]
    return found, rows[0].unchecked if rows else 0


@asynccontextmanager
async def leadership(pool: "Pool") -> AsyncIterator["Connection | None"]:
    """Yield the connection that makes this process the one that verifies every night, None while another one is."""
    async with pool.acquire() as connection:
        if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LEADER_LOCK):
            yield None
            return
        try:
            yield connection
        finally:
            # The lock ends with its connection, also where PostgreSQL would not answer to an unlock any more.
            connection.terminate()


async def confirm_leadership(leader: "Connection") -> None:
    """Return while the leader's connection, and so its lock, is there.

    Raises:
        OSError, asyncpg.PostgresError, asyncpg.InterfaceError: it is gone.
    """
    await leader.execute("SELECT")


def _finding(row: Row[Any], check: Check, reach: Reach) -> Finding:
    return Finding(
        tenant=reach.tenant,
        check=check,
        table=row.place,
        key=row.key,
        field=row.field,
        expected=str(row.expected),
        found=str(row.found),
    )
