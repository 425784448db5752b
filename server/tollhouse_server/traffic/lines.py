"""The line of one department's calls for the same targets, and how long whoever joins it has to wait."""

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tollhouse_server.traffic.queue import Waiter

_WINDOW_SECONDS: Final = 2.0


class Line(OrderedDict["Waiter", None]):
    """The waiters, first come first. It begins with its first waiter and ends when nobody is left."""

    __slots__ = ("_before_seconds", "_begun_at", "_turns", "_turns_before")

    def __init__(self, now: float) -> None:
        super().__init__()
        self._begun_at = now
        self._turns = 0
        self._turns_before = 0
        self._before_seconds = 0.0

    def note_turn(self) -> None:
        """Note that one of them got a place."""
        self._turns += 1

    def wait_seconds(self, now: float, *, call_seconds: float) -> float | None:
        """Return how long one who joins now will wait if turns go on coming as they did, None if that is not known.

        Places come free as calls end, so that turns are to be watched for longer than the usual `call_seconds`.
        """
        window_seconds = max(_WINDOW_SECONDS, 2 * call_seconds)
        if now - self._begun_at >= window_seconds:
            self._turns_before, self._turns = self._turns, 0
            self._before_seconds, self._begun_at = now - self._begun_at, now
        seconds = self._before_seconds + now - self._begun_at
        if seconds < window_seconds:
            return None
        return len(self) * seconds / (self._turns_before + self._turns + 1)

    @property
    def ends_at(self) -> float:
        """Return when the last of them gives up; whoever waits longer has none of them before him."""
        return next(reversed(self)).gives_up_at
