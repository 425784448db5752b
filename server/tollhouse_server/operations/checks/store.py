"""The SQL of checks. Every function works in its caller's transaction and changes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.row_security import TABLES_OF_TENANTS
from tollhouse_server.database.rows import run_sql

_CONNECTIONS: Final = """
SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int AS most,
    (SELECT sum(numbackends) FROM pg_stat_database)::int AS used
"""

# Of the role that all processes log in with, not of that which they take: PostgreSQL tells of one's own sessions alone.
_AS_LOGIN: Final = "SET LOCAL ROLE NONE"
_LONGEST: Final = """
SELECT pid, application_name, extract(epoch FROM clock_timestamp() - xact_start)::float8 AS seconds
FROM pg_stat_activity
WHERE xact_start IS NOT NULL AND backend_type = 'client backend' AND pid <> pg_backend_pid()
ORDER BY xact_start LIMIT 1
"""

_SLOTS: Final = """
SELECT slot_name, active, pg_wal_lsn_diff(
    CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END, restart_lsn
)::bigint AS lag_bytes
FROM pg_replication_slots ORDER BY slot_name
"""

_ROLE: Final = """
SELECT current_user AS name, session_user AS login,
    r.rolsuper OR r.rolbypassrls OR l.rolsuper OR l.rolbypassrls AS is_above
FROM pg_roles r, pg_roles l WHERE r.rolname = current_user AND l.rolname = session_user
"""

_AHEAD: Final = """
SELECT name FROM (
    SELECT 'usage_record_' || to_char((now() AT TIME ZONE 'UTC') + make_interval(months => ahead), 'YYYY_MM')
    FROM generate_series(0, 1) AS ahead
    UNION ALL
    SELECT 'request_key_' || to_char((now() AT TIME ZONE 'UTC')::date + ahead, 'YYYY_MM_DD')
    FROM generate_series(0, 1) AS ahead
) AS wanted (name) WHERE to_regclass(name) IS NULL ORDER BY name
"""

_DELIVERIES: Final = """
SELECT count(*) FILTER (WHERE state = 'FAILED') AS failed,
    count(*) FILTER (WHERE state = 'PENDING' AND attempts > 0) AS retried,
    min(tenant_id) FILTER (WHERE state = 'FAILED') AS tenant_id
FROM delivery
"""

_LAST_SUCCESS: Final = "SELECT max(hour) AS hour FROM key_use WHERE account_id = :account_id AND calls > 0"

# Null where there is no such table.
_MAY_READ_REVISION: Final = (
    "SELECT has_table_privilege(current_user, to_regclass('alembic_version')::oid, 'SELECT') AS may"
)

_WRITES: Final = """
SELECT pg_is_in_recovery() AS is_replica, current_setting('default_transaction_read_only')::boolean AS is_read_only
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """As whom the server works in the database; `is_above` when row security does not bind that role."""

    name: str
    login: str
    is_above: bool


async def version_of(session: AsyncSession) -> str:
    """Return PostgreSQL's version."""
    return str((await run_sql(session, "SHOW server_version")).scalar_one())


async def now(session: AsyncSession) -> datetime:
    """Return the database's time."""
    moment: datetime = (await run_sql(session, "SELECT clock_timestamp()")).scalar_one()
    return moment


async def connections(session: AsyncSession) -> tuple[int, int]:
    """Return how many connections are used, and how many there may be."""
    row = (await run_sql(session, _CONNECTIONS)).one()
    return row.used, row.most


async def longest_transaction(session: AsyncSession) -> Row[Any] | None:
    """Return pid, application and age of the oldest transaction of any server; the session's role stays changed."""
    await run_sql(session, _AS_LOGIN)
    return (await run_sql(session, _LONGEST)).first()


async def replication_slots(session: AsyncSession) -> Sequence[Row[Any]]:
    """Return name, state and lag in bytes of every replication slot."""
    return (await run_sql(session, _SLOTS)).all()


async def role(session: AsyncSession) -> Session:
    """Return as whom we work."""
    row = (await run_sql(session, _ROLE)).one()
    return Session(name=row.name, login=row.login, is_above=row.is_above)


async def unforced_tables(session: AsyncSession) -> list[str]:
    """Return tables of tenants whose rows every tenant sees."""
    return [row.name for row in await run_sql(session, TABLES_OF_TENANTS) if not (row.is_forced and row.policies)]


async def missing_partitions(session: AsyncSession) -> list[str]:
    """Return partitions of this and the next month, and of today and tomorrow, that there are not."""
    return [row.name for row in await run_sql(session, _AHEAD)]


async def revisions(session: AsyncSession) -> list[str] | None:
    """Return which migration the schema is at: none before the first, None where we may not know."""
    may = (await run_sql(session, _MAY_READ_REVISION)).scalar_one()
    if may is None:
        return []
    if not may:
        return None
    return [row.version_num for row in await run_sql(session, "SELECT version_num FROM alembic_version")]


async def writes(session: AsyncSession) -> Row[Any]:
    """Return whether this is a replica, and whether it is set to take no writes."""
    return (await run_sql(session, _WRITES)).one()


async def delivery_counts(session: AsyncSession) -> Row[Any]:
    """Return how many deliveries have failed and are tried again, and a tenant of the first."""
    return (await run_sql(session, _DELIVERIES)).one()


async def last_success(session: AsyncSession, account_id: str) -> datetime | None:
    """Return the last hour in which an account served a call."""
    hour: datetime | None = (await run_sql(session, _LAST_SUCCESS, {"account_id": account_id})).scalar_one()
    return hour
