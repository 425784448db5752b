"""The end of a tenant: deleted, perhaps undeleted, purged when its time has come."""

from datetime import datetime, timedelta
from typing import Final

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.errors import WrongState
from tollhouse_server.names import TenantName
from tollhouse_server.tenancy.store import read_clock
from tollhouse_server.tenancy.tables import TenantRow

DEFAULT_RETENTION_DAYS: Final = 30


async def deletion(session: AsyncSession, row: TenantRow, *, retention_days: int) -> dict[str, object]:
    """Return what changes when a locked tenant is deleted; it can be undeleted for `retention_days`."""
    now = (await read_clock(session, row.tenant_id)).now
    purge_at = now + timedelta(days=retention_days)
    return {"state": "DELETED", "deleted_at": now, "purge_at": purge_at, "state_before": row.state}


async def undeletion(session: AsyncSession, row: TenantRow) -> dict[str, object]:
    """Return what changes when a locked tenant is undeleted: it is again what it was.

    Raises:
        WrongState: it is not deleted, or its time has passed; then it may be purged at any moment.
    """
    now = (await read_clock(session, row.tenant_id)).now
    if row.state != "DELETED" or is_due(row, now):
        state = "about to be purged" if row.state == "DELETED" else row.state
        raise WrongState(name=str(TenantName(row.tenant_id)), state=state, needed="DELETED, before its purge time,")
    return {"state": row.state_before, "deleted_at": None, "purge_at": None, "state_before": None}


def is_due(row: TenantRow, now: datetime) -> bool:
    """Tell whether the time has come from which on a deleted tenant cannot be undeleted."""
    return row.purge_at is not None and row.purge_at <= now
