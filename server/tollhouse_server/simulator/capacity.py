"""What the simulator can take before it is overloaded, over all and per region."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from typing import Any

from tollhouse_server.simulator import errors

_EVERYWHERE = ""


@dataclass(slots=True)
class Limits:
    """What one region, or all together, can take; None is no limit.

    concurrent_calls: calls at a time, slow answers and hangs included; one more gets a 503.
    requests_per_second: how fast calls are taken; those beyond it wait for their turn at most `wait_seconds`, and get a
    503 when it would take longer. burst_seconds: how much of an unused past may be caught up.
    """

    region: str = _EVERYWHERE
    concurrent_calls: int | None = None
    requests_per_second: float | None = None
    wait_seconds: float = 0.0
    burst_seconds: float = 0.1
    running: int = 0
    refused: int = 0
    _next_turn: float = 0.0

    def __post_init__(self) -> None:
        for name in ("concurrent_calls", "requests_per_second", "wait_seconds", "burst_seconds"):
            given = getattr(self, name)
            if given is not None and (isinstance(given, bool) or not isinstance(given, (int, float)) or given < 0):
                raise ValueError(f"{name} must be a number and not negative")

    def shown(self) -> dict[str, Any]:
        """Give them as the admin path lists them."""
        return {each.name: getattr(self, each.name) for each in fields(self) if not each.name.startswith("_")}

    def refuses(self, now: float) -> bool:
        """Whether one more call is too much."""
        if self.concurrent_calls is not None and self.running >= self.concurrent_calls:
            return True
        return self.requests_per_second is not None and (
            self.requests_per_second == 0 or self._turn(now) - now > self.wait_seconds
        )

    def take_turn(self, now: float) -> float:
        """Take the next turn and give the seconds until it comes."""
        if not self.requests_per_second:
            return 0.0
        turn = self._turn(now)
        self._next_turn = turn + 1 / self.requests_per_second
        return max(0.0, turn - now)

    def _turn(self, now: float) -> float:
        return max(self._next_turn, now - self.burst_seconds)


class Capacity:
    """The limits by region; none until one is set."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._limits: dict[str, Limits] = {}

    @property
    def is_limited(self) -> bool:
        """Whether any limit is set."""
        return bool(self._limits)

    def put(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Set the limits of one region, or over all with region ''; the calls that run now stay counted."""
        given = {name: value for name, value in settings.items() if name not in {"running", "refused", "_next_turn"}}
        limits = Limits(**given)
        known = self._limits.setdefault(limits.region, limits)
        for each in given:
            setattr(known, each, getattr(limits, each))
        return known.shown()

    def clear(self) -> None:
        """Take every limit away."""
        self._limits.clear()

    def all(self) -> list[dict[str, Any]]:
        """Give the limits with how many calls run and were refused."""
        return [limits.shown() for limits in self._limits.values()]

    @asynccontextmanager
    async def place(self, region: str) -> AsyncIterator[None]:
        """Hold a place for one call, after its turn has come; raise a 503 when there is none."""
        limits = [self._limits[name] for name in (_EVERYWHERE, region) if name in self._limits]
        now = self._clock()
        for each in limits:
            if each.refuses(now):
                each.refused += 1
                raise errors.unavailable()
        wait = max((each.take_turn(now) for each in limits), default=0.0)
        for each in limits:
            each.running += 1
        try:
            await asyncio.sleep(wait)
            yield
        finally:
            for each in limits:
                each.running -= 1
