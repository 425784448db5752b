"""The SQL of the budgets that are used most, and of what limits have raised."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.rows import run_sql


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetUse:
    """The current window of a limit on money; `elapsed_ratio` is None where a window has no end, or moves along.

    Of all limits that are not told of one by one there is the sum, with empty names.
    """

    tenant_id: str
    scope: str
    name: str
    amount_nanos: int
    settled_nanos: int
    held_nanos: int
    elapsed_ratio: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RaisedAlerts:
    """How many alerts of a kind were raised; `threshold` is in per cent, 0 where the kind has none."""

    kind: str
    threshold: int
    count: int


# Windows begin where calendars say, by PostgreSQL's own arithmetic: a figure on a dashboard may differ from what the
# ledger enforces for the minutes in which a clock is set. Limits on API keys have their place in the sum alone.
_BUDGETS: Final = """
WITH raised AS (
    SELECT tenant_id, limit_id, sum(amount) AS amount FROM limit_increase
    WHERE state = 'APPROVED' AND coalesce(starts_at, now()) <= now() AND now() < expires_at
    GROUP BY tenant_id, limit_id
),
clock AS (
    SELECT t.tenant_id, t.time_zone AS zone, now() AT TIME ZONE t.time_zone AS today,
        make_interval(days => t.fiscal_month_start_day - 1) AS fiscal
    FROM tenant t
),
windows AS (
    SELECT c.tenant_id, w.* FROM clock c CROSS JOIN LATERAL (VALUES
        ('TOTAL', to_timestamp(0), NULL::timestamptz),
        ('MONTH', date_trunc('month', c.today) AT TIME ZONE c.zone,
            (date_trunc('month', c.today) + interval '1 month') AT TIME ZONE c.zone),
        ('FISCAL_MONTH', (date_trunc('month', c.today - c.fiscal) + c.fiscal) AT TIME ZONE c.zone,
            (date_trunc('month', c.today - c.fiscal) + interval '1 month' + c.fiscal) AT TIME ZONE c.zone),
        ('DAY', date_trunc('day', c.today) AT TIME ZONE c.zone,
            (date_trunc('day', c.today) + interval '1 day') AT TIME ZONE c.zone),
        ('HOUR', date_trunc('hour', now(), 'UTC'), date_trunc('hour', now(), 'UTC') + interval '1 hour'),
        ('MINUTE', date_trunc('minute', now()), NULL),
        ('ROLLING_10_MINUTES', date_trunc('minute', now()) - interval '10 minutes', NULL)
    ) AS w (kind, starts_at, ends_at)
),
used AS (
    SELECT l.tenant_id, l.scope, l.name, l.limit_id, l.amount + coalesce(r.amount, 0) AS amount,
        coalesce(c.settled, 0) AS settled, coalesce(c.held, 0) AS held,
        extract(epoch FROM now() - w.starts_at) / extract(epoch FROM w.ends_at - w.starts_at) AS elapsed,
        position('/apiKeys/' IN l.scope) > 0 AS is_of_key
    FROM usage_limit l
    JOIN windows w ON w.tenant_id = l.tenant_id AND w.kind = l."window"
    LEFT JOIN raised r ON r.tenant_id = l.tenant_id AND r.limit_id = l.limit_id
    CROSS JOIN LATERAL (
        SELECT sum(c.settled) AS settled, sum(c.held) AS held FROM counter c
        WHERE c.tenant_id = l.tenant_id AND c.limit_id = l.limit_id AND c.window_start >= w.starts_at
    ) AS c
    WHERE l.metric = 'COST' AND l.state = 'ACTIVE'
),
placed AS MATERIALIZED (
    SELECT *, NOT is_of_key AND row_number() OVER (
        ORDER BY is_of_key, (settled + held)::float8 / greatest(amount, 1)::float8 DESC, tenant_id, limit_id
    ) <= :most AS is_told
    FROM used
)
SELECT tenant_id, scope, name, amount, settled, held, elapsed FROM placed WHERE is_told
UNION ALL
SELECT '', '', '', sum(amount), sum(settled), sum(held), NULL FROM placed WHERE NOT is_told HAVING count(*) > 0
"""

# Tenant by tenant, for each of which the moment is looked up in an index.
_ALERTS: Final = """
SELECT a.kind, a.threshold, count(*) AS alerts FROM tenant t CROSS JOIN LATERAL (
    SELECT i.kind, i.threshold FROM limit_alert i
    WHERE i.tenant_id = t.tenant_id AND i.raised_at >= :since AND i.raised_at < :until
) AS a GROUP BY a.kind, a.threshold
"""


async def read_budgets(session: AsyncSession, *, most: int) -> list[BudgetUse]:
    """Return the `most` limits on money that are used most by their amount, and the sum of the others, if any."""
    return [
        BudgetUse(
            tenant_id=row.tenant_id,
            scope=row.scope,
            name=row.name,
            amount_nanos=int(row.amount),
            settled_nanos=int(row.settled),
            held_nanos=int(row.held),
            elapsed_ratio=None if row.elapsed is None else float(row.elapsed),
        )
        for row in await run_sql(session, _BUDGETS, {"most": most})
    ]


async def raised_alerts(session: AsyncSession, since: datetime, until: datetime) -> Sequence[RaisedAlerts]:
    """Return how many alerts limits raised in a stretch of the ledger's time."""
    rows = await run_sql(session, _ALERTS, {"since": since, "until": until})
    return [RaisedAlerts(kind=row.kind, threshold=row.threshold, count=row.alerts) for row in rows]
