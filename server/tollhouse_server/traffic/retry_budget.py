"""How much of the traffic may be further attempts: a failing upstream must not be met with a multiple of its load.

Of the calls of the last minute, further attempts are a tenth at the most, beside a few for which nobody need have
called. A call that has the time waits for its turn instead of failing: a target that dies lets many calls fail at once,
and few afterwards.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

from tollhouse_server.traffic.outcome_window import OutcomeWindow

_CALLS = 10
"""So many calls pay for one further attempt."""

_BUCKET_SECONDS = 1.0
_BUCKETS = 60


class RetryBudget:
    """The further attempts of one process, over a rolling minute."""

    def __init__(
        self,
        *,
        free_attempts: int = 10,
        on_refusal: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Allow `free_attempts` a minute whatever the traffic; `on_refusal` is told of each that is not allowed."""
        self._free = free_attempts
        self._on_refusal = on_refusal
        self._clock = clock
        self._began_at = clock()
        # A further attempt stands as a failure.
        self._window = OutcomeWindow(bucket_seconds=_BUCKET_SECONDS, buckets=_BUCKETS)
        self._waiters: deque[asyncio.Future[None]] = deque()

    @property
    def attempts_left(self) -> float:
        """Further attempts that may be made now."""
        return self._units() / _CALLS

    def note_call(self) -> None:
        """Count a call's first attempt."""
        self._window.add(self._clock(), failed=False, seconds=0.0)
        while self._waiters and (self._waiters[0].done() or self._units() >= _CALLS):
            waiter = self._waiters.popleft()
            if not waiter.done():
                self._count()
                waiter.set_result(None)

    def may_retry(self) -> bool:
        """Take one further attempt, or say that none may be made now."""
        if self._waiters or self._units() < _CALLS:
            self._on_refusal()
            return False
        self._count()
        return True

    async def turn(self, *, within_seconds: float) -> bool:
        """Wait for the turn to make a further attempt; say at once that it will not come within that time."""
        if not self._waiters and self._units() >= _CALLS:
            self._count()
            return True
        if self._expected_seconds() > within_seconds:
            self._on_refusal()
            return False
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await asyncio.wait([waiter], timeout=within_seconds)
        finally:
            waiter.cancel()
        if waiter.cancelled():
            self._on_refusal()
        return not waiter.cancelled()

    def _units(self) -> int:
        """Return what may be spent, in tenths of an attempt: integers, since tenths have no exact float."""
        seen = self._window.sums(self._clock())
        return self._free * _CALLS + (seen.calls - seen.failures) - seen.failures * _CALLS

    def _count(self) -> None:
        self._window.add(self._clock(), failed=True, seconds=0.0)

    def _expected_seconds(self) -> float:
        """Estimate how long whoever comes now waits, from how many calls came of late."""
        now = self._clock()
        seen = self._window.sums(now)
        calls = seen.calls - seen.failures
        if not calls:
            return float("inf")
        seconds = min(max(now - self._began_at, _BUCKET_SECONDS), _BUCKET_SECONDS * _BUCKETS)
        waiting = sum(not waiter.done() for waiter in self._waiters)
        return (waiting + 1 - self.attempts_left) * _CALLS * seconds / calls
