"""The SQL of status: spend of the whole platform, suspense. Every function works in its caller's transaction."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.rows import run_sql
from tollhouse_server.names import DepartmentName, ProjectName, Scope

# Days that are rolled up are read from there, and only what came after them from records.
_PLATFORM: Final = """
SELECT clock_timestamp() AS now, coalesce(sum(rolled.nanos), 0) + coalesce(sum(booked.nanos), 0) AS month_nanos,
    coalesce(sum(recent.hour_nanos), 0) AS hour_nanos, coalesce(sum(recent.calls), 0) AS calls,
    coalesce(sum(recent.input_tokens), 0) AS input_tokens, coalesce(sum(recent.output_tokens), 0) AS output_tokens
FROM tenant t
CROSS JOIN LATERAL (
    SELECT date_trunc('month', clock_timestamp() AT TIME ZONE t.time_zone) AT TIME ZONE t.time_zone AS start
) AS month
LEFT JOIN LATERAL (
    SELECT sum(d.cost_nanos) AS nanos, max(d.day_end) AS until FROM usage_rollup_day d
    WHERE d.tenant_id = t.tenant_id AND d.day_start >= month.start
) AS rolled ON true
LEFT JOIN LATERAL (
    SELECT sum(r.cost_nanos) AS nanos FROM usage_record r
    WHERE r.tenant_id = t.tenant_id AND r.settled_at >= greatest(month.start, rolled.until)
) AS booked ON true
LEFT JOIN LATERAL (
    SELECT sum(r.cost_nanos) AS hour_nanos,
        count(*) FILTER (WHERE minute AND r.kind IN ('SETTLED', 'SUSPENSE')) AS calls,
        sum(r.input_tokens) FILTER (WHERE minute) AS input_tokens,
        sum(r.output_tokens) FILTER (WHERE minute) AS output_tokens
    FROM usage_record r
    CROSS JOIN LATERAL (SELECT r.settled_at > clock_timestamp() - interval '1 minute') AS in_it (minute)
    WHERE r.tenant_id = t.tenant_id AND r.settled_at > clock_timestamp() - interval '1 hour'
) AS recent ON true
"""

_SUSPENSE: Final = """
SELECT count(*) AS attempts, min(s.suspended_at) AS oldest_at FROM suspense s
WHERE s.resolved_at IS NULL AND (CAST(:tenant AS text) IS NULL OR s.tenant_id = :tenant)
    AND (CAST(:department AS text) IS NULL OR EXISTS (
        SELECT FROM usage_record r
        WHERE r.tenant_id = s.tenant_id AND r.attempt_id = s.attempt_id AND r.kind = 'SUSPENSE'
            AND CASE WHEN CAST(:project AS text) IS NULL THEN :department = ANY (r.department_path)
                ELSE r.department_path[cardinality(r.department_path)] = :department AND r.project_id = :project END
    ))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformSpend:
    """What all tenants have spent; calls and tokens are those of the last minute."""

    now: datetime
    month_nanos: int
    hour_nanos: int
    calls: int
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSuspense:
    """Attempts that wait for somebody to find out what became of them."""

    count: int
    oldest_at: datetime | None


async def platform_spend(session: AsyncSession) -> PlatformSpend:
    """Add up all tenants, each by its own calendar. Day by day this is what reports say; they alone are exact."""
    row = (await run_sql(session, _PLATFORM)).one()
    amounts = {name: int(getattr(row, name)) for name in PlatformSpend.__slots__ if name != "now"}
    return PlatformSpend(now=row.now, **amounts)


async def open_suspense(session: AsyncSession, scope: Scope | None) -> OpenSuspense:
    """Count what is in suspense below a scope, None for the platform."""
    values = {
        "tenant": None if scope is None else scope.tenant,
        "department": scope.department if isinstance(scope, DepartmentName | ProjectName) else None,
        "project": scope.project if isinstance(scope, ProjectName) else None,
    }
    row = (await run_sql(session, _SUSPENSE, values)).one()
    return OpenSuspense(count=row.attempts, oldest_at=row.oldest_at)
