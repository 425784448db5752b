"""A month of a company's calls made by PostgreSQL itself, in the shapes of recorded traffic: millions in minutes."""

from collections.abc import Sequence
from typing import Any

import asyncpg

from tests.drivers.recorded_month import DAYS, MAY, Company, Shape

_SHAPES = """
CREATE TEMP TABLE shape (n integer PRIMARY KEY, model text, input_tokens bigint, output_tokens bigint, images bigint,
    cost_nanos bigint, usage jsonb, lines jsonb)
"""
_PLACES = "CREATE TEMP TABLE place (n integer PRIMARY KEY, path text[])"

# As `Company.call` does it: of a hundred records two are refusals and two corrections, forty have labels. What is drawn
# by hashing the number of a record is the same in every run. Ids begin with their time, as those of attempts do.
_RECORDS = """
INSERT INTO usage_record (tenant_id, attempt_id, settled_at, kind, request_id, dispatched_at, worker_epoch,
    department_path, project_id, credential_id, principal_id, method, tier, model, account_id, labels, price_version,
    requests, input_tokens, output_tokens, images, cost_nanos, ceiling_nanos, usage, lines, outcome, response_id)
SELECT $1, id, at, kind, id, at, 1, path,
    replace(path[cardinality(path)], 'd', 'p') || CASE drawn % 2 WHEN 0 THEN '-a' ELSE '-b' END,
    'k' || path[cardinality(path)], 'robot', 'generateContent', CASE WHEN drawn % 3 = 0 THEN 'pro' ELSE 'flash' END,
    s.model, 'main', CASE WHEN labelled % 10 < 4 THEN jsonb_build_object('feature', 'f' || labelled % 6, 'stage',
        CASE WHEN labelled % 7 < 3 THEN 'test' ELSE 'live' END) ELSE '{}' END, 1,
    1, sign * s.input_tokens, sign * s.output_tokens, sign * s.images, sign * s.cost_nanos, s.cost_nanos, s.usage,
    CASE WHEN sign = 1 THEN s.lines ELSE '[]' END, 'SERVED', ''
FROM generate_series($2::bigint, $3::bigint) AS n
    CROSS JOIN LATERAL (SELECT hashint8extended(n, 1) & 2147483647 AS chosen,
        hashint8extended(n, 2) & 2147483647 AS placed, hashint8extended(n, 3) & 2147483647 AS drawn,
        hashint8extended(n, 4) & 2147483647 AS labelled,
        $4::timestamptz + n * (make_interval(days => $6) / $5::float8) AS at) AS drawing
    CROSS JOIN LATERAL (SELECT uuidv7(at - clock_timestamp()) AS id,
        CASE drawn % 50 WHEN 0 THEN 'REFUSED' WHEN 1 THEN 'ADJUSTMENT' ELSE 'SETTLED' END AS kind,
        CASE drawn % 50 WHEN 0 THEN 0 WHEN 1 THEN -1 ELSE 1 END AS sign) AS made
    JOIN shape s ON s.n = chosen % $7 JOIN place p ON p.n = placed % $8
"""
_BATCH = 500_000


async def call_by_sql(
    connection: "asyncpg.Connection[Any]", company: Company, known: Sequence[Shape], *, calls: int
) -> None:
    """Write a month of calls of a company that was founded, evenly spread over the month, in the order of time."""
    await connection.execute(_SHAPES)
    await connection.execute(_PLACES)
    shapes = [(n, one.model, *one.numbers, one.usage, one.lines) for n, one in enumerate(known)]
    await connection.copy_records_to_table("shape", records=shapes)
    places = [(n, company.path(n)) for n in range(company.departments)]
    await connection.copy_records_to_table("place", records=places)
    await connection.execute("ANALYZE shape, place")
    for first in range(0, calls, _BATCH):
        last = min(first + _BATCH, calls) - 1
        await connection.execute(
            _RECORDS,
            *(company.tenant, first, last, MAY, float(calls), DAYS, len(known), company.departments),
        )
    await connection.execute("DROP TABLE shape, place")
