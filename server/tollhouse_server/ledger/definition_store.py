"""The SQL that reads what limits say, and makes the counters that they count on."""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from tollhouse_server.ledger.terms import Calendar, CounterKey, Increase, LimitDefinition, Metric, Mode, Window
from tollhouse_server.ledger.windows import moment

if TYPE_CHECKING:
    import asyncpg

    from tollhouse_server.ledger.store import Connection

NO_ALERT = 2**63 - 1
"""`counter.alert_at` where no settlement can raise an alert."""

# OFFSET 0 keeps the look-up of a scope's limits together, and its scope one value: pulled apart it read all limits of
# the tenant for each scope.
# A call that set out before its department was merged into another one still names that: the limits that have gone with
# its project, or to the other department, bind it under the name by which it asks.
_DEFINITIONS = """
SELECT l.tenant_id, wanted.scope, l.limit_id, l.name, l.metric, l."window", l.selector, l.mode, l.amount, l.overshoot,
    t.time_zone, t.fiscal_month_start_day,
    (SELECT json_agg(json_build_array(extract(epoch FROM i.starts_at), extract(epoch FROM i.expires_at), i.amount))
     FROM limit_increase i
     WHERE i.tenant_id = l.tenant_id AND i.limit_id = l.limit_id AND i.state = 'APPROVED' AND i.expires_at > now()
    ) AS increases
FROM unnest($1::text[], $2::text[]) AS wanted (tenant_id, scope)
LEFT JOIN department merged ON merged.tenant_id = wanted.tenant_id
    AND merged.department_id = split_part(wanted.scope, '/', 4) AND merged.merged_into IS NOT NULL
CROSS JOIN LATERAL (
    SELECT CASE WHEN merged.merged_into IS NULL THEN wanted.scope
        ELSE regexp_replace(wanted.scope, '/departments/[^/]+', '/departments/' || merged.merged_into) END AS scope
    OFFSET 0
) binding
CROSS JOIN LATERAL (
    SELECT * FROM usage_limit u
    WHERE u.tenant_id = wanted.tenant_id AND u.state = 'ACTIVE' AND u.scope = binding.scope
    OFFSET 0
) l
JOIN tenant t ON t.tenant_id = l.tenant_id
"""

# A counter begins with the first alert that it can raise, so that its first settlement need not work it out. Minutes of
# a rolling window raise none: it is their sum that counts. The limit's row is locked against a change at the same
# moment, which would not see the new counter when it sets alert_at anew.
_CREATE_COUNTERS = f"""
INSERT INTO counter (tenant_id, limit_id, window_start, alert_at)
SELECT wanted.tenant_id, wanted.limit_id, wanted.window_start,
    CASE WHEN l."window" = 'ROLLING_10_MINUTES' OR l.metric = 'CONCURRENCY' THEN {NO_ALERT}
         WHEN EXISTS (
             SELECT FROM limit_increase i
             WHERE i.tenant_id = l.tenant_id AND i.limit_id = l.limit_id AND i.state = 'APPROVED'
         ) THEN 0
         ELSE least(div(l.amount::numeric * l.thresholds[1] + 99, 100), l.amount::numeric + 1, {NO_ALERT}) END
FROM unnest($1::text[], $2::bigint[], $3::timestamptz[]) AS wanted (tenant_id, limit_id, window_start)
JOIN usage_limit l ON l.tenant_id = wanted.tenant_id AND l.limit_id = wanted.limit_id
ORDER BY 1, 2, 3
FOR SHARE OF l
ON CONFLICT DO NOTHING
"""  # noqa: S608 - a constant of this module


async def read_definitions(connection: "Connection", scopes: Sequence[tuple[str, str]]) -> list[LimitDefinition]:
    """Return the active limits on the given (tenant_id, scope) pairs."""
    rows = await connection.fetch(_DEFINITIONS, [tenant for tenant, _ in scopes], [scope for _, scope in scopes])
    return [_definition_of(row) for row in rows]


async def create_counters(connection: "Connection", keys: Iterable[CounterKey]) -> None:
    """Create missing counters at zero; harmless if they exist. Must not run inside the tick's transaction."""
    ordered = sorted(keys)
    await connection.execute(
        _CREATE_COUNTERS,
        [key.tenant_id for key in ordered],
        [key.limit_id for key in ordered],
        [moment(key.window_start) for key in ordered],
    )


def _definition_of(row: "asyncpg.Record") -> LimitDefinition:
    return LimitDefinition(
        tenant_id=row["tenant_id"],
        scope=row["scope"],
        limit_id=row["limit_id"],
        name=row["name"],
        metric=Metric(row["metric"]),
        window=Window(row["window"]),
        selector=row["selector"],
        mode=Mode(row["mode"]),
        amount=row["amount"],
        overshoot=row["overshoot"],
        increases=_increases_of(row["increases"]),
        calendar=Calendar(ZoneInfo(row["time_zone"]), row["fiscal_month_start_day"]),
    )


def _increases_of(text: str | None) -> tuple[Increase, ...]:
    return tuple(
        Increase(
            None if starts is None else datetime.fromtimestamp(starts, UTC), datetime.fromtimestamp(ends, UTC), more
        )
        for starts, ends, more in json.loads(text or "[]")
    )
