"""The SQL of checkpoints, and of what they let go."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.audit.tables import AuditCheckpointRow
from tollhouse_server.database.rows import run_sql

# Any constant that no other advisory lock of Tollhouse uses: spells "audt".
_LEADER_LOCK: Final = 0x61756474

# The newest checkpoint of each tenant whose trail does not end with it: it has gone on, or somebody has cut it off.
_MOVED: Final = text("""
SELECT h.tenant_id, h.sequence, h.hash, c.sequence AS signed_sequence, c.hash AS signed_hash,
    c.first_sequence, c.number, c.document
FROM audit_head h LEFT JOIN LATERAL (
    SELECT * FROM audit_checkpoint k WHERE k.tenant_id = h.tenant_id ORDER BY k.number DESC LIMIT 1
) c ON true
WHERE h.sequence <> coalesce(c.sequence, 0) OR h.hash <> c.hash ORDER BY h.tenant_id
""")

# From the heads: there are as many as tenants, and of checkpoints more every minute.
_NEWEST: Final = text("""
SELECT h.tenant_id, c.number FROM audit_head h CROSS JOIN LATERAL (
    SELECT k.number FROM audit_checkpoint k WHERE k.tenant_id = h.tenant_id ORDER BY k.number DESC LIMIT 1
) c
""")

_UNSIGNED: Final = text("""
SELECT count(*)::bigint AS events, coalesce(max(clock_timestamp() - e.occurred_at), interval '0') AS age
FROM audit_head h LEFT JOIN LATERAL (
    SELECT k.sequence FROM audit_checkpoint k WHERE k.tenant_id = h.tenant_id ORDER BY k.number DESC LIMIT 1
) c ON true
JOIN audit_event e ON e.tenant_id = h.tenant_id AND e.sequence > coalesce(c.sequence, 0)
WHERE h.sequence > coalesce(c.sequence, 0)
""")

# The last checkpoint of each tenant all of whose events are too old, where it is not the beginning already.
_CUTS: Final = text("""
SELECT n.tenant_id, cut.sequence AS through FROM (
    SELECT DISTINCT ON (k.tenant_id) k.* FROM audit_checkpoint k ORDER BY k.tenant_id, k.number DESC
) n JOIN LATERAL (
    SELECT max(k.sequence) AS sequence FROM audit_checkpoint k
    JOIN audit_event e ON e.tenant_id = k.tenant_id AND e.sequence = k.sequence
    WHERE k.tenant_id = n.tenant_id AND e.occurred_at < clock_timestamp() - make_interval(months => :months)
) cut ON cut.sequence >= n.first_sequence
ORDER BY n.tenant_id
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A trail that does not end where it was last signed. What is None was never signed."""

    tenant_id: str
    sequence: int
    hash: bytes
    signed_sequence: int | None
    signed_hash: bytes | None
    first_sequence: int | None
    number: int | None
    document: str | None


async def lead(session: AsyncSession) -> bool:
    """Tell whether this process is the one that signs, until its transaction ends."""
    found = await run_sql(session, "SELECT pg_try_advisory_xact_lock(:key) AS held", {"key": _LEADER_LOCK})
    return bool(found.one().held)


async def moved_trails(session: AsyncSession) -> Sequence[Moved]:
    """Return the trails that do not end where they were last signed."""
    return [Moved(**row) for row in (await run_sql(session, _MOVED)).mappings()]


async def unsigned(session: AsyncSession) -> tuple[int, float]:
    """Return how many events no checkpoint vouches for yet, and how many seconds old the oldest of them is."""
    row = (await run_sql(session, _UNSIGNED)).one()
    return int(row.events), float(row.age.total_seconds())


async def find_newest(session: AsyncSession, tenant: str) -> AuditCheckpointRow | None:
    """Return a tenant's newest checkpoint."""
    query = select(AuditCheckpointRow).where(AuditCheckpointRow.tenant_id == tenant)
    return (await session.exec(query.order_by(col(AuditCheckpointRow.number).desc()).limit(1))).first()


async def list_checkpoints(
    session: AsyncSession, tenant: str, *, after: int = 0, size: int = 100
) -> Sequence[AuditCheckpointRow]:
    """Return up to `size` checkpoints of a tenant, the oldest first, those with numbers above `after`."""
    query = select(AuditCheckpointRow).where(
        AuditCheckpointRow.tenant_id == tenant, col(AuditCheckpointRow.number) > after
    )
    return (await session.exec(query.order_by(col(AuditCheckpointRow.number)).limit(size))).all()


async def newest_numbers(session: AsyncSession) -> dict[str, int]:
    """Return the number of each tenant's newest checkpoint, of all that have a head."""
    return {row.tenant_id: row.number for row in (await run_sql(session, _NEWEST)).all()}


async def read_now(session: AsyncSession) -> datetime:
    """Return what the database's clock says."""
    found: datetime = (await run_sql(session, "SELECT clock_timestamp() AS now")).one().now
    return found


async def find_cuts(session: AsyncSession, *, months: int) -> dict[str, int]:
    """Return up to where each tenant's events are older than `months`, as far as a checkpoint vouches for them."""
    rows = (await run_sql(session, _CUTS, {"months": months})).all()
    return {row.tenant_id: row.through for row in rows}


async def droppable_tenants(session: AsyncSession) -> Sequence[str]:
    """Return the tenants with events before the beginning that their newest checkpoint names."""
    sql = """
SELECT k.tenant_id FROM (SELECT tenant_id, max(first_sequence) AS first FROM audit_checkpoint GROUP BY tenant_id) k
WHERE k.first > 1 AND EXISTS (
    SELECT FROM audit_event e WHERE e.tenant_id = k.tenant_id AND e.sequence < k.first
) ORDER BY k.tenant_id
"""
    return [row.tenant_id for row in (await run_sql(session, sql)).all()]


async def drop_events(session: AsyncSession, tenant: str, *, months: int, size: int) -> int:
    """Drop up to `size` of a tenant's oldest events, none before its time; return how many went."""
    sql = "SELECT audit_drop(:tenant, :months, :size) AS dropped"
    return int((await run_sql(session, sql, {"tenant": tenant, "months": months, "size": size})).one().dropped)
