"""The tick: one ledger transaction at a time; everything that queues meanwhile goes into the next one.

Under low load a tick is one quick commit; under high load the batch grows and the cost per call falls. Nothing waits
on purpose: batches form by themselves while the previous commit runs.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

import asyncpg
import structlog

from tollhouse_server.database.engine import store_errors
from tollhouse_server.errors import StoreUnavailable
from tollhouse_server.ledger.memory import Memory
from tollhouse_server.ledger.terms import NOT_SENT, Reservation, Settlement
from tollhouse_server.ledger.transaction import StaleMemoryError, TickTransaction
from tollhouse_server.ledger.works import Batch, ReserveWork, SettleWork, TopUpWork

if TYPE_CHECKING:
    from tollhouse_server.ledger.store import Connection

_log = structlog.get_logger(__name__)

_MAX_BATCH = 512
"""Works per tick: bounds the time for which its counters stay locked (some 10 ms)."""

LANES = 2
"""Ticks of one process under way at the same time: while one waits for PostgreSQL, another reckons."""

_WORTH_SHARING = 48
"""Works that one lane takes alone: a tick has a price of its own, whatever it carries."""

_RETRY_AT_ONCE = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
_TRIES_AT_ONCE = 3
_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 1.0
_GOODBYE_SECONDS = 2.0

_KNOWN_STATE = (asyncpg.PostgresError, StaleMemoryError)


class TickObserver(Protocol):
    """Is told of each tick; telemetry implements it."""

    def tick_finished(self, *, seconds: float, works: int) -> None:
        """One transaction was committed."""

    def tick_failed(self, *, cause: str) -> None:
        """One transaction failed and will be tried again."""


class Tick:
    """The queue of one process and the loop that empties it. `run()` must be owned by a task group."""

    def __init__(
        self,
        connect: Callable[[], Awaitable["Connection"]],
        worker_epoch: Callable[[], int],
        observer: TickObserver,
        *,
        lanes: int = LANES,
    ) -> None:
        self._connect = connect
        self._worker_epoch = worker_epoch
        self._observer = observer
        self._lanes = lanes
        self._queue = Batch()
        self._wake = asyncio.Event()
        self.memory = Memory()
        self._unbooked = 0
        self._all_booked = asyncio.Event()
        self._all_booked.set()

    @property
    def queued(self) -> int:
        """Return how many works wait for the next tick."""
        return len(self._queue)

    def submit_reserve(self, work: ReserveWork) -> None:
        """Queue a reservation; its verdict comes after a commit."""
        self._queue.reserves.append(work)
        self._wake.set()

    def submit_top_up(self, work: TopUpWork) -> None:
        """Queue a top-up; its verdict comes after a commit."""
        self._queue.top_ups.append(work)
        self._wake.set()

    def submit_settle(self, reservation: Reservation, settlement: Settlement) -> asyncio.Future[datetime]:
        """Queue a settlement. It stays queued through any outage until it is durable, even if nobody waits for it."""
        booked: asyncio.Future[datetime] = asyncio.get_running_loop().create_future()
        self._queue.settles.append(SettleWork(reservation=reservation, settlement=settlement, booked=booked))
        self._unbooked += 1
        self._all_booked.clear()
        self._wake.set()
        return booked

    async def drain(self) -> None:
        """Wait until every settlement that was queued is durable."""
        await self._all_booked.wait()

    async def run(self) -> None:
        """Run ticks for ever, through outages of the database."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._lanes):
                group.create_task(self._run_lane(Lane(self._connect)))

    async def _run_lane(self, lane: "Lane") -> None:
        pause_seconds = 0.0
        async with lane:
            while True:
                await self._wake.wait()
                batch = self._take()
                try:
                    await self._run_batch(lane, batch)
                    pause_seconds = 0.0
                except StoreUnavailable as error:
                    self._queue.put_back(batch)
                    self._wake.set()
                    self._observer.tick_failed(cause=error.detail)
                    pause_seconds = min(_LONGEST_PAUSE_SECONDS, pause_seconds * 2 or _FIRST_PAUSE_SECONDS)
                    # Many processes lose the database at the same moment; they must not all come back at the same one.
                    await asyncio.sleep(pause_seconds * (0.5 + random.random()))  # noqa: S311 - no secret depends on it

    def _take(self) -> Batch:
        """Take what one lane should carry: a share of a long queue, so that the others have something to do."""
        share = -(-len(self._queue) // self._lanes)
        batch = self._queue.take(min(_MAX_BATCH, max(_WORTH_SHARING, share)))
        if not len(self._queue):
            self._wake.clear()
        return batch

    async def _run_batch(self, lane: "Lane", batch: Batch) -> None:
        if not len(batch):
            return
        try:
            await self._commit(lane, batch)
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - whoever waits for the work is told
            # One work that cannot be written must not take the others with it.
            if len(batch) > 1:
                for single in batch.singles():
                    await self._run_batch(lane, single)
                return
            await self._give_up(lane, batch, error)

    async def _give_up(self, lane: "Lane", batch: Batch, error: Exception) -> None:
        _log.exception("tick_work_impossible", error=type(error).__name__)
        for reserve in batch.reserves:
            reserve.fail(error)
        for top_up in batch.top_ups:
            top_up.fail(error)
        for settle in batch.settles:
            await self._book_bare(lane, settle, error)

    async def _book_bare(self, lane: "Lane", work: SettleWork, error: Exception) -> None:
        """Book a settlement without its texts, which PostgreSQL refuses: the charge must not be lost with them."""
        bare = work.settlement.without_texts()
        if bare == work.settlement:
            work.fail(error)
            self._note_booked(1)
            return
        work.settlement = bare
        await self._run_batch(lane, Batch(settles=[work]))

    async def _commit(self, lane: "Lane", batch: Batch) -> None:
        """Carry a batch through, again at once where another tick was in the way or memory was out of date."""
        for _ in range(_TRIES_AT_ONCE):
            try:
                return await self._commit_once(lane, batch)
            except StaleMemoryError:
                continue
            except _RETRY_AT_ONCE as error:
                self._observer.tick_failed(cause=type(error).__name__)
        return await self._commit_once(lane, batch)

    async def _commit_once(self, lane: "Lane", batch: Batch) -> None:
        started_at = time.perf_counter()
        with store_errors():
            connection = await lane.connected()
            transaction = TickTransaction(connection, self.memory, self._worker_epoch())
            try:
                await transaction.run(batch)
            except BaseException as error:
                # Only what the server itself has answered leaves the connection in a known state.
                if not isinstance(error, _KNOWN_STATE) or isinstance(error, asyncpg.PostgresConnectionError):
                    lane.drop()
                raise
        for reservation in transaction.for_nobody:
            self.submit_settle(reservation, NOT_SENT)
        self._note_booked(len(batch.settles))
        self._observer.tick_finished(seconds=time.perf_counter() - started_at, works=len(batch))

    def _note_booked(self, count: int) -> None:
        self._unbooked -= count
        if self._unbooked == 0:
            self._all_booked.set()


class Lane:
    """One connection that carries one tick at a time. As a context manager it closes what it opened."""

    def __init__(self, connect: Callable[[], Awaitable["Connection"]]) -> None:
        self._connect = connect
        self._connection: Connection | None = None

    async def connected(self) -> "Connection":
        """Return the connection, opened again where it was lost.

        Raises:
            OSError, TimeoutError, asyncpg.PostgresError: the server cannot be reached or refuses.
        """
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._connect()
        return self._connection

    def drop(self) -> None:
        """End the connection at once: nobody knows what state it is in."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def __aenter__(self) -> "Lane":
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._connection is None or self._connection.is_closed():
            return
        try:
            await self._connection.close(timeout=_GOODBYE_SECONDS)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self.drop()
