"""The ledger's chores, done by one process for all: partitions ahead, what nobody needs any more out, gauges."""

import asyncio
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import asyncpg
import structlog

from tollhouse_server.database.engine import store_errors
from tollhouse_server.errors import StoreUnavailable
from tollhouse_server.ledger import upkeep_store
from tollhouse_server.ledger.terms import Window
from tollhouse_server.ledger.upkeep_store import KeptCounters
from tollhouse_server.ledger.windows import TOTAL_START
from tollhouse_server.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from tollhouse_server.ledger.connections import Pool

_log = structlog.get_logger(__name__)

_GAUGE_SECONDS = 5.0
_UPKEEP_SECONDS = 3600.0

# TOTAL is not among them: it never ends. All are kept for longer than a call can run and a worker can be thought alive,
# so that no tick wants one of them any more; the longer ones because people look back at them.
KEPT_COUNTERS: Final = (
    KeptCounters(
        windows=(Window.MINUTE, Window.ROLLING_10_MINUTES), length=timedelta(minutes=11), kept_for=timedelta(hours=1)
    ),
    KeptCounters(windows=(Window.HOUR,), length=timedelta(hours=1), kept_for=timedelta(days=2)),
    KeptCounters(windows=(Window.DAY,), length=timedelta(hours=25), kept_for=timedelta(days=40)),
    KeptCounters(
        windows=(Window.MONTH, Window.FISCAL_MONTH), length=timedelta(days=32), kept_for=timedelta(days=13 * 31)
    ),
)
BATCH_ROWS = 500
_PAUSE_SECONDS = 0.02
# Rows that a tick had locked are met again when the next round begins this much before where the last one ended.
_OVERLAP = timedelta(days=1)
_FIRST_START: Final = TOTAL_START + timedelta(microseconds=1)


class Housekeeping:
    """Idempotent chores: several housekeepers do no harm, they only do the same twice."""

    def __init__(self, pool: "Pool", metrics: Metrics) -> None:
        self._pool = pool
        self._metrics = metrics
        # Where cleaning goes on: a housekeeper begins at the beginning, and from then on skips what is kept for longer.
        self._cleaned_until: dict[KeptCounters, datetime] = {}

    async def run(self) -> None:
        """Do the chores for ever; a database outage only postpones them."""
        upkeep_at = float("-inf")
        while True:
            try:
                with store_errors():
                    if time.monotonic() - upkeep_at > _UPKEEP_SECONDS:
                        await self.clean()
                        upkeep_at = time.monotonic()
                    in_flight, suspense = await upkeep_store.count_open(self._pool)
                self._metrics.ledger_attempts(in_flight=in_flight, suspense=suspense)
            except StoreUnavailable as error:
                _log.warning("housekeeping_postponed", detail=error.detail)
            except asyncpg.LockNotAvailableError:
                _log.warning("housekeeping_postponed", detail="a table is in use")
            await asyncio.sleep(_GAUGE_SECONDS)

    async def clean(self) -> None:
        """Do each chore once.

        Raises:
            OSError, asyncpg.PostgresError: PostgreSQL is gone, or a table is in use; what was done stays.
        """
        await upkeep_store.create_partitions(self._pool)
        days = await upkeep_store.forget_old_requests(self._pool)
        await upkeep_store.forget_dead_workers(self._pool)
        counters = sum([await self._forget_counters(kept) for kept in KEPT_COUNTERS])
        alerts = await self._forget_alerts()
        if days or counters or alerts:
            _log.info("ledger_cleaned", days_of_request_ids=days, counters=counters, alerts=alerts)

    async def _forget_counters(self, kept: KeptCounters) -> int:
        since = self._cleaned_until.get(kept, _FIRST_START)
        forgotten = 0
        while starts := await upkeep_store.forget_counters(self._pool, kept, since, at_most=BATCH_ROWS):
            forgotten += len(starts)
            since = starts[-1]
            # Ticks come first.
            await asyncio.sleep(_PAUSE_SECONDS)
        self._cleaned_until[kept] = max(_FIRST_START, since - _OVERLAP)
        return forgotten

    async def _forget_alerts(self) -> int:
        forgotten = 0
        while done := await upkeep_store.forget_alerts(self._pool, at_most=BATCH_ROWS):
            forgotten += done
            await asyncio.sleep(_PAUSE_SECONDS)
        return forgotten
