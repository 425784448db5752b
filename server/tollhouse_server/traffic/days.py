"""The day by which Google counts requests: it ends at midnight Pacific (ai.google.dev/gemini-api/docs/rate-limits)."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

_LOOK_SECONDS = 30.0
"""The wall clock may be set, and a laptop may sleep: a known end of the day is looked at again after so long."""


class PacificDay:
    """Tells which day it is; almost every question is one comparison with the monotonic clock."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._wall = wall
        self._zone = ZoneInfo("America/Los_Angeles")
        self._today = ""
        self._ends_at = 0.0
        self._known_until = float("-inf")

    def today(self) -> str:
        """Return the date as `2026-11-21`."""
        if self._clock() >= self._known_until:
            self._look()
        return self._today

    def ends_at(self) -> float:
        """Return the moment of the monotonic clock at which the day ends."""
        self.today()
        return self._ends_at

    def _look(self) -> None:
        now = self._clock()
        here = datetime.fromtimestamp(self._wall(), self._zone)
        # Midnight by the calendar, not in 24 hours: twice a year a day has 23 or 25.
        midnight = datetime.combine(here.date() + timedelta(days=1), datetime.min.time(), self._zone)
        seconds_left = (midnight.astimezone(UTC) - here.astimezone(UTC)).total_seconds()
        self._today = here.date().isoformat()
        self._ends_at = now + seconds_left
        self._known_until = now + min(seconds_left, _LOOK_SECONDS)
