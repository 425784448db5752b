"""The limits of one account for one model (or for all): what configuration says, what was learned, and our share."""

from collections.abc import Iterable, Iterator
from typing import Final

from tollhouse_server.routing.targets import AccountLimit
from tollhouse_server.traffic.days import PacificDay
from tollhouse_server.traffic.pace import KEPT_ROOM, UNPACED_ROOM
from tollhouse_server.traffic.usage_window import IMAGES, METRICS, REQUESTS, SPEND, TOKENS, WINDOW_SECONDS, UsageWindow

UNLIMITED: Final = float("inf")

_PACED = frozenset({REQUESTS, TOKENS, IMAGES, SPEND})

_DECAY_SECONDS = 600.0
_DECAY_GROWTH = 1.1
"""What was learned rises by this factor every `_DECAY_SECONDS`, so that a quota which was raised is found again."""

_FORGOTTEN_SECONDS = 6 * 3600.0
"""What no 429 has confirmed for so long is forgotten where configuration knows no limit."""

_SAME_WORD_SECONDS = 5.0
"""What others report within so short a time of what we know is the same, heard over them: it must not grow younger."""


class Cap:
    """One limit in force: of it `share` is this process's, and `elsewhere` was used by others at the last word.

    `processes` share it. A share grows only as far as it is used, up to an even part of the limit for everybody.
    """

    __slots__ = ("elsewhere", "limit", "metric", "processes", "share")

    def __init__(self, metric: int, limit: int) -> None:
        self.metric = metric
        self.limit = limit
        self.share = limit
        self.processes = 1
        self.elsewhere = 0

    def admits_alone(self, used: int, need: int) -> bool:
        """Say whether a call that is larger than the whole share may go, because the account has room for it.

        One that is larger than the whole limit goes when nothing else is under way: estimates are often too high.
        """
        return need > self.share and used + self.elsewhere + min(need, self.limit) <= self.limit


class Caps:
    """The limits on one usage window."""

    __slots__ = ("_configured", "_learned", "in_force", "window")

    def __init__(self, days: PacificDay) -> None:
        self.window = UsageWindow(days)
        self.in_force: tuple[Cap, ...] = ()
        self._configured: dict[int, int] = {}
        self._learned: dict[int, tuple[int, float]] = {}

    def configure(self, limits: Iterable[AccountLimit], now: float) -> None:
        """Take the limits of a new catalogue; what was learned stays."""
        self._configured = {METRICS.index(limit.metric): limit.amount for limit in limits}
        self.apply(now)

    def learn(self, metric: int, amount: int, *, learned_at: float, now: float) -> None:
        """Take a limit that the upstream stated at `learned_at`, unless a lower one or a later word is known."""
        known = self._learned.get(metric)
        if amount > self._limit(metric, now) or (known is not None and learned_at < known[1] + _SAME_WORD_SECONDS):
            return
        self._learned[metric] = (amount, learned_at)
        self.apply(now)

    def apply(self, now: float) -> None:
        """Bring what is in force to this moment; a limit that is lowered lowers our share of it at once."""
        caps = {cap.metric: cap for cap in self.in_force}
        in_force = []
        for metric in range(len(METRICS)):
            limit = self._limit(metric, now)
            if limit == UNLIMITED:
                self._learned.pop(metric, None)
                continue
            cap = caps.get(metric) or Cap(metric, int(limit))
            if cap.limit != limit:
                # Alone, a process had all of it; beside others it waits for the next word from them.
                is_alone = cap.share == cap.limit
                cap.limit = int(limit)
                cap.share = cap.limit if is_alone else min(cap.share, cap.limit)
            in_force.append(cap)
        self.in_force = tuple(in_force)

    def learned(self) -> Iterator[tuple[int, int, float]]:
        """Yield metric, amount and moment of what was learned."""
        for metric, (amount, learned_at) in self._learned.items():
            yield metric, amount, learned_at

    def _limit(self, metric: int, now: float) -> float:
        configured = self._configured.get(metric, UNLIMITED)
        known = self._learned.get(metric)
        if known is None:
            return configured
        amount, learned_at = known
        age_seconds = now - learned_at
        if age_seconds >= _FORGOTTEN_SECONDS:
            return configured
        return min(configured, int(amount * _DECAY_GROWTH ** (age_seconds // _DECAY_SECONDS)))

    def room(self, second: int, amounts: list[int]) -> float:
        """Return which part of the scarcest share is free, and 0 when a call of these amounts does not fit."""
        window = self.window
        if second != window.second:
            window.advance(second)
        sums, room = window.sums, 1.0
        for cap in self.in_force:
            need = amounts[cap.metric]
            if not need:
                continue
            used, share = sums[cap.metric], cap.share
            if used + need > share:
                if not cap.admits_alone(used, need):
                    return 0.0
                room = min(room, need / (used + need))
            elif (share - used) / share < room:
                room = (share - used) / share
        return room

    def pace_seconds(self, amounts: list[int]) -> float:
        """Return how long such calls are apart when they use what is scarce evenly, without what is kept for others."""
        sums = self.window.sums
        return max(
            (
                amounts[cap.metric]
                * WINDOW_SECONDS[cap.metric]
                / (max(cap.share, cap.limit / cap.processes) * (1.0 - KEPT_ROOM))
                for cap in self.in_force
                if cap.metric in _PACED and cap.share > sums[cap.metric] > cap.share * (1.0 - UNPACED_ROOM)
            ),
            default=0.0,
        )

    def frees_at(self, amounts: list[int]) -> float:
        """Return the first moment at which time makes room in a window that has none for these amounts."""
        sums = self.window.sums
        return min(
            (
                self.window.frees_at(cap.metric)
                for cap in self.in_force
                if amounts[cap.metric] and sums[cap.metric] + amounts[cap.metric] > cap.share
            ),
            default=UNLIMITED,
        )
