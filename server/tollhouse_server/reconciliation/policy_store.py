"""The SQL of the platform's bounds for differences."""

from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.rows import run_sql
from tollhouse_server.errors import EtagMismatch
from tollhouse_server.reconciliation.policy import POLICY_NAME, ReconciliationPolicy


async def read_policy(session: AsyncSession, *, lock: bool = False) -> ReconciliationPolicy:
    """Return the platform's bounds."""
    query = "SELECT * FROM reconciliation_policy"
    if lock:
        query += " FOR UPDATE"
    return _policy((await run_sql(session, query)).one())


async def write_policy(
    session: AsyncSession, *, absolute_nanos: int, share_millionths: int, rounding_nanos: int, version: int | None
) -> ReconciliationPolicy:
    """Change the bounds; they count from the next reconciliation of a month on.

    Raises:
        EtagMismatch: somebody else has changed them since `version`.
    """
    now = await read_policy(session, lock=True)
    if version is not None and now.version != version:
        raise EtagMismatch(name=POLICY_NAME)
    wanted = {
        "absolute_nanos": absolute_nanos,
        "share_millionths": share_millionths,
        "rounding_nanos": rounding_nanos,
    }
    update = """
UPDATE reconciliation_policy SET absolute_nanos = :absolute_nanos, share_millionths = :share_millionths,
    rounding_nanos = :rounding_nanos, version = version + 1, updated_at = clock_timestamp() RETURNING *
"""
    return _policy((await run_sql(session, update, wanted)).one())


def _policy(row: Any) -> ReconciliationPolicy:
    return ReconciliationPolicy(
        absolute_nanos=row.absolute_nanos,
        share_millionths=row.share_millionths,
        rounding_nanos=row.rounding_nanos,
        version=row.version,
    )
