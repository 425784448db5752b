"""The SQL around the tick: worker epochs, what the dead left behind, and chores. The tick's own is in `store.py`."""

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from tollhouse_server.ledger.rows import reservation_of
from tollhouse_server.ledger.terms import Reservation, Window

if TYPE_CHECKING:
    from tollhouse_server.ledger.connections import Pool
    from tollhouse_server.ledger.store import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptCounters:
    """For how long behind their end the counters of some windows are kept, and how long such a window is at most."""

    windows: tuple[Window, ...]
    length: timedelta
    kept_for: timedelta


# Any constant that no other advisory lock of Tollhouse uses: spells "swep".
_SWEEPER_LOCK = 0x73776570

_BEAT = "UPDATE worker SET heartbeat_at = now() WHERE epoch = $1 AND state = 'ALIVE' RETURNING true"

_DECLARE_DEAD = """
UPDATE worker SET state = 'DEAD' WHERE state = 'ALIVE' AND heartbeat_at < now() - make_interval(secs => $1)
"""

_ORPHANS = """
SELECT a.* FROM attempt a JOIN worker w ON w.epoch = a.worker_epoch WHERE w.state = 'DEAD' LIMIT $1
"""

_PARTITIONS = """
SELECT create_usage_partition((now() + make_interval(months => ahead))::date) FROM generate_series(0, 2) AS ahead
"""

# Keys of a day are remembered through the day after, so for at least 24 hours.
_REQUEST_PARTITIONS = """
SELECT create_request_partition((now() AT TIME ZONE 'UTC')::date + ahead) FROM generate_series(0, 2) AS ahead
"""
_OLD_REQUESTS = "SELECT drop_request_partitions((now() AT TIME ZONE 'UTC')::date - 1)"
# Rows of these months and days stand in the default partition already, so no other could be made for them.
_MISSING_PARTITIONS = """
SELECT name FROM (
    SELECT 'usage_record_' || to_char((now() AT TIME ZONE 'UTC') + make_interval(months => ahead), 'YYYY_MM')
    FROM generate_series(0, 2) AS ahead
    UNION ALL
    SELECT 'request_key_' || to_char((now() AT TIME ZONE 'UTC')::date + ahead, 'YYYY_MM_DD')
    FROM generate_series(0, 2) AS ahead
) AS wanted (name) WHERE to_regclass(name) IS NULL ORDER BY name
"""

# What was claimed while a day had no partition of its own.
_STRAY_REQUESTS = "DELETE FROM request_key WHERE day < (now() AT TIME ZONE 'UTC')::date - 1"

# Counters of windows that ended some time ago and that nothing is held on. An attempt in flight may name a counter on
# which it holds 0, and its window began no later than the attempt: so nothing as young as the oldest attempt goes.
# Rows that a tick has locked are for the next round. `$4` is where the last batch ended.
_OLD_COUNTERS = """
DELETE FROM counter c USING (
    SELECT o.tenant_id, o.limit_id, o.window_start FROM counter o
    JOIN usage_limit l ON l.tenant_id = o.tenant_id AND l.limit_id = o.limit_id AND l."window" = ANY($1)
    WHERE o.window_start >= $4 AND o.held = 0 AND o.expected = 0
        AND o.window_start < least(now() - $3::interval, (SELECT min(a.dispatched_at) FROM attempt a)) - $2::interval
    ORDER BY o.window_start LIMIT $5 FOR UPDATE OF o SKIP LOCKED
) old
WHERE c.tenant_id = old.tenant_id AND c.limit_id = old.limit_id AND c.window_start = old.window_start
RETURNING c.window_start
"""

_OLD_ALERTS = """
DELETE FROM limit_alert a USING (
    SELECT o.tenant_id, o.alert_id FROM tenant t CROSS JOIN LATERAL (
        SELECT i.tenant_id, i.alert_id FROM limit_alert i
        WHERE i.tenant_id = t.tenant_id AND i.raised_at < now() - interval '13 months' ORDER BY i.raised_at LIMIT $1
    ) o LIMIT $1
) old
WHERE a.tenant_id = old.tenant_id AND a.alert_id = old.alert_id
"""

_DEAD_WORKERS = """
DELETE FROM worker w WHERE w.state = 'DEAD' AND w.heartbeat_at < now() - interval '24 hours'
    AND NOT EXISTS (SELECT FROM attempt a WHERE a.worker_epoch = w.epoch)
"""

_OPEN = "SELECT (SELECT count(*) FROM attempt), (SELECT count(*) FROM suspense WHERE resolved_at IS NULL)"


async def register_worker(pool: "Pool") -> int:
    """Insert this process as a living worker and return its new epoch."""
    epoch: int = await pool.fetchval(
        "INSERT INTO worker (host, pid) VALUES ($1, $2) RETURNING epoch", socket.gethostname(), os.getpid()
    )
    return epoch


async def beat(pool: "Pool", epoch: int) -> bool:
    """Write a heartbeat; False when the worker was declared dead meanwhile."""
    return bool(await pool.fetchval(_BEAT, epoch))


async def retire_worker(pool: "Pool", epoch: int) -> None:
    """Declare a worker dead that has nothing in flight."""
    await pool.execute("UPDATE worker SET state = 'DEAD' WHERE epoch = $1", epoch)


@asynccontextmanager
async def sweeping(pool: "Pool") -> AsyncIterator["Connection | None"]:
    """Yield a connection to sweep with, or None while another process sweeps."""
    async with pool.acquire() as connection:
        if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _SWEEPER_LOCK):
            yield None
            return
        try:
            yield connection
            await connection.execute("SELECT pg_advisory_unlock($1)", _SWEEPER_LOCK)
        except BaseException:
            # The lock ends with its connection, whatever state that is in.
            connection.terminate()
            raise


async def declare_dead(connection: "Connection", silent_seconds: float) -> None:
    """Declare every worker dead that has not been heard of for `silent_seconds`."""
    await connection.execute(_DECLARE_DEAD, silent_seconds)


async def orphans(connection: "Connection", *, at_most: int) -> list[Reservation]:
    """Return attempts of dead workers, as the reservations they were."""
    return [reservation_of(row) for row in await connection.fetch(_ORPHANS, at_most)]


async def create_usage_partitions(pool: "Pool") -> None:
    """Make the partitions of usage records for this month and the next two."""
    async with _impatient(pool) as connection:
        await connection.execute(_PARTITIONS)


async def create_request_partitions(pool: "Pool") -> None:
    """Make the partitions of request ids for today and the next two days."""
    async with _impatient(pool) as connection:
        await connection.execute(_REQUEST_PARTITIONS)


async def missing_partitions(pool: "Pool") -> list[str]:
    """Return which of these partitions could not be made: their rows stand in the default partition."""
    return [row["name"] for row in await pool.fetch(_MISSING_PARTITIONS)]


async def forget_old_requests(pool: "Pool") -> int:
    """Drop request ids that are free again, a day at once; return how many days went."""
    async with _impatient(pool) as connection:
        days: int = await connection.fetchval(_OLD_REQUESTS)
        await connection.execute(_STRAY_REQUESTS)
    return days


@asynccontextmanager
async def _impatient(pool: "Pool") -> AsyncIterator["Connection"]:
    """Yield a connection in a transaction that waits for no lock: ticks queue behind whoever waits for a table alone.

    Raises:
        asyncpg.LockNotAvailableError: somebody has held the table for half a second.
    """
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL lock_timeout = '500ms'")
        yield connection


async def forget_counters(pool: "Pool", kept: KeptCounters, since: datetime, *, at_most: int) -> list[datetime]:
    """Delete some counters of past windows that began at `since` or later, the oldest first; return their starts."""
    windows = [window.value for window in kept.windows]
    rows = await pool.fetch(_OLD_COUNTERS, windows, kept.length, kept.kept_for, since, at_most)
    return sorted(row["window_start"] for row in rows)


async def forget_alerts(pool: "Pool", *, at_most: int) -> int:
    """Delete some alerts that are older than 13 months; return how many."""
    done: str = await pool.execute(_OLD_ALERTS, at_most)
    return int(done.rpartition(" ")[2])


async def forget_dead_workers(pool: "Pool") -> None:
    """Drop workers that died more than a day ago and left nothing in flight."""
    await pool.execute(_DEAD_WORKERS)


async def count_open(pool: "Pool") -> tuple[int, int]:
    """Return how many attempts are in flight and how many wait in suspense."""
    in_flight, suspense = await pool.fetchrow(_OPEN) or (0, 0)
    return in_flight, suspense
