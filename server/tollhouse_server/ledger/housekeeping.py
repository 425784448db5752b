"""The ledger's chores, done by one process for all: partitions ahead, old request ids out, gauges."""

import asyncio
import time
from typing import TYPE_CHECKING

import structlog

from tollhouse_server.database.engine import store_errors
from tollhouse_server.errors import StoreUnavailable
from tollhouse_server.ledger import upkeep_store
from tollhouse_server.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from tollhouse_server.ledger.connections import Pool

_log = structlog.get_logger(__name__)

_GAUGE_SECONDS = 5.0
_UPKEEP_SECONDS = 3600.0


class Housekeeping:
    """Idempotent chores: several housekeepers do no harm, they only do the same twice."""

    def __init__(self, pool: "Pool", metrics: Metrics) -> None:
        self._pool = pool
        self._metrics = metrics

    async def run(self) -> None:
        """Do the chores for ever; a database outage only postpones them."""
        upkeep_at = float("-inf")
        while True:
            try:
                with store_errors():
                    if time.monotonic() - upkeep_at > _UPKEEP_SECONDS:
                        await upkeep_store.create_partitions(self._pool)
                        await upkeep_store.forget_old_requests(self._pool)
                        await upkeep_store.forget_dead_workers(self._pool)
                        upkeep_at = time.monotonic()
                    in_flight, suspense = await upkeep_store.count_open(self._pool)
                self._metrics.ledger_attempts(in_flight=in_flight, suspense=suspense)
            except StoreUnavailable as error:
                _log.warning("housekeeping_postponed", detail=error.detail)
            await asyncio.sleep(_GAUGE_SECONDS)
