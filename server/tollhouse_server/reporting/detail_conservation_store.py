"""Conservation of details: cost by label and quantities by price are those of the records, group by group."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.rows import run_sql
from tollhouse_server.reporting.kept_detail_store import Detail
from tollhouse_server.reporting.periods import Period


async def unequal_details(
    session: AsyncSession, tenant: str, stretch: Sequence[Period], detail: Detail
) -> Sequence[Row[Any]]:
    """Return the groups in which kept details differ from the records, or one is missing: `<sum>_made`, `<sum>_stored`.

    The days of the stretch follow upon each other and keep details.
    """
    values = {
        "tenant": tenant,
        "starts": [day.start for day in stretch],
        "ends": [day.end for day in stretch],
        "first": stretch[0].start,
        "last": stretch[-1].end,
    }
    return (await run_sql(session, _difference(detail), values)).all()


def _difference(detail: Detail) -> str:
    of_day = detail.rows.replace(":start", "day.day_start").replace(":end", "day.day_end")
    key, sides = f"day_start, {detail.key}", [(name, side) for name in detail.sums for side in ("made", "stored")]
    sums = ", ".join(
        f"coalesce(sum({name}) FILTER (WHERE side = '{side}'), 0) AS {name}_{side}" for name, side in sides
    )
    unequal = " OR ".join(f"{name}_made <> {name}_stored" for name in detail.sums)
    return f"""
SELECT * FROM (
    SELECT {key}, {sums} FROM (
        SELECT 'made' AS side, day.day_start, {detail.columns}
        FROM unnest(CAST(:starts AS timestamptz[]), CAST(:ends AS timestamptz[])) AS day (day_start, day_end)
        CROSS JOIN LATERAL ({of_day}) AS fresh
        UNION ALL
        SELECT 'stored', day_start, {detail.columns} FROM {detail.table}
        WHERE tenant_id = :tenant AND day_start >= :first AND day_start < :last
    ) AS both_sides GROUP BY {key}
) AS compared WHERE {unequal} ORDER BY {key}
"""  # noqa: S608 - names of `kept_detail_store`
