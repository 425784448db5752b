"""The tick: one ledger transaction for what has queued, two at most at a time; what comes meanwhile waits for the next.

Under low load a tick is one quick commit; under high load the batch grows and the cost per call falls. Batches form by
themselves while the previous commit runs, and while the event loop is too busy to do anything at once.
"""

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

import asyncpg
import structlog

from tollhouse_server.background import keep
from tollhouse_server.database.engine import store_errors
from tollhouse_server.errors import StoreUnavailable
from tollhouse_server.ledger.lane import Lane, LostSessions
from tollhouse_server.ledger.memory import Memory
from tollhouse_server.ledger.store import PlanFailedError
from tollhouse_server.ledger.terms import NOT_SENT, RecordKind, Reservation, Settlement, suspended
from tollhouse_server.ledger.transaction import StaleMemoryError, TickTransaction
from tollhouse_server.ledger.works import Batch, ReserveWork, SettleWork, TopUpWork

if TYPE_CHECKING:
    from tollhouse_server.ledger.store import Connection

_log = structlog.get_logger(__name__)

_MAX_BATCH = 512
"""Works per tick: bounds the time for which its counters stay locked (some 10 ms)."""

LANES = 2
"""Ticks of one process under way at the same time: one is decided here while PostgreSQL writes the other."""

_WORTH_SHARING = 128
"""Works that one lane takes alone: a tick has a price of its own, whatever it carries. So the second lane works only
under high load, when it makes a quarter more calls a second (docs/decisions/0015)."""

_SLOW_SECONDS = 0.025
"""A lane that is busy for so long is no reason for the other one to wait: its connection may hang."""

_BUSY_TURN_SECONDS = 0.00001
"""A turn of the event loop that does nothing takes 2 us: one that takes longer has served somebody, and the works of
those whom it served come next."""

_LONGEST_GATHERING_SECONDS = 0.006
"""What a tick waits for them at most. With 10 ms callers of a worker that is half busy would wait 3 ms longer
(docs/decisions/0015)."""

_WORTH_A_TICK = 16
"""Works for which a tick waits no longer. Callers of one tick are sent on, and so answered, together: the more works it
waits for, the more they move in waves (docs/decisions/0015)."""

_RETRY_AT_ONCE = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    # A commit in doubt has happened after all, or another tick has claimed a request id: the next try sees it.
    asyncpg.UniqueViolationError,
)
_TRIES_AT_ONCE = 3
_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 1.0

_CAUSED_BY_DATA = frozenset({"22", "23", "54", "P0"})
"""Classes of SQLSTATE: wrong data, broken constraints, too much of something, and what a trigger raises."""

_KNOWN_STATE = (asyncpg.PostgresError, StaleMemoryError)


class TickObserver(Protocol):
    """Is told of each tick; telemetry implements it."""

    def tick_finished(self, *, seconds: float, works: int) -> None:
        """One transaction was committed."""

    def tick_failed(self, *, cause: str) -> None:
        """One transaction failed and is tried again; "PlanFailedError": it looks first now, which is no trouble."""


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
        self._lost = LostSessions()
        self._queue = Batch()
        self._wake = asyncio.Event()
        self.memory = Memory()
        self._busy_lanes = 0
        self._slow_lanes = set[Lane]()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def queued(self) -> int:
        """Return how many works wait for the next tick."""
        return len(self._queue)

    def submit_reserve(self, work: ReserveWork) -> None:
        """Queue a reservation; its verdict comes after a commit."""
        self._queue.reserves.append(work)
        self._wake_up()

    def submit_top_up(self, work: TopUpWork) -> None:
        """Queue a top-up; its verdict comes after a commit."""
        self._queue.top_ups.append(work)
        self._wake_up()

    def submit_settle(self, reservation: Reservation, settlement: Settlement) -> asyncio.Future[datetime]:
        """Queue a settlement. It stays queued through any outage until it is durable, even if nobody waits for it."""
        booked: asyncio.Future[datetime] = asyncio.get_running_loop().create_future()
        self._queue.settles.append(SettleWork(reservation=reservation, settlement=settlement, booked=booked))
        self._wake_up()
        return booked

    def _wake_up(self) -> None:
        self._idle.clear()
        if self._wants_lane:
            self._wake.set()

    @property
    def _wants_lane(self) -> bool:
        """Tell whether a lane more should carry what is queued, or the next tick of one that is busy."""
        return len(self._queue) > (_WORTH_SHARING if self._busy_lanes > len(self._slow_lanes) else 0)

    def _note_slow(self, lane: Lane) -> None:
        """Let the other lane go on beside one whose connection may hang."""
        self._slow_lanes.add(lane)
        self._wake.set()

    async def drain(self) -> None:
        """Wait until nothing is queued or under way: every settlement durable, every admission taken or given back."""
        await self._idle.wait()

    async def run(self) -> None:
        """Run ticks for ever, through outages of the database."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._lanes):
                group.create_task(keep(self._run_lane))

    async def _run_lane(self) -> None:
        pause_seconds = 0.0
        async with Lane(self._connect, self._lost) as lane:
            while True:
                await self._turn()
                try:
                    await self._carry(lane)
                    pause_seconds = 0.0
                except StoreUnavailable as error:
                    self._observer.tick_failed(cause=error.detail)
                    pause_seconds = min(_LONGEST_PAUSE_SECONDS, pause_seconds * 2 or _FIRST_PAUSE_SECONDS)
                    # Many processes lose the database at the same moment; they must not all come back at the same one.
                    await asyncio.sleep(pause_seconds * (0.5 + random.random()))  # noqa: S311 - no secret depends on it

    async def _turn(self) -> None:
        """Wait until a lane is wanted: all lanes hear of it, and the first one goes."""
        while not self._wants_lane:
            self._wake.clear()
            await self._wake.wait()

    def _take(self) -> Batch:
        """Take what one lane should carry: a share of a long queue, so that the others have something to do."""
        share = -(-len(self._queue) // self._lanes)
        return self._queue.take(min(_MAX_BATCH, max(_WORTH_SHARING, share)))

    async def _gather(self) -> None:
        """Let a busy event loop go on until enough has queued; where it is idle this is one turn of it."""
        began_at = now = time.perf_counter()
        turn_seconds = math.inf
        while turn_seconds > _BUSY_TURN_SECONDS and now - began_at < _LONGEST_GATHERING_SECONDS:
            await asyncio.sleep(0)
            if len(self._queue) >= _WORTH_A_TICK:
                return
            turned_at = time.perf_counter()
            turn_seconds, now = turned_at - now, turned_at

    async def _carry(self, lane: Lane) -> None:
        """Carry a share of the queue to its end, if need be in parts.

        Raises:
            StoreUnavailable: not all of it is done; the rest is queued again.
        """
        undone = deque[Batch]()
        self._busy_lanes += 1
        slow = asyncio.get_running_loop().call_later(_SLOW_SECONDS, self._note_slow, lane)
        try:
            await self._gather()
            undone.append(self._take())
            while undone:
                await self._carry_first(lane, undone)
        finally:
            # After a cancellation too: a settlement that nobody queues any more would never be booked.
            for part in reversed(undone):
                self._queue.put_back(part)
            slow.cancel()
            self._slow_lanes.discard(lane)
            self._busy_lanes -= 1
            if len(self._queue):
                self._wake.set()
            elif not self._busy_lanes:
                self._idle.set()

    async def _carry_first(self, lane: Lane, undone: deque[Batch]) -> None:
        """Commit the first of the parts, or put smaller parts in its place."""
        batch = undone[0]
        try:
            if len(batch):
                await self._commit(lane, batch)
        except StoreUnavailable:
            raise
        except StaleMemoryError as error:
            # Limits change faster than a tick reads them. What ends needs none of them.
            if not batch.settles or len(batch) == len(batch.settles):
                raise StoreUnavailable(detail="limits or counters change faster than they are read") from error
            parts = [Batch(settles=batch.settles), Batch(reserves=batch.reserves, top_ups=batch.top_ups)]
        except Exception as error:
            if not _is_a_works_own(error):
                raise StoreUnavailable(detail=type(error).__name__) from error
            # One work that cannot be written must not take the others with it.
            parts = batch.singles() if len(batch) > 1 else _given_up(batch, error)
        else:
            parts = []
        undone.popleft()
        undone.extendleft(reversed(parts))

    async def _commit(self, lane: Lane, batch: Batch) -> None:
        """Carry a batch through, again at once where another tick was in the way or memory was out of date."""
        for _ in range(_TRIES_AT_ONCE):
            try:
                return await self._commit_once(lane, batch)
            except StaleMemoryError:
                continue
            except _RETRY_AT_ONCE as error:
                self._observer.tick_failed(cause=type(error).__name__)
        return await self._commit_once(lane, batch)

    async def _commit_once(self, lane: Lane, batch: Batch) -> None:
        started_at = time.perf_counter()
        with store_errors():
            if not lane.is_connected:
                # It may be another primary soon, whose past is not quite what this process remembers.
                self.memory.forget_database()
            connection = await lane.connected()
            if any(work.uncertain for work in batch.reserves):
                await self._lost.end(connection)
            transaction = TickTransaction(connection, self.memory, self._worker_epoch(), batch)
            try:
                for_nobody = await transaction.run()
            except BaseException as error:
                # Only what the server itself has answered leaves the connection in a known state.
                if not isinstance(error, _KNOWN_STATE) or isinstance(error, asyncpg.PostgresConnectionError):
                    lane.drop()
                raise
            finally:
                if transaction.plan_failed:
                    self._observer.tick_failed(cause=PlanFailedError.__name__)
        for reservation in for_nobody:
            self.submit_settle(reservation, NOT_SENT)
        self._observer.tick_finished(seconds=time.perf_counter() - started_at, works=len(batch))


def _is_a_works_own(error: Exception) -> bool:
    """Tell whether a work can have caused an error by what it carries; all else is trouble of the store."""
    return not isinstance(error, asyncpg.PostgresError) or (error.sqlstate or "")[:2] in _CAUSED_BY_DATA


def _given_up(batch: Batch, error: Exception) -> list[Batch]:
    """Tell whoever waits that the one work of a batch cannot be written; return what to try in its place."""
    _log.exception("tick_work_impossible", error=type(error).__name__)
    for waiting in (*batch.reserves, *batch.top_ups):
        waiting.fail(error)
    return [Batch(settles=[work]) for work in batch.settles if _is_worth_another_try(work, error)]


def _is_worth_another_try(work: SettleWork, error: Exception) -> bool:
    """Make a settlement that PostgreSQL refuses simpler: first without its texts, then in suspense."""
    bare = work.settlement.without_texts()
    if bare != work.settlement:
        work.settlement = bare
    elif work.settlement.kind is not RecordKind.SUSPENSE:
        work.settlement = suspended(work.reservation, "UNBOOKABLE")
    else:
        work.fail(error)
        return False
    return True
