"""The checks of a verification, as SQL: what each selects are places that do not add up, for one tenant.

All take `tenant`, `since`, `until` and `kept_since` (see `verification_store.Reach`) and select place (the table), key,
field, expected and found; sums are numeric, so exact.
"""

from typing import Final

IN_REACH: Final = (
    "r.tenant_id = :tenant AND r.settled_at >= :since AND r.dispatched_at >= :since AND r.dispatched_at < :until"
)


def _default_partition(table: str) -> str:
    """Return a query for rows of a tenant that no partition of their own has taken in."""
    return f"""
SELECT '{table}_default', 'all rows of the tenant', 'row', 0::numeric, count(*)::numeric
FROM {table} r
WHERE r.tenant_id = :tenant
    AND r.tableoid = (SELECT partdefid FROM pg_partitioned_table WHERE partrelid = '{table}'::regclass)
HAVING count(*) > 0
"""  # noqa: S608 - constants of this file


PARTITIONS: Final = f"{_default_partition('usage_record')} UNION ALL {_default_partition('request_key')}"

# What was sent before the oldest record that is kept may have ended in a month that is gone.
ATTEMPTS: Final = f"""
WITH ended AS (
    SELECT r.attempt_id,
        count(*) FILTER (WHERE r.kind <> 'ADJUSTMENT') AS ends,
        count(*) FILTER (WHERE r.kind = 'SUSPENSE') AS suspended,
        count(*) FILTER (WHERE r.kind = 'ADJUSTMENT') AS adjusted,
        min(r.dispatched_at) AS dispatched_at
    FROM usage_record r WHERE {IN_REACH}
    GROUP BY r.attempt_id
    HAVING count(*) > 1 OR min(r.kind) = 'ADJUSTMENT'
)
SELECT 'usage_record', 'attempt ' || attempt_id, 'row', 1::numeric, ends::numeric
FROM ended WHERE ends <> 1 AND NOT (ends = 0 AND dispatched_at < :kept_since)
UNION ALL
SELECT 'usage_record', 'adjustment of attempt ' || attempt_id, 'row', 0, adjusted
FROM ended WHERE adjusted > 0 AND suspended = 0 AND NOT (ends = 0 AND dispatched_at < :kept_since)
UNION ALL
SELECT 'attempt', 'attempt ' || a.attempt_id, 'row', 0, 1
FROM attempt a
WHERE a.tenant_id = :tenant
    AND EXISTS (SELECT FROM usage_record r WHERE r.tenant_id = :tenant AND r.attempt_id = a.attempt_id)
"""  # noqa: S608 - constants of this file

_LINES_NANOS = """
(SELECT coalesce(sum(CASE jsonb_typeof(line -> 'cost_nanos') WHEN 'number' THEN (line -> 'cost_nanos')::numeric END), 0)
 FROM jsonb_array_elements(CASE jsonb_typeof(r.lines) WHEN 'array' THEN r.lines ELSE '[]' END) AS line)
"""

RECORDS: Final = f"""
WITH wrong AS MATERIALIZED (
    SELECT r.* FROM usage_record r
    WHERE {IN_REACH} AND (
        r.kind = 'SETTLED' AND r.cost_nanos <> {_LINES_NANOS}
        OR r.kind <> 'ADJUSTMENT'
            AND least(r.requests, r.input_tokens, r.output_tokens, r.images, r.cost_nanos, r.ceiling_nanos) < 0
        OR r.kind = 'REFUSED'
            AND greatest(r.requests, r.input_tokens, r.output_tokens, r.images, r.cost_nanos) > 0
    )
)
SELECT 'usage_record', 'attempt ' || r.attempt_id, one.field, one.expected, one.found
FROM wrong r
CROSS JOIN LATERAL (VALUES
    ('cost_nanos', CASE r.kind WHEN 'SETTLED' THEN {_LINES_NANOS} WHEN 'REFUSED' THEN 0
        ELSE greatest(r.cost_nanos, 0) END, r.cost_nanos::numeric),
    ('requests', CASE r.kind WHEN 'REFUSED' THEN 0 ELSE greatest(r.requests, 0) END, r.requests),
    ('input_tokens', CASE r.kind WHEN 'REFUSED' THEN 0 ELSE greatest(r.input_tokens, 0) END, r.input_tokens),
    ('output_tokens', CASE r.kind WHEN 'REFUSED' THEN 0 ELSE greatest(r.output_tokens, 0) END, r.output_tokens),
    ('images', CASE r.kind WHEN 'REFUSED' THEN 0 ELSE greatest(r.images, 0) END, r.images),
    ('ceiling_nanos', greatest(r.ceiling_nanos, 0), r.ceiling_nanos)
) AS one (field, expected, found)
WHERE one.expected <> one.found
"""  # noqa: S608 - constants of this file

_METRICS = ("requests", "input_tokens", "output_tokens", "images", "cost_nanos")


def _sums(kind: str, prefix: str) -> str:
    return ", ".join(f"sum(r.{one}) FILTER (WHERE r.kind = '{kind}') AS {prefix}_{one}" for one in _METRICS)


def _suspense_values() -> str:
    """Return what must hold of one attempt in suspense: (table, field, expected or NULL, found)."""
    both = "p.rows = 1 AND p.records = 1"
    booked = [f"('suspense', '{one}', CASE WHEN {both} THEN p.booked_{one} END, p.row_{one})" for one in _METRICS]
    return ",\n    ".join(
        [
            "('suspense', 'row', CASE WHEN p.records > 0 THEN 1 END, p.rows)",
            "('usage_record', 'row', CASE WHEN p.rows = 1 THEN 1 END, p.records)",
            *booked,
            "('usage_record', 'adjustments', CASE WHEN p.rows = 1 THEN p.closed END, p.adjustments)",
            *(_outcome_value(one, both) for one in _METRICS),
        ]
    )


def _outcome_value(metric: str, both: str) -> str:
    """Return what a resolved attempt came to: as it was ruled; settled late, the sum of its lines; never negative."""
    came_to = f"p.row_{metric} + p.more_{metric}"
    late = "WHEN p.lines_nanos > 0 THEN p.lines_nanos" if metric == "cost_nanos" else ""
    return f"""('usage_record', 'outcome {metric}', CASE WHEN {both} AND p.adjustments = 1 THEN CASE
        WHEN p.resolution = 'VOID' THEN 0
        WHEN p.resolution = 'ACCEPT' THEN p.row_{metric}
        WHEN starts_with(p.resolution, 'ACTUAL ') THEN
            coalesce(substring(p.resolution FROM ' {metric}=([0-9]+)')::numeric, -1)
        {late}
        WHEN {came_to} < 0 THEN 0 END END, {came_to})"""


SUSPENSE: Final = f"""
WITH booked AS (
    SELECT r.attempt_id, count(*) FILTER (WHERE r.kind = 'SUSPENSE') AS records, {_sums("SUSPENSE", "booked")},
        count(*) FILTER (WHERE r.kind = 'ADJUSTMENT') AS adjustments, {_sums("ADJUSTMENT", "more")},
        sum(CASE r.kind WHEN 'ADJUSTMENT' THEN {_LINES_NANOS} END) AS lines_nanos
    FROM usage_record r WHERE {IN_REACH} AND r.kind IN ('SUSPENSE', 'ADJUSTMENT')
    GROUP BY r.attempt_id
),
pair AS (
    SELECT attempt_id, (s.tenant_id IS NOT NULL)::integer::numeric AS rows, coalesce(b.records, 0)::numeric AS records,
        coalesce(b.adjustments, 0)::numeric AS adjustments, (s.resolved_at IS NOT NULL)::integer::numeric AS closed,
        s.resolution, b.lines_nanos, {", ".join(f"s.{one}::numeric AS row_{one}, b.booked_{one}" for one in _METRICS)},
        {", ".join(f"coalesce(b.more_{one}, 0) AS more_{one}" for one in _METRICS)}
    FROM (SELECT * FROM suspense WHERE tenant_id = :tenant) AS s FULL JOIN booked b USING (attempt_id)
    -- Out of reach are records of another month, and those that were dropped with theirs.
    WHERE b.attempt_id IS NOT NULL AND (b.records > 0 OR s.tenant_id IS NOT NULL AND s.suspended_at >= :kept_since)
        OR b.attempt_id IS NULL AND s.suspended_at >= greatest(:since, :kept_since) AND NOT EXISTS (
            SELECT FROM usage_record r
            WHERE r.tenant_id = :tenant AND r.attempt_id = s.attempt_id AND r.kind = 'SUSPENSE'
        )
)
SELECT one.place, 'attempt ' || p.attempt_id, one.field, one.expected, coalesce(one.found, 0)
FROM pair p
CROSS JOIN LATERAL (VALUES
    {_suspense_values()}
) AS one (place, field, expected, found)
WHERE one.expected <> coalesce(one.found, 0)
"""  # noqa: S608 - constants of this file

_COUNTER_KEY = """
format('limit %s, window of %s', coalesce(l.name, d.limit_id::text),
    to_char(d.window_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'))
"""

# An attempt of an older server may say nothing of what is expected; nothing is kept of it on the counter then.
HOLDS: Final = f"""
WITH flying AS (
    SELECT (hold ->> 0)::bigint AS limit_id, (hold ->> 1)::timestamptz AS window_start,
        sum((hold ->> 3)::numeric) AS held, sum(coalesce((hold ->> 4)::numeric, 0)) AS expected
    FROM attempt a CROSS JOIN LATERAL json_array_elements(a.holds) AS hold
    WHERE a.tenant_id = :tenant
    GROUP BY 1, 2
),
d AS (
    SELECT limit_id, window_start, coalesce(f.held, 0) AS held, coalesce(f.expected, 0) AS expected,
        coalesce(c.held, 0)::numeric AS held_found, coalesce(c.expected, 0)::numeric AS expected_found
    FROM (SELECT * FROM counter WHERE tenant_id = :tenant AND (held <> 0 OR expected <> 0)) AS c
    FULL JOIN flying f USING (limit_id, window_start)
    WHERE window_start >= :since AND window_start < :until
)
SELECT 'counter', {_COUNTER_KEY}, one.field, one.expected, one.found
FROM d LEFT JOIN usage_limit l ON l.tenant_id = :tenant AND l.limit_id = d.limit_id
CROSS JOIN LATERAL (VALUES ('held', d.held, d.held_found), ('expected', d.expected, d.expected_found))
    AS one (field, expected, found)
WHERE one.expected <> one.found
"""  # noqa: S608 - constants of this file

# What each record adds to a counter that it names.
_SETTLED = """
CASE hold ->> 2 WHEN 'COST' THEN r.cost_nanos WHEN 'REQUESTS' THEN r.requests WHEN 'INPUT_TOKENS' THEN r.input_tokens
    WHEN 'OUTPUT_TOKENS' THEN r.output_tokens WHEN 'IMAGES' THEN r.images ELSE 0 END
"""

# No window is longer than this, whatever the calendar.
_OVER = """
d.window_start + CASE l."window"
    WHEN 'MINUTE' THEN interval '1 minute' WHEN 'ROLLING_10_MINUTES' THEN interval '11 minutes'
    WHEN 'HOUR' THEN interval '1 hour' WHEN 'DAY' THEN interval '25 hours'
    WHEN 'MONTH' THEN interval '32 days' WHEN 'FISCAL_MONTH' THEN interval '32 days'
    ELSE interval '10000 years' END < now()
"""

# A counter that is missing later was cleaned away, and one that has nothing but corrections was made anew by them.
_CLEANED = f"""
d.is_missing AND (l.state IS DISTINCT FROM 'ACTIVE' OR {_OVER})
    OR coalesce(d.found = nullif(d.corrections, 0), false) AND {_OVER}
"""

# A record that counted in the limit and does not say so: written before records named their counters.
_UNNAMED = """
EXISTS (
    SELECT FROM usage_record r
    WHERE r.tenant_id = :tenant AND r.holds::text = '[]' AND r.kind <> 'REFUSED'
        AND r.settled_at < coalesce((SELECT settled_at FROM first_named), 'infinity')
        AND r.dispatched_at >= greatest(d.window_start, l.created_at)
        AND (l.selector = '' OR l.selector IN ('tiers/' || r.tier, 'models/' || r.model))
        AND CASE
            WHEN split_part(l.scope, '/', 7) = 'apiKeys' THEN r.credential_id = split_part(l.scope, '/', 8)
            WHEN split_part(l.scope, '/', 5) = 'projects' THEN r.project_id = split_part(l.scope, '/', 6)
            WHEN split_part(l.scope, '/', 3) = 'departments' THEN split_part(l.scope, '/', 4) = ANY (r.department_path)
            ELSE true END
)
"""

COUNTERS: Final = f"""
WITH named AS (
    SELECT hold ->> 0 AS limit_id, hold ->> 1 AS window_start, sum({_SETTLED}) AS settled,
        coalesce(sum({_SETTLED}) FILTER (WHERE r.kind = 'ADJUSTMENT'), 0) AS corrections
    FROM usage_record r
    CROSS JOIN LATERAL jsonb_array_elements(
        CASE json_typeof(r.holds) WHEN 'array' THEN r.holds::jsonb ELSE '[]' END
    ) AS hold
    WHERE {IN_REACH}
    GROUP BY 1, 2
),
booked AS (
    SELECT limit_id::bigint AS limit_id, window_start::timestamptz AS window_start, sum(settled) AS settled,
        sum(corrections) AS corrections
    FROM named WHERE pg_input_is_valid(limit_id, 'bigint') AND pg_input_is_valid(window_start, 'timestamptz')
    GROUP BY 1, 2
),
first_named AS (
    SELECT settled_at FROM usage_record WHERE tenant_id = :tenant AND holds::text <> '[]' ORDER BY settled_at LIMIT 1
),
d AS MATERIALIZED (
    SELECT limit_id, window_start, c.tenant_id IS NULL AS is_missing,
        coalesce(b.settled, 0) AS expected, coalesce(c.settled, 0)::numeric AS found, b.corrections
    FROM (SELECT * FROM counter WHERE tenant_id = :tenant) AS c FULL JOIN booked b USING (limit_id, window_start)
    WHERE window_start >= :since AND window_start < :until AND coalesce(c.settled, 0) <> coalesce(b.settled, 0)
)
SELECT 'counter', {_COUNTER_KEY}, 'settled', d.expected, d.found,
    greatest(d.window_start, l.created_at) >= :kept_since AND NOT {_UNNAMED} AS is_checkable
FROM d LEFT JOIN usage_limit l ON l.tenant_id = :tenant AND l.limit_id = d.limit_id
WHERE NOT ({_CLEANED})
ORDER BY is_checkable DESC
"""  # noqa: S608 - constants of this file
