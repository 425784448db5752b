"""What the housekeeper does for kept content: deletes what is outdated, and ends destructions that were interrupted."""

import asyncio
from typing import Final

import structlog

from tollhouse_server.content.store import delete_outdated
from tollhouse_server.database.engine import Database
from tollhouse_server.database.rounds import in_rounds
from tollhouse_server.errors import TollhouseError
from tollhouse_server.vault.tenant_keys import TenantKeys

_ROUND_SECONDS: Final = 60.0
_BATCH: Final = 500
_BETWEEN_BATCHES_SECONDS: Final = 0.05

_log = structlog.get_logger(__name__)


class ContentChores:
    """Keeps retention, in batches that stand in nobody's way. Several at once do no harm."""

    def __init__(self, database: Database, keys: TenantKeys) -> None:
        self._database = database
        self._keys = keys

    async def run(self) -> None:
        """Look every minute, for ever; an outage only postpones it."""
        await in_rounds(self._round, "kept content", pause_seconds=_ROUND_SECONDS)

    async def _round(self) -> None:
        await self.sweep()
        try:
            await self._keys.finish_destructions()
        except TollhouseError as error:
            _log.warning("work_postponed", work="destroyed keys of tenants", detail=error.reason)

    async def sweep(self) -> int:
        """Delete all that is outdated; return of how many calls.

        Raises:
            StoreUnavailable: PostgreSQL is gone; what was deleted is gone.
        """
        deleted = 0
        while True:
            async with self._database.transaction() as session:
                found = await delete_outdated(session, size=_BATCH)
            deleted += found
            if not found:
                return deleted
            await asyncio.sleep(_BETWEEN_BATCHES_SECONDS)
