"""The ledger as one process has it."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog

from tollhouse_server.background import Background
from tollhouse_server.errors import StoreUnavailable
from tollhouse_server.ledger import connections
from tollhouse_server.ledger.ledger import Ledger
from tollhouse_server.ledger.terms import SuspensePolicy
from tollhouse_server.ledger.tick import Tick
from tollhouse_server.ledger.workers import Liveness, WorkerEpoch
from tollhouse_server.settings import Settings
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.wiring.outside import required_dsn

if TYPE_CHECKING:
    from tollhouse_server.ledger.connections import Pool


_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerParts:
    """The ledger as one process has it."""

    pool: "Pool"
    tick: Tick
    epoch: WorkerEpoch
    ledger: Ledger

    def run_in(self, tasks: Background) -> None:
        """Start the tick and the heartbeats."""
        tasks.keep(self.tick.run)
        tasks.keep(self.epoch.run)

    async def say_goodbye(self) -> None:
        """Wait until every settlement is durable, and retire; the pool is of no use after it."""
        await self.ledger.drain()
        connections.hurry(self.pool)
        try:
            async with asyncio.timeout(connections.GOODBYE_SECONDS):
                await self.epoch.retire()
        except (StoreUnavailable, TimeoutError) as error:
            # The sweeper finds out by the silence.
            _log.warning("not_retired", detail=type(error).__name__)


async def open_ledger(settings: Settings, stack: AsyncExitStack, metrics: Metrics) -> LedgerParts:
    """Open the ledger; its tasks must have ended when the stack unwinds: a pool waits for those who still use it."""
    dsn = required_dsn(settings)
    pool = await connections.create_pool(dsn)
    stack.push_async_callback(connections.close_pool, pool)
    epoch = WorkerEpoch(pool, liveness(settings))
    await epoch.register()
    tick = Tick(partial(connections.connect, dsn), lambda: epoch.current, metrics)
    return LedgerParts(pool=pool, tick=tick, epoch=epoch, ledger=Ledger(tick, suspense_policy(settings)))


def liveness(settings: Settings) -> Liveness:
    """Return when a process counts as dead."""
    return Liveness(dead_after_seconds=settings.worker_dead_after_seconds)


def suspense_policy(settings: Settings) -> SuspensePolicy:
    """Return at what attempts of unknown outcome are booked."""
    return SuspensePolicy(settings.suspense_policy.upper())
