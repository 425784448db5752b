"""The calls that a server inside Envoy is serving: their deadlines, their callers' hang-ups, their end."""

import asyncio
import enum
import time
from collections.abc import Awaitable
from typing import Any, Final

from tollhouse_server.api.transports.framing import Receive

LOOK_SECONDS: Final = 0.1
"""How often it is looked whether callers have hung up, and how old a call is then at the least."""

_LONGEST_LOOK_SECONDS: Final = 1.0
_LOOKS_AT_AN_AGE: Final = 4
"""A call is looked at again when it is a quarter older: one of half a minute costs forty questions of some 15 us then,
not three hundred."""


class Ending(enum.Enum):
    """Why a call was ended before its handler had ended."""

    HUNG_UP = enum.auto()
    DEADLINE = enum.auto()
    DRAINED = enum.auto()


class CallUnderWay:
    """One of them.

    `is_read` once all of its request has come, `has_begun` once something was answered, `is_answered` once all but the
    trailers was.
    """

    __slots__ = (
        "_is_over",
        "_receive",
        "_task",
        "_timer",
        "began_at",
        "ending",
        "has_begun",
        "is_answered",
        "is_asked",
        "is_read",
        "look_at",
    )

    def __init__(self, receive: Receive) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - it is called in a coroutine
        self._receive = receive
        self._task = task
        self._timer: asyncio.TimerHandle | None = None
        self.began_at = time.monotonic()
        self.look_at = self.began_at + LOOK_SECONDS
        self.is_read = self.is_asked = self.has_begun = self.is_answered = self._is_over = False
        self.ending: Ending | None = None

    def read(self) -> Awaitable[dict[str, Any]]:
        """Read on. Who waits may be cancelled, but not what he waits for: pyvoy completes that all the same."""
        asked = self._receive()
        return asyncio.shield(asked) if isinstance(asked, asyncio.Future) else asked

    def end_at(self, deadline: float) -> None:
        """End it at its deadline, of `time.monotonic()`."""
        left = max(0.0, deadline - time.monotonic())
        self._timer = self._task.get_loop().call_later(left, self.end, Ending.DEADLINE)

    def end(self, ending: Ending) -> None:
        """Cancel the handler; once."""
        if self.ending is None and not self._is_over:
            self.ending = ending
            self._task.cancel()

    def let_go(self) -> None:
        """Take notice that its handler has ended: it cannot be ended any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._is_over = True

    def ask_if_hung_up(self, now: float) -> None:
        """Ask Envoy, which answers a read past the end of a request at once, and for a caller who is gone with that."""
        self.is_asked = True
        age = now - self.began_at
        self.look_at = now + min(_LONGEST_LOOK_SECONDS, max(LOOK_SECONDS, age / _LOOKS_AT_AN_AGE))
        asked = self._receive()
        # pyvoy's answer is a future, which somebody owns, and not a coroutine that a task would be needed for.
        if isinstance(asked, asyncio.Future):
            asked.add_done_callback(self._told)

    def _told(self, told: "asyncio.Future[Any]") -> None:
        self.is_asked = False
        if not told.cancelled() and told.exception() is None and told.result()["type"] == "http.disconnect":
            self.end(Ending.HUNG_UP)


class CallsUnderWay:
    """All of them.

    Envoy tells a caller's hang-up only to who asks (pyvoy 1.3 answers a read past the request's end at once, where ASGI
    would have it wait). So whatever takes longer than a moment is asked about now and then; short calls cost nothing.
    """

    def __init__(self) -> None:
        self._calls: set[CallUnderWay] = set()
        self._none = asyncio.Event()

    def begin(self, receive: Receive) -> CallUnderWay:
        """Count a call in, until `done` is told of it."""
        call = CallUnderWay(receive)
        self._calls.add(call)
        return call

    def done(self, call: CallUnderWay) -> None:
        """Count a call out."""
        call.let_go()
        self._calls.discard(call)
        if not self._calls:
            self._none.set()

    async def look_for_hangups(self) -> None:
        """End the calls whose callers have hung up, for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.look(time.monotonic())

    def look(self, now: float) -> None:
        """Ask about those whose time has come; `now` is of `time.monotonic()`."""
        for call in self._calls:
            if call.is_read and not call.is_asked and call.look_at <= now:
                call.ask_if_hung_up(now)

    async def end(self, within_seconds: float) -> None:
        """Wait for the end of all, and end those that take longer."""
        if await self._ended(within_seconds):
            return
        for call in tuple(self._calls):
            call.end(Ending.DRAINED)
        await self._ended(1.0)

    async def _ended(self, within_seconds: float) -> bool:
        self._none.clear()
        if not self._calls:
            return True
        try:
            async with asyncio.timeout(max(0.0, within_seconds)):
                await self._none.wait()
        except TimeoutError:
            return False
        return True
