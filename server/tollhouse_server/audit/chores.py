"""What the housekeeper does for the trail: signs it, anchors it, and drops what has had its time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy.exc import DBAPIError

from tollhouse_server.audit import checkpoint_store
from tollhouse_server.audit.anchor import Anchor, AnchorContradicted, AnchorUnusable
from tollhouse_server.audit.checkpoints import Checkpoints
from tollhouse_server.audit.retention import Retention
from tollhouse_server.database.engine import Database
from tollhouse_server.errors import StoreUnavailable, TollhouseError
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.vault.signing import SigningKey

_log = structlog.get_logger(__name__)

_LOOK_SECONDS: Final = 5.0
_RETENTION_SECONDS: Final = 3600.0
_PAGE: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Cadence:
    """When a checkpoint is due: after so many events or, if there is any, after so long."""

    events: int
    seconds: float


class AuditChores:
    """Looks every few seconds, for ever. Several at once do no harm, and each keeps an anchor of its own."""

    def __init__(
        self, database: Database, *, key: SigningKey, anchor: Anchor, cadence: Cadence, months: int, metrics: Metrics
    ) -> None:
        self._database = database
        self._key = key
        self._anchor = anchor
        self._cadence = cadence
        self._metrics = metrics
        self._checkpoints = Checkpoints(database, key, metrics)
        self._retention = Retention(database, self._checkpoints, months=months)
        self._signed_at = float("-inf")
        self._cut_at = float("-inf")
        self._is_anchored = False

    async def run(self) -> None:
        """Sign, anchor and drop for ever; what fails is counted, and tried again at the next look."""
        while True:
            # A trail that cannot be signed is anchored as far as it is signed, and so on.
            for work in (self.sign_due, self.anchor_new, self.drop_due):
                await self._tried(work)
            await asyncio.sleep(min(_LOOK_SECONDS, self._cadence.seconds))

    async def _tried(self, work: Callable[[], Awaitable[object]]) -> None:
        try:
            await work()
        except (StoreUnavailable, DBAPIError) as error:
            self._failed("store", error)
        except (AnchorUnusable, AnchorContradicted) as error:
            self._failed("anchor", error)
        except TollhouseError as error:
            self._failed("vault", error)

    def _failed(self, cause: str, error: Exception) -> None:
        self._metrics.audit_failed(cause=cause)
        _log.error("audit_chore_failed", cause=cause, error=type(error).__name__, detail=str(error)[:300])

    async def sign_due(self) -> int:
        """Sign what has moved, if it is time; return how many trails were signed.

        Raises:
            StoreUnavailable: PostgreSQL is gone.
            VaultUnavailable, VaultDenied, SecretMissing: it cannot be signed now.
        """
        async with self._database.transaction() as session:
            events, oldest_seconds = await checkpoint_store.unsigned(session)
        self._metrics.audit_unsigned(oldest_seconds=oldest_seconds)
        waited = time.monotonic() - self._signed_at
        if events < self._cadence.events and waited < self._cadence.seconds:
            return 0
        # Also when nothing is unsigned: a trail that was cut off is seen by its head.
        signed = await self._checkpoints.sign_moved()
        self._signed_at = time.monotonic()
        return signed

    async def anchor_new(self) -> int:
        """Write to the anchor what it lacks of the checkpoints; return how many trails have gone on.

        Raises:
            StoreUnavailable: PostgreSQL is gone.
            AnchorUnusable: the directory, or a file in it, cannot be used.
            AnchorContradicted: the database has other checkpoints than the anchor, or none.

            Both are raised when all other trails are written.
        """
        self._is_anchored = False
        anchored = await asyncio.to_thread(self._anchor.trails)
        async with self._database.transaction() as session:
            newest = await checkpoint_store.newest_numbers(session)
        moved, failure = 0, None
        for tenant in sorted(anchored | newest.keys()):
            try:
                moved += await self._anchor_trail(tenant, newest.get(tenant, 0))
            except (AnchorContradicted, AnchorUnusable) as error:
                failure = error
        if failure is not None:
            raise failure
        await asyncio.to_thread(self._anchor.write_keys, self._key.name, await self._key.public_keys())
        self._is_anchored = True
        self._metrics.audit_anchored(at_seconds=time.time())
        return moved

    async def _anchor_trail(self, tenant: str, number: int) -> bool:
        end = await asyncio.to_thread(self._anchor.end_of, tenant)
        if number < end:
            raise AnchorContradicted(f"{tenant} has {number} checkpoints, its anchor {end}")
        started_at = end
        while end < number:
            async with self._database.transaction() as session:
                rows = await checkpoint_store.list_checkpoints(session, tenant, after=end, size=_PAGE)
            if not rows:
                raise AnchorContradicted(f"checkpoint {end + 1} of {tenant} is missing")
            await asyncio.to_thread(self._anchor.append, tenant, rows)
            end = rows[-1].number
        return end > started_at

    async def drop_due(self) -> None:
        """Drop what retention lets go, every hour.

        Raises:
            StoreUnavailable: PostgreSQL is gone.
            VaultUnavailable, VaultDenied, SecretMissing: the new beginning cannot be signed now.
        """
        if not self._is_anchored or time.monotonic() - self._cut_at < _RETENTION_SECONDS:
            return
        # First what was cut an hour ago, or before a crash: its new beginning is in the anchor.
        await self._retention.drop()
        await self._retention.cut()
        self._cut_at = time.monotonic()
