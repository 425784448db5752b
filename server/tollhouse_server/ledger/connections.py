"""How the ledger connects: raw asyncpg, no plan that scans."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg

from tollhouse_server.database.dsn import plain_dsn
from tollhouse_server.database.roles import AS_LEDGER

if TYPE_CHECKING:
    from tollhouse_server.ledger.store import Connection

    Pool = asyncpg.Pool[asyncpg.Record]

GOODBYE_SECONDS = 1.0
"""For how long PostgreSQL is waited for at the end of a process: it may be gone itself."""

_SETTINGS = {
    **AS_LEDGER,
    "application_name": "tollhouse-ledger",
    # Each of the ledger's questions is a handful of keys, to be looked up one by one. With statistics from before
    # thousands of counters were created the planner preferred to read whole tables: 150 calls/s.
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    # A process that stands still between two statements must not keep others from the counters that it has locked.
    "idle_in_transaction_session_timeout": "5s",
}


async def connect(dsn: str, *, command_timeout_seconds: float = 10.0) -> "Connection":
    """Open the tick's connection.

    Raises:
        OSError, TimeoutError, asyncpg.PostgresError: the server cannot be reached or refuses.
    """
    # The server gives up before the client does, and says so: what nobody waits for must not be carried out later.
    statement_timeout = {"statement_timeout": f"{int(command_timeout_seconds * 800)}ms"}
    return await asyncpg.connect(
        plain_dsn(dsn),
        timeout=5,
        command_timeout=command_timeout_seconds,
        server_settings=_SETTINGS | statement_timeout,
    )


@asynccontextmanager
async def as_login(connection: "Connection") -> AsyncIterator[None]:
    """Be the role that has logged in, in a transaction: only that may see when its own sessions began, and end them."""
    async with connection.transaction():
        await connection.execute("SET LOCAL ROLE NONE")
        yield


async def create_pool(dsn: str) -> "Pool":
    """Open the small pool for heartbeats, sweeps and chores; one of its connections may be a leader's for good."""
    return await asyncpg.create_pool(
        plain_dsn(dsn), min_size=1, max_size=4, timeout=5, command_timeout=10, server_settings=_SETTINGS
    )


async def close_pool(pool: "Pool") -> None:
    """Close every connection in good order, or at once where PostgreSQL does not answer."""
    try:
        async with asyncio.timeout(GOODBYE_SECONDS):
            await pool.close()
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        pool.terminate()


def hurry(pool: "Pool") -> None:
    """Cut off, in a moment, whoever still waits for PostgreSQL: not even a cancelled query ends before it answers."""
    asyncio.get_running_loop().call_later(GOODBYE_SECONDS, pool.terminate)
