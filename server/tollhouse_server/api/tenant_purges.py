"""Purges of deleted tenants, made by the housekeeper when their time has come."""

import asyncio
from typing import Any, Final, Protocol

import structlog
from google.protobuf.json_format import MessageToDict
from sqlalchemy.exc import DBAPIError

from tollhouse_server.api.services.tenants_service import tenant_message
from tollhouse_server.audit.store import record
from tollhouse_server.audit.tables import AuditEventRow
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import Topic, bump
from tollhouse_server.errors import StoreUnavailable, TollhouseError
from tollhouse_server.tenancy import purge_store
from tollhouse_server.tenancy.purge_store import Purged
from tollhouse_server.tenancy.tables import TenantRow

_log = structlog.get_logger(__name__)

_ROUND_SECONDS: Final = 60.0


class KeyDestroyer(Protocol):
    """What is needed of the tenants' data keys: a destruction may be repeated."""

    async def destroy(self, tenant_id: str) -> None: ...


class TenantPurges:
    """Purges what is due. A purge that was interrupted anywhere is begun anew: each step may be repeated."""

    def __init__(self, database: Database, keys: KeyDestroyer) -> None:
        self._database = database
        self._keys = keys

    async def run(self) -> None:
        """Look every minute, for ever; an outage of the database or of Vault only postpones it."""
        while True:
            try:
                await self.purge_due()
            except StoreUnavailable as error:
                _log.warning("tenant_purges_postponed", detail=error.detail)
            await asyncio.sleep(_ROUND_SECONDS)

    async def purge_due(self) -> list[str]:
        """Purge every tenant whose time has come, and return their ids; what stands against one is logged.

        Raises:
            StoreUnavailable: PostgreSQL is gone.
        """
        async with self._database.transaction() as session:
            due = await purge_store.due_tenants(session)
        return [tenant for tenant in due if await self._purged(tenant)]

    async def _purged(self, tenant: str) -> bool:
        try:
            # First what cannot be taken back: a tenant that is PURGED has no key any more, whatever was interrupted.
            await self._keys.destroy(tenant)
            return await self._finish(tenant)
        except StoreUnavailable:
            raise
        except TollhouseError as error:
            _log.warning("tenant_purge_postponed", tenant=tenant, reason=error.message())
        except DBAPIError as error:
            # One tenant's broken row must not keep the others.
            _log.error("tenant_purge_failed", tenant=tenant, error=type(error.orig).__name__)
        return False

    async def _finish(self, tenant: str) -> bool:
        async with self._database.transaction() as session:
            row = await purge_store.lock_due(session, tenant)
            if row is None:
                return False
            before = MessageToDict(tenant_message(row))
            purged = await purge_store.purge(session, row)
            await record(session, _event(row, before, purged))
            for topic in (Topic.ACCESS, Topic.IDENTITY):
                await bump(session, topic)
        _log.info("tenant_purged", tenant=tenant, principals=purged.principals, credentials=purged.credentials)
        return True


def _event(row: TenantRow, before: dict[str, Any], purged: Purged) -> AuditEventRow:
    """Return the event of a purge: the end of the deletion, whoever asked for that."""
    counts = {
        "principalsBlanked": purged.principals,
        "credentialsRemoved": purged.credentials,
        "rightsRemoved": purged.rights,
    }
    return AuditEventRow(
        tenant_id=row.tenant_id,
        actor="housekeeper",
        credential_id="",
        method="tollhouse.admin.v1.TenantService.DeleteTenant",
        permission="",
        resource=f"tenants/{row.tenant_id}",
        before=before,
        after={**MessageToDict(tenant_message(row)), **counts},
        request_id="",
        correlation_id="",
    )
