"""The only SQL of audit: events in the transaction of the act that they are about, the trail as it is read, and ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import insert, text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.audit.tables import AdminRequestRow, AuditEventRow
from tollhouse_server.database.rows import run_sql
from tollhouse_server.errors import RequestIdReused

# An id that is older than a day is free again.
_CLAIM = text("""
INSERT INTO admin_request AS r (tenant_id, request_id, fingerprint) VALUES (:tenant, :request_id, :fingerprint)
ON CONFLICT ON CONSTRAINT admin_request_pkey DO UPDATE
    SET fingerprint = excluded.fingerprint, response = '', created_at = now()
    WHERE r.created_at < now() - interval '24 hours'
RETURNING request_id
""")

_ANSWER = text("""
UPDATE admin_request SET response = :response WHERE tenant_id = :tenant AND request_id = :request_id
""")

_LINES: Final = """
SELECT e.sequence, audit_line(e) AS line, e.previous, e.hash, e.sealed_by, e.sealed, e.commitment
FROM audit_event e WHERE e.tenant_id = :tenant AND e.sequence IS NOT NULL
"""

# Each is left out where its question is not asked: PostgreSQL plans the rest.
_CONDITIONS: Final = {
    "after": "e.sequence > :after",
    "before": "e.sequence < :before",
    "until_sequence": "e.sequence <= :until_sequence",
    "actor": "e.actor = :actor",
    "method": "(e.method = :method OR e.method LIKE '%.' || :method)",
    "resource": "(e.resource = :resource OR starts_with(e.resource, :resource || '/'))",
    "kind": "e.kind = :kind",
    "since": "e.occurred_at >= :since",
    "until": "e.occurred_at < :until",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which events of a trail are wanted: what is None does not matter. `before` is exclusive, as is `until`."""

    after: int | None = None
    before: int | None = None
    until_sequence: int | None = None
    actor: str | None = None
    method: str | None = None
    resource: str | None = None
    kind: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One event as it stands in the chain: its line and what links it; `sealed` opens under the key of `sealed_by`."""

    sequence: int
    line: str
    previous: bytes
    hash: bytes
    sealed_by: str
    sealed: bytes | None
    commitment: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Where a tenant's trail ends."""

    tenant_id: str
    sequence: int
    hash: bytes


async def record(session: AsyncSession, event: AuditEventRow) -> None:
    """Append an event to the trail; the commit links it."""
    session.add(event)
    await session.flush()


async def record_all(session: AsyncSession, events: Sequence[AuditEventRow]) -> None:
    """Append events to the trail in their order, with few statements."""
    # The rows are not read back: with what PostgreSQL has set in them, it would be a statement for each.
    columns = set(AuditEventRow.model_fields) - {"event_id", "occurred_at"}
    if events:
        await session.flush()
        connection = await session.connection()
        await connection.execute(insert(AuditEventRow), [event.model_dump(include=columns) for event in events])


async def list_events(session: AsyncSession, tenant: str, *, after: int = 0, size: int = 100) -> list[AuditEventRow]:
    """Return up to `size` events of a tenant, the oldest first, after the id `after`."""
    query = select(AuditEventRow).where(AuditEventRow.tenant_id == tenant, col(AuditEventRow.event_id) > after)
    return list((await session.exec(query.order_by(col(AuditEventRow.event_id)).limit(size))).all())


async def read_links(
    session: AsyncSession, tenant: str, question: Question, *, size: int, newest_first: bool = False
) -> Sequence[Link]:
    """Return up to `size` events of a trail that answer the question, in the order of their sequence."""
    asked: dict[str, Any] = {name: value for name in _CONDITIONS if (value := getattr(question, name)) is not None}
    conditions = "".join(f" AND {_CONDITIONS[name]}" for name in asked)
    order = "DESC" if newest_first else "ASC"
    sql = f"{_LINES}{conditions} ORDER BY e.sequence {order} LIMIT :size"
    rows = await run_sql(session, text(sql), {**asked, "tenant": tenant, "size": size})
    return [Link(**row) for row in rows.mappings()]


async def find_head(session: AsyncSession, tenant: str) -> Head:
    """Return where a tenant's trail ends; before its first event that is at 0."""
    sql = "SELECT tenant_id, sequence, hash FROM audit_head WHERE tenant_id = :tenant"
    row = (await run_sql(session, sql, {"tenant": tenant})).mappings().first()
    return Head(tenant_id=tenant, sequence=0, hash=bytes(32)) if row is None else Head(**row)


async def claim_request(session: AsyncSession, tenant: str, request_id: UUID, fingerprint: bytes) -> bytes | None:
    """Claim a request id for this transaction, or return what was answered to the same request before.

    Waits while another transaction has claimed the same id.

    Raises:
        RequestIdReused: the id was used within 24 hours for something else.
    """
    key = {"tenant": tenant, "request_id": request_id}
    if (await run_sql(session, _CLAIM, {**key, "fingerprint": fingerprint})).first() is not None:
        return None
    query = select(AdminRequestRow).where(AdminRequestRow.tenant_id == tenant, AdminRequestRow.request_id == request_id)
    answered = (await session.exec(query)).one()
    if answered.fingerprint != fingerprint:
        raise RequestIdReused(request_id=str(request_id))
    return answered.response


async def save_answer(session: AsyncSession, tenant: str, request_id: UUID, response: bytes) -> None:
    """Keep what a claimed request is answered with."""
    await run_sql(session, _ANSWER, {"tenant": tenant, "request_id": request_id, "response": response})


async def forget_old_requests(session: AsyncSession) -> None:
    """Drop request ids that are free again; the housekeeper calls it now and then."""
    await run_sql(session, "DELETE FROM admin_request WHERE created_at < now() - interval '24 hours'")
