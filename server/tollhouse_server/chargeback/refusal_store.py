"""The SQL of refused spend."""

from collections.abc import Sequence
from typing import Final

import orjson
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.chargeback.cells import Month, RefusedPart
from tollhouse_server.database.rows import run_sql

# A tenant that was purged meanwhile has no row any more, and needs none. Rows are locked in the order of their key.
_ADD: Final = """
INSERT INTO refused_spend (tenant_id, day, department_path, calls, ceiling_nanos)
SELECT t.tenant_id, (one.at AT TIME ZONE t.time_zone)::date AS day, path.ids, sum(one.calls), sum(one.ceiling_nanos)
FROM jsonb_to_recordset(CAST(:parts AS jsonb))
    AS one(tenant text, path jsonb, at timestamptz, calls bigint, ceiling_nanos numeric)
JOIN tenant t ON t.tenant_id = one.tenant
CROSS JOIN LATERAL (SELECT ARRAY(SELECT jsonb_array_elements_text(one.path)) AS ids) path
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
ON CONFLICT (tenant_id, day, department_path) DO UPDATE
SET calls = refused_spend.calls + excluded.calls,
    ceiling_nanos = refused_spend.ceiling_nanos + excluded.ceiling_nanos
"""


async def add_refused(session: AsyncSession, parts: Sequence[RefusedPart]) -> None:
    """Add to the days of the tenants, each in its own time zone."""
    told = [
        {
            "tenant": one.tenant,
            "path": one.department_path,
            "at": one.at,
            "calls": one.calls,
            # As text: a JSON number of such a size is not exact everywhere.
            "ceiling_nanos": str(one.ceiling_nanos),
        }
        for one in parts
    ]
    await run_sql(session, _ADD, {"parts": orjson.dumps(told).decode()})


_READ: Final = """
SELECT department_path, sum(calls) AS calls, sum(ceiling_nanos) AS ceiling_nanos FROM refused_spend
WHERE tenant_id = :tenant AND day >= :first AND day <= :last GROUP BY department_path ORDER BY department_path
"""


async def read_refused(session: AsyncSession, tenant: str, month: Month) -> list[RefusedPart]:
    """Return what limits have refused in a month, by department."""
    days = {"tenant": tenant, "first": month.first_day, "last": month.last_day}
    return [
        RefusedPart(
            tenant=tenant,
            department_path=tuple(row.department_path),
            at=month.period.start,
            calls=int(row.calls),
            ceiling_nanos=int(row.ceiling_nanos),
        )
        for row in (await run_sql(session, _READ, days)).all()
    ]
