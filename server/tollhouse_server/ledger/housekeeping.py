"""The ledger's chores, done by one process for all: partitions ahead, what nobody needs any more out, gauges."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
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
                if time.monotonic() - upkeep_at > _UPKEEP_SECONDS and await self.clean():
                    upkeep_at = time.monotonic()
                await self._do("count what is open", self._count_open)
            except StoreUnavailable as error:
                _log.warning("housekeeping_postponed", detail=error.detail)
            await asyncio.sleep(_GAUGE_SECONDS)

    async def clean(self) -> bool:
        """Do each chore once; False when a table was in use, so that one of them should soon be tried again.

        Raises:
            StoreUnavailable: PostgreSQL is gone; what was done stays.
        """
        chores: dict[str, Callable[[], Awaitable[None]]] = {
            "usage partitions": partial(upkeep_store.create_usage_partitions, self._pool),
            "request partitions": partial(upkeep_store.create_request_partitions, self._pool),
            "missing partitions": self._tell_missing_partitions,
            "old request ids": self._forget_old_requests,
            "dead workers": partial(upkeep_store.forget_dead_workers, self._pool),
            "counters": self._forget_all_counters,
            "alerts": self._forget_alerts,
        }
        return all([await self._do(name, chore) for name, chore in chores.items()])

    async def _do(self, name: str, chore: Callable[[], Awaitable[None]]) -> bool:
        """Do one chore. What PostgreSQL refuses must not stop the others, nor the sweeper in the same process."""
        try:
            with store_errors():
                await chore()
        except asyncpg.LockNotAvailableError:
            _log.warning("chore_postponed", chore=name, detail="a table is in use")
            return False
        except asyncpg.PostgresError as error:
            _log.exception("chore_failed", chore=name, error=type(error).__name__)
        return True

    async def _count_open(self) -> None:
        in_flight, suspense = await upkeep_store.count_open(self._pool)
        self._metrics.ledger_attempts(in_flight=in_flight, suspense=suspense)

    async def _tell_missing_partitions(self) -> None:
        if missing := await upkeep_store.missing_partitions(self._pool):
            _log.warning("partitions_not_made", missing=missing, detail="their rows stand in the default partition")

    async def _forget_old_requests(self) -> None:
        if days := await upkeep_store.forget_old_requests(self._pool):
            _log.info("request_ids_forgotten", days=days)

    async def _forget_all_counters(self) -> None:
        if counters := sum([await self._forget_counters(kept) for kept in KEPT_COUNTERS]):
            _log.info("counters_forgotten", count=counters)

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

    async def _forget_alerts(self) -> None:
        forgotten = 0
        while done := await upkeep_store.forget_alerts(self._pool, at_most=BATCH_ROWS):
            forgotten += done
            await asyncio.sleep(_PAUSE_SECONDS)
        if forgotten:
            _log.info("alerts_forgotten", count=forgotten)
