"""The SQL of how the rest is: suspense, closed months, partitions, connections, reconciliation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.rows import run_sql

_STATE: Final = """
SELECT coalesce(extract(epoch FROM now() - (
        SELECT min(suspended_at) FROM suspense WHERE resolved_at IS NULL
    )), 0)::float8 AS suspense_seconds,
    extract(epoch FROM greatest(first_missing.starts_at - now(), interval '0')) AS partition_seconds,
    (SELECT count(*) FROM billing_period WHERE state = 'CLOSED') AS closed_periods,
    current_setting('max_connections')::integer AS most_connections
FROM (
    SELECT min(month) AT TIME ZONE 'UTC' AS starts_at FROM (
        SELECT date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => ahead) AS month
        FROM generate_series(0, 24) AS ahead
    ) AS months WHERE to_regclass('usage_record_' || to_char(month, 'YYYY_MM')) IS NULL
) AS first_missing
"""

# Only the role that has logged in may connect, so ask for the size, and see what its own sessions do.
_AS_LOGIN: Final = "SET LOCAL ROLE NONE"
_SIZE: Final = "SELECT pg_database_size(current_database()) AS bytes"
_CONNECTIONS: Final = """
SELECT CASE WHEN state IN ('active', 'idle') THEN state
    WHEN state LIKE 'idle in transaction%' THEN 'idle_in_transaction' ELSE 'other' END AS state, count(*) AS sessions
FROM pg_stat_activity WHERE datname = current_database() GROUP BY 1
"""

_RECONCILIATION: Final = """
SELECT extract(epoch FROM now() - r.run_at)::float8 AS age_seconds, v.verdict, v.nanos
FROM (SELECT month, run_at FROM bill_reconciliation ORDER BY run_at DESC LIMIT 1) AS r
LEFT JOIN LATERAL (
    SELECT CASE WHEN is_blocking THEN 'blocking'
        WHEN state = 'ACCEPTED' THEN 'accepted' ELSE 'tolerated' END AS verdict,
        sum(abs(billed_nanos + credits_nanos - booked_nanos)) AS nanos
    FROM bill_variance v WHERE v.month = r.month AND state <> 'GONE' GROUP BY 1
) AS v ON true
"""
VERDICTS: Final = ("blocking", "tolerated", "accepted")
_STATES: Final = ("active", "idle", "idle_in_transaction", "other")


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """How the ledger's upkeep and its database are."""

    suspense_seconds: float
    partition_seconds: float
    closed_periods: int
    size_bytes: int
    most_connections: int
    connections: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """The month that was reconciled last."""

    age_seconds: float
    variance_nanos: Mapping[str, int]


async def read_state(session: AsyncSession) -> State:
    """Return the state of now; the transaction is the login's from then on, and should end."""
    row = (await run_sql(session, _STATE)).one()
    await run_sql(session, _AS_LOGIN)
    size = (await run_sql(session, _SIZE)).one()
    connections = {found.state: found.sessions for found in await run_sql(session, _CONNECTIONS)}
    return State(
        suspense_seconds=row.suspense_seconds,
        partition_seconds=float(row.partition_seconds or 0.0),
        closed_periods=row.closed_periods,
        size_bytes=size.bytes,
        most_connections=row.most_connections,
        connections={state: connections.get(state, 0) for state in _STATES},
    )


async def read_reconciliation(session: AsyncSession) -> Reconciled | None:
    """Return how the month reconciled last compares to its bill, None before the first."""
    rows = (await run_sql(session, _RECONCILIATION)).all()
    if not rows:
        return None
    nanos = {row.verdict: int(row.nanos) for row in rows if row.verdict is not None}
    return Reconciled(
        age_seconds=rows[0].age_seconds, variance_nanos={verdict: nanos.get(verdict, 0) for verdict in VERDICTS}
    )
