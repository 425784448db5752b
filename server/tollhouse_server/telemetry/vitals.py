"""What a process says of itself as long as it lives: how late its loop is, log lines it dropped, its exemplars."""

import asyncio
import os
from collections import deque
from contextlib import suppress
from typing import Final

from tollhouse_server.telemetry.exemplars import write_exemplars
from tollhouse_server.telemetry.logging import lines_dropped
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.telemetry.multiprocess import shared_directory

_BEAT_SECONDS: Final = 1.0
_BEATS: Final = 15
"""As far back as a scrape every 15 seconds looks."""

_BEATS_TO_WRITE: Final = 5


class Vitals:
    """Tells of the process once a second; exemplars, which go into a file, more seldom."""

    def __init__(self, metrics: Metrics, role: str, *, beat_seconds: float = _BEAT_SECONDS) -> None:
        self._beat_seconds = beat_seconds
        self._metrics = metrics
        self._role = role

    async def run(self) -> None:
        """Tell for ever."""
        loop, lags = asyncio.get_running_loop(), deque([0.0], _BEATS)
        beats = 0
        while True:
            due = loop.time() + self._beat_seconds
            await asyncio.sleep(self._beat_seconds)
            lags.append(max(0.0, loop.time() - due))
            self._metrics.event_loop_lag(role=self._role, seconds=max(lags))
            self._metrics.observing.log_lines_dropped(lines_dropped())
            beats += 1
            if beats % _BEATS_TO_WRITE == 0:
                await self._write_exemplars()

    async def _write_exemplars(self) -> None:
        directory = shared_directory()
        if directory is not None and (news := self._metrics.exemplars.news()):
            # A full disk is no reason to end: there are no exemplars then.
            with suppress(OSError):
                await asyncio.to_thread(write_exemplars, directory, os.getpid(), news)
