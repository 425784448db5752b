"""The SQL around the tick: worker epochs, what the dead left behind, and chores. The tick's own is in `store.py`."""

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tollhouse_server.ledger.rows import reservation_of
from tollhouse_server.ledger.terms import Reservation

if TYPE_CHECKING:
    from tollhouse_server.ledger.connections import Pool
    from tollhouse_server.ledger.store import Connection

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

_OLD_REQUESTS = "DELETE FROM request_key WHERE created_at < now() - interval '24 hours'"

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
        finally:
            await connection.execute("SELECT pg_advisory_unlock($1)", _SWEEPER_LOCK)


async def declare_dead(connection: "Connection", silent_seconds: float) -> None:
    """Declare every worker dead that has not been heard of for `silent_seconds`."""
    await connection.execute(_DECLARE_DEAD, silent_seconds)


async def orphans(connection: "Connection", *, at_most: int) -> list[Reservation]:
    """Return attempts of dead workers, as the reservations they were."""
    return [reservation_of(row) for row in await connection.fetch(_ORPHANS, at_most)]


async def create_partitions(pool: "Pool") -> None:
    """Make the partitions of usage records for this month and the next two, where they are missing."""
    await pool.execute(_PARTITIONS)


async def forget_old_requests(pool: "Pool") -> None:
    """Drop request ids that are free again."""
    await pool.execute(_OLD_REQUESTS)


async def forget_dead_workers(pool: "Pool") -> None:
    """Drop workers that died more than a day ago and left nothing in flight."""
    await pool.execute(_DEAD_WORKERS)


async def count_open(pool: "Pool") -> tuple[int, int]:
    """Return how many attempts are in flight and how many wait in suspense."""
    in_flight, suspense = await pool.fetchrow(_OPEN) or (0, 0)
    return in_flight, suspense
