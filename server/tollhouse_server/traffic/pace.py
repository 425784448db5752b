"""The pace of departments that take far more of a bucket than others of their class do.

A window that one of them had emptied in its first seconds would have nothing for anybody until it moves on, whoever's
turn it is. While others take from the bucket, too, such a department is free in the first half of a window, gets what
follows evenly in time, and the last tenth never. The window then moves evenly as well, and turns come all the time.
"""

from typing import Final

from tollhouse_server.routing.priorities import Priority

UNPACED_ROOM: Final = 0.5
KEPT_ROOM: Final = 0.1

_GREEDY = 1.25
"""Times the mean of those who take in the same class."""
_FADE_SECONDS = 60
_FADED = 0.01
"""A department's single call is remembered for about seven minutes."""

Taker = tuple[Priority, str, str]
"""A department's calls of one class: class, tenant, department."""


class Pace:
    """How much each department has taken lately. Calls of greedy ones go on at `until`."""

    __slots__ = ("_calls", "_fades_at", "_sums", "greedy_part", "until")

    def __init__(self) -> None:
        self.until = float("-inf")
        self.greedy_part = 1.0
        """What the greedy ones take of all, as of the last minute: the pace leaves the others what they take."""
        self._calls: dict[Taker, float] = {}
        self._sums: dict[Priority, tuple[int, float]] = {}
        self._fades_at = 0

    def took(self, taker: Taker, second: int) -> None:
        """Count a call that begins."""
        if second >= self._fades_at:
            self._fade(second)
        takers, calls = self._sums.get(taker[0], (0, 0.0))
        if taker in self._calls:
            self._calls[taker] += 1.0
            self._sums[taker[0]] = takers, calls + 1.0
        else:
            self._calls[taker] = 1.0
            self._sums[taker[0]] = takers + 1, calls + 1.0

    def is_greedy(self, taker: Taker) -> bool:
        """Tell whether a department takes far more than others of its class."""
        takers, calls = self._sums.get(taker[0], (0, 0.0))
        return self._calls.get(taker, 0.0) * takers > _GREEDY * calls

    def _fade(self, second: int) -> None:
        self._fades_at = second + _FADE_SECONDS
        greedy = sum(calls for taker, calls in self._calls.items() if self.is_greedy(taker))
        self.greedy_part = greedy / sum(self._calls.values()) if greedy else 1.0
        self._calls = {taker: calls / 2 for taker, calls in self._calls.items() if calls > _FADED}
        self._sums.clear()
        for (priority, _, _), calls in self._calls.items():
            takers, sum_of_calls = self._sums.get(priority, (0, 0.0))
            self._sums[priority] = takers + 1, sum_of_calls + calls
