"""Retention: a trail begins later, at a checkpoint, and what lies before it goes.

First the new beginning is signed and stands in the trail; when it has had time to reach every anchor, the events go. So
whoever verifies the rest finds by what it is held at its beginning, and who must have known of it.
"""

from typing import Final

import structlog
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.audit import checkpoint_store, store
from tollhouse_server.audit.checkpoints import Checkpoints
from tollhouse_server.audit.tables import AuditEventRow
from tollhouse_server.database.engine import Database
from tollhouse_server.names import PLATFORM

_log = structlog.get_logger(__name__)

ACTOR: Final = "housekeeper"
_BATCH: Final = 5000


class Retention:
    """Drops events older than `months` whole months; 0 keeps everything."""

    def __init__(self, database: Database, checkpoints: Checkpoints, *, months: int) -> None:
        self._database = database
        self._checkpoints = checkpoints
        self._months = months

    async def cut(self) -> dict[str, int]:
        """Sign new beginnings of the trails that are old enough; return behind which sequence each begins now.

        Raises:
            StoreUnavailable: PostgreSQL is gone.
            VaultUnavailable, VaultDenied, SecretMissing: it cannot be signed now.
        """
        if not self._months:
            return {}
        async with self._database.transaction() as session:
            cuts = await checkpoint_store.find_cuts(session, months=self._months)
        done = {}
        for tenant, through in cuts.items():
            async with self._database.transaction() as session:
                if not await checkpoint_store.lead(session):
                    break
                await self._cut(session, tenant, through)
            done[tenant] = through
            _log.info("audit_cut", tenant=tenant, through=through)
        return done

    async def _cut(self, session: AsyncSession, tenant: str, through: int) -> None:
        await self._checkpoints.begin_later(session, tenant, through=through)
        event = AuditEventRow(
            tenant_id=tenant,
            actor=ACTOR,
            credential_id="",
            method="tollhouse.admin.v1.AuditService.DropAuditEvents",
            permission="",
            resource=PLATFORM if tenant == PLATFORM else f"tenants/{tenant}",
            before=None,
            after={"droppedThroughSequence": str(through), "olderThanMonths": self._months},
            request_id="",
            correlation_id="",
        )
        await store.record(session, event)

    async def drop(self) -> int:
        """Drop what lies before the beginnings that were signed; return how many events went.

        Raises:
            StoreUnavailable: PostgreSQL is gone; the rest goes at the next time.
        """
        if not self._months:
            return 0
        async with self._database.transaction() as session:
            tenants = await checkpoint_store.droppable_tenants(session)
        dropped = 0
        for tenant in tenants:
            while count := await self._drop_batch(tenant):
                dropped += count
        return dropped

    async def _drop_batch(self, tenant: str) -> int:
        async with self._database.transaction() as session:
            return await checkpoint_store.drop_events(session, tenant, months=self._months, size=_BATCH)
