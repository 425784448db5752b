"""The only SQL of audit. Every function works in the transaction of the act that it is about."""

from uuid import UUID

from sqlalchemy import text
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


async def record(session: AsyncSession, event: AuditEventRow) -> None:
    """Append an event to the trail."""
    session.add(event)
    await session.flush()


async def list_events(session: AsyncSession, tenant: str, *, after: int = 0, size: int = 100) -> list[AuditEventRow]:
    """Return up to `size` events of a tenant, the oldest first, after the id `after`."""
    query = select(AuditEventRow).where(AuditEventRow.tenant_id == tenant, col(AuditEventRow.event_id) > after)
    return list((await session.exec(query.order_by(col(AuditEventRow.event_id)).limit(size))).all())


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
