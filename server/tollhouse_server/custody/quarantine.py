"""Keys that the upstream has refused: out of use here at once, and everywhere as soon as PostgreSQL has it."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy.exc import DBAPIError

from tollhouse_server.audit.store import record
from tollhouse_server.audit.tables import AuditEventRow
from tollhouse_server.custody import quarantine_store
from tollhouse_server.database.engine import Database
from tollhouse_server.errors import StoreUnavailable
from tollhouse_server.names import PLATFORM, UpstreamKeyName
from tollhouse_server.telemetry.metrics import Metrics

_log = structlog.get_logger(__name__)

_FOREVER: Final = float("inf")
_PROPAGATION_SECONDS: Final = 5.0
"""After it was written, every process of ours has read it; from then on the catalogue decides, so that a key which
was enabled again is used again."""
_FIRST_RETRY_SECONDS: Final = 0.5
_LONGEST_RETRY_SECONDS: Final = 10.0

ACTOR: Final = "worker"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refusal:
    account_id: str
    key_id: str
    fingerprint: str
    http_status: int


class Quarantine:
    """Takes refused keys out of use. `run` writes what `report` has heard; there is one entry per key at the most."""

    def __init__(self, database: Database, metrics: Metrics, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._metrics = metrics
        self._clock = clock
        self._out: dict[tuple[str, str], float] = {}
        self._unwritten: dict[tuple[str, str], _Refusal] = {}
        self._wanted = asyncio.Event()

    def is_out(self, account_id: str, key_id: str) -> bool:
        """Tell whether this process keeps off the key. One look into a dict that is almost always empty."""
        if not self._out:
            return False
        until = self._out.get((account_id, key_id))
        return until is not None and self._clock() < until

    def report(self, account_id: str, key_id: str, fingerprint: str, http_status: int) -> None:
        """Take a key out of use in this process now, and everywhere soon. Waits for nothing."""
        if self.is_out(account_id, key_id):
            return
        key = (account_id, key_id)
        self._out[key] = _FOREVER
        self._unwritten[key] = _Refusal(
            account_id=account_id, key_id=key_id, fingerprint=fingerprint, http_status=http_status
        )
        self._wanted.set()
        self._metrics.key_refused(account=account_id)
        _log.error("upstream_key_refused", account=account_id, upstream_key=key_id, http_status=http_status)

    async def run(self) -> None:
        """Write for ever; while the database is away, at a slowing pace, and the keys stay out of use here."""
        pause = _FIRST_RETRY_SECONDS
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await self.write()
                pause = _FIRST_RETRY_SECONDS
            except (StoreUnavailable, DBAPIError) as error:
                _log.warning("quarantine_not_written", keys=len(self._unwritten), error=type(error).__name__)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_RETRY_SECONDS)
                self._wanted.set()

    async def write(self) -> None:
        """Write every refusal that was reported.

        Raises:
            StoreUnavailable: PostgreSQL is gone; what is left is kept.
        """
        for key, refusal in list(self._unwritten.items()):
            quarantined = await self._write(refusal)
            del self._unwritten[key]
            self._out[key] = self._clock() + _PROPAGATION_SECONDS
            if quarantined:
                _log.error("upstream_key_quarantined", account=refusal.account_id, upstream_key=refusal.key_id)
        now = self._clock()
        self._out = {key: until for key, until in self._out.items() if until > now}

    async def _write(self, refusal: _Refusal) -> bool:
        """Quarantine the key if it still is what was refused: a newer secret of it was not."""
        async with self._database.transaction() as session:
            if not await quarantine_store.quarantine(
                session, refusal.account_id, refusal.key_id, fingerprint=refusal.fingerprint
            ):
                return False
            await record(session, _event(refusal))
            return True


def _event(refusal: _Refusal) -> AuditEventRow:
    return AuditEventRow(
        tenant_id=PLATFORM,
        actor=ACTOR,
        credential_id="",
        method="tollhouse.admin.v1.UpstreamKeyService.DisableUpstreamKey",
        permission="",
        resource=str(UpstreamKeyName(refusal.account_id, refusal.key_id)),
        before={"state": "STATE_ACTIVE"},
        after={"state": "STATE_QUARANTINED", "httpStatus": refusal.http_status, "fingerprint": refusal.fingerprint},
        request_id="",
        correlation_id="",
    )
