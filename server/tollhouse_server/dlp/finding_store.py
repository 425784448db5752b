"""The SQL of findings. Every function works in its caller's transaction."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.rows import run_sql
from tollhouse_server.dlp.tables import DataFindingRow


async def add_findings(session: AsyncSession, findings: Sequence[DataFindingRow]) -> None:
    """Add findings; one that is there already, because an answer of the database was lost, stays as it is."""
    rows = [one.model_dump() for one in findings]
    connection = await session.connection()
    await connection.execute(insert(DataFindingRow).on_conflict_do_nothing(), rows)


async def list_findings(
    session: AsyncSession, tenant_id: str, *, department_id: str, before: Sequence[object] | None, size: int
) -> list[DataFindingRow]:
    """Return a tenant's findings, or those of one department, the newest first, after the row with the key `before`."""
    key = (
        col(DataFindingRow.found_at),
        col(DataFindingRow.request_id),
        col(DataFindingRow.direction),
        col(DataFindingRow.detector),
        col(DataFindingRow.action),
    )
    query = select(DataFindingRow).where(col(DataFindingRow.tenant_id) == tenant_id)
    if department_id:
        query = query.where(col(DataFindingRow.department_id) == department_id)
    if before is not None:
        query = query.where(tuple_(*key) < tuple_(*before))
    query = query.order_by(*(one.desc() for one in key)).limit(size)
    return list((await session.exec(query)).all())


async def forget_findings(session: AsyncSession, *, before: datetime, most: int) -> int:
    """Delete findings from before a moment, at most so many, and return how many there were."""
    result = await run_sql(
        session,
        "WITH old AS (SELECT ctid FROM data_finding WHERE found_at < :before LIMIT :most), "
        "gone AS (DELETE FROM data_finding WHERE ctid IN (SELECT ctid FROM old) RETURNING 1) "
        "SELECT count(*) AS forgotten FROM gone",
        {"before": before, "most": most},
    )
    return int(result.one().forgotten)
