"""SQL of a purge: what is left of a tenant when its time has come.

What other rooms keep of its people is removed here all the same, although they lie above this room, so that one
transaction ends it all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.rows import change, run_sql
from tollhouse_server.names import TenantName
from tollhouse_server.tenancy.lives import is_due
from tollhouse_server.tenancy.store import get_tenant, read_clock
from tollhouse_server.tenancy.tables import TenantRow

_MOST: Final = 100
"""Tenants taken at a time; the rest wait for the next round."""

_BLANK: Final = """
UPDATE principal SET display_name = '', email = '', issuer = '', subject = '',
    version = version + 1, updated_at = clock_timestamp()
WHERE tenant_id = :tenant
"""

# Addresses of people, also in what mail servers have answered; nothing goes out to them any more.
_FORGET_RECIPIENTS: Final = """
UPDATE delivery_schedule SET recipients = '{}', ended_at = coalesce(ended_at, clock_timestamp()),
    version = version + 1, updated_at = clock_timestamp()
WHERE tenant_id = :tenant
"""
_FORGET_DELIVERIES: Final = """
UPDATE delivery SET state = CASE state WHEN 'PENDING' THEN 'FAILED' ELSE state END,
    fault = '', refused = '', recipients_left = '{}', version = version + 1, updated_at = clock_timestamp()
WHERE tenant_id = :tenant AND (state = 'PENDING' OR fault <> '' OR refused <> '')
"""

# In an order in which nothing refers to what is gone.
_CREDENTIALS: Final = ("client_identity", "identity_provider", "api_key")
_RIGHTS: Final = ("role_grant", "group_member")


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged:
    """How many records a purge has blanked or removed."""

    principals: int
    credentials: int
    rights: int


async def due_tenants(session: AsyncSession) -> Sequence[str]:
    """Return deleted tenants whose time has come by the database's clock, the longest overdue first."""
    now = (await run_sql(session, "SELECT clock_timestamp()")).scalar_one()
    due = select(TenantRow.tenant_id).where(TenantRow.state == "DELETED", col(TenantRow.purge_at) <= now)
    return (await session.exec(due.order_by(col(TenantRow.purge_at)).limit(_MOST))).all()


async def lock_due(session: AsyncSession, tenant: str) -> TenantRow | None:
    """Return a tenant that is still to be purged, locked; None if somebody has undeleted or purged it meanwhile."""
    row = await get_tenant(session, TenantName(tenant), lock=True)
    now = (await read_clock(session, tenant)).now
    return row if row.state == "DELETED" and is_due(row, now) else None


async def purge(session: AsyncSession, row: TenantRow) -> Purged:
    """Blank the names and addresses of a locked tenant's people, remove credentials and rights, and end it for good."""
    whose = {"tenant": row.tenant_id}
    principals = (await run_sql(session, _BLANK, whose)).rowcount
    credentials = sum([await _remove(session, table, row.tenant_id) for table in _CREDENTIALS])
    rights = sum([await _remove(session, table, row.tenant_id) for table in _RIGHTS])
    for forget in (_FORGET_RECIPIENTS, _FORGET_DELIVERIES):
        await run_sql(session, forget, whose)
    await change(session, row, state="PURGED", purge_at=None, state_before=None)
    return Purged(principals=principals, credentials=credentials, rights=rights)


async def _remove(session: AsyncSession, table: str, tenant: str) -> int:
    removed = await run_sql(session, f"DELETE FROM {table} WHERE tenant_id = :tenant", {"tenant": tenant})  # noqa: S608
    return removed.rowcount
