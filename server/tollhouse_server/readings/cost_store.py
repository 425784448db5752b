"""The SQL of what departments cost since their tenants' months began."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.rows import run_sql

Costs = Mapping[tuple[str, str], int]
"""Nano-dollars by tenant and department: what was booked on the department itself, not on those below it."""

_MONTHS: Final = """
SELECT tenant_id,
    date_trunc('month', CAST(:at AS timestamptz) AT TIME ZONE time_zone) AT TIME ZONE time_zone AS starts_at
FROM tenant
"""

# Days that are rolled up are read as such, so that a month of records is not read to begin with.
_SINCE_MONTHS: Final = """
WITH clock AS MATERIALIZED (
    SELECT m.tenant_id, m.starts_at, greatest(m.starts_at, (
        SELECT max(d.day_end) FROM usage_rollup_day d WHERE d.tenant_id = m.tenant_id AND d.day_end <= :until
    )) AS rolled_until
    FROM unnest(CAST(:tenants AS text[]), CAST(:starts AS timestamptz[])) AS m (tenant_id, starts_at)
)
SELECT tenant_id, department, sum(cost_nanos)::bigint AS cost_nanos FROM (
    SELECT c.tenant_id, r.department_path[cardinality(r.department_path)] AS department, r.cost_nanos
    FROM clock c JOIN usage_rollup r ON r.tenant_id = c.tenant_id AND r.day_start >= c.starts_at
        AND r.day_start < c.rolled_until
    UNION ALL
    SELECT c.tenant_id, u.department_path[cardinality(u.department_path)], u.cost_nanos::numeric
    FROM clock c JOIN usage_record u ON u.tenant_id = c.tenant_id AND u.settled_at >= c.rolled_until
        AND u.settled_at < :until
) AS booked GROUP BY tenant_id, department
"""

_BETWEEN: Final = """
SELECT c.tenant_id, u.department_path[cardinality(u.department_path)] AS department,
    sum(u.cost_nanos)::bigint AS cost_nanos
FROM unnest(CAST(:tenants AS text[])) AS c (tenant_id) JOIN usage_record u ON u.tenant_id = c.tenant_id
    AND u.settled_at >= :since AND u.settled_at < :until
GROUP BY 1, 2
"""


async def month_starts(session: AsyncSession, at: datetime) -> dict[str, datetime]:
    """Return for each tenant when the calendar month began that the moment is in."""
    return {row.tenant_id: row.starts_at for row in await run_sql(session, _MONTHS, {"at": at})}


async def costs_since_months(session: AsyncSession, starts: Mapping[str, datetime], until: datetime) -> Costs:
    """Return what these tenants' departments cost since their months began."""
    asked = {"tenants": list(starts), "starts": list(starts.values()), "until": until}
    rows = await run_sql(session, _SINCE_MONTHS, asked)
    return {(row.tenant_id, row.department or ""): row.cost_nanos for row in rows}


async def costs_between(session: AsyncSession, tenants: Sequence[str], since: datetime, until: datetime) -> Costs:
    """Return what was booked on these tenants' departments in a stretch of the ledger's time."""
    rows = await run_sql(session, _BETWEEN, {"tenants": list(tenants), "since": since, "until": until})
    return {(row.tenant_id, row.department or ""): row.cost_nanos for row in rows}
