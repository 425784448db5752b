"""Worker epochs: each process of the server proves that it lives; what the dead left in flight goes to suspense."""

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from tollhouse_server.database.engine import store_errors
from tollhouse_server.errors import StoreUnavailable
from tollhouse_server.ledger import upkeep_store
from tollhouse_server.ledger.terms import SuspensePolicy, suspended
from tollhouse_server.ledger.tick import Tick

if TYPE_CHECKING:
    from tollhouse_server.ledger.connections import Pool
    from tollhouse_server.ledger.store import Connection

_log = structlog.get_logger(__name__)

_SWEEP_BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Liveness:
    """How workers prove that they live. The default silence is a third of the 60 s within which holds must be freed."""

    dead_after_seconds: float = 20.0

    @property
    def heartbeat_seconds(self) -> float:
        """Seconds between heartbeats: several may be late or lost before a worker counts as dead."""
        return self.dead_after_seconds / 6

    @property
    def sweep_seconds(self) -> float:
        """Seconds between two looks for the dead."""
        return self.dead_after_seconds / 4


class WorkerEpoch:
    """This process's row in `worker`. A process that was declared dead gets a new epoch and goes on."""

    def __init__(self, pool: "Pool", liveness: Liveness) -> None:
        self._pool = pool
        self._liveness = liveness
        self._epoch = 0

    @property
    def current(self) -> int:
        """Return the epoch that new attempts are written under."""
        return self._epoch

    async def register(self) -> None:
        """Take a new epoch.

        Raises:
            StoreUnavailable: PostgreSQL cannot be reached.
        """
        with store_errors():
            self._epoch = await upkeep_store.register_worker(self._pool)

    async def run(self) -> None:
        """Send heartbeats for ever."""
        while True:
            await asyncio.sleep(self._liveness.heartbeat_seconds)
            try:
                await self._beat()
            except StoreUnavailable as error:
                _log.warning("heartbeat_failed", detail=error.detail)

    async def _beat(self) -> None:
        with store_errors():
            is_alive = await upkeep_store.beat(self._pool, self._epoch)
        if not is_alive:
            _log.warning("declared_dead", worker_epoch=self._epoch)
            await self.register()

    async def retire(self) -> None:
        """Say goodbye after a drain, so that nobody waits for this process to be found dead."""
        with store_errors():
            await upkeep_store.retire_worker(self._pool, self._epoch)


class Sweeper:
    """Moves the attempts of dead workers to suspense. Every process may run it; one at a time does the work."""

    def __init__(
        self, pool: "Pool", tick: Tick, liveness: Liveness, policy: SuspensePolicy = SuspensePolicy.CEILING
    ) -> None:
        self._pool = pool
        self._tick = tick
        self._liveness = liveness
        self._policy = policy
        self._trusts_silence_from = float("-inf")

    async def run(self) -> None:
        """Sweep for ever."""
        self._wait_for_heartbeats()
        while True:
            try:
                await self.sweep()
            except StoreUnavailable as error:
                _log.warning("sweep_failed", detail=error.detail)
                self._wait_for_heartbeats()
            await asyncio.sleep(self._liveness.sweep_seconds)

    def _wait_for_heartbeats(self) -> None:
        """Take no silence for death until the living have had time to be heard: in an outage all were silent."""
        self._trusts_silence_from = time.monotonic() + 2 * self._liveness.heartbeat_seconds

    async def sweep(self) -> int:
        """Declare silent workers dead and suspend all that they left; return how many attempts that were."""
        with store_errors():
            async with upkeep_store.sweeping(self._pool) as connection:
                return 0 if connection is None else await self._sweep(connection)

    async def _sweep(self, connection: "Connection") -> int:
        if time.monotonic() >= self._trusts_silence_from:
            await upkeep_store.declare_dead(connection, self._liveness.dead_after_seconds)
        swept = 0
        failed = 0
        while not failed and (found := await upkeep_store.orphans(connection, at_most=_SWEEP_BATCH)):
            ends = await asyncio.gather(
                *(self._tick.submit_settle(orphan, suspended(orphan, policy=self._policy)) for orphan in found),
                # What cannot be booked in any way is logged by the tick; it must not end the care for the others.
                return_exceptions=True,
            )
            failed = sum(isinstance(end, BaseException) for end in ends)
            swept += len(found) - failed
        if swept:
            _log.warning("attempts_suspended", count=swept)
        return swept
