"""Calls whose content waits to be written: in memory, bounded by their bytes."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from tollhouse_server.content.terms import KeptCall

MOST_BYTES: Final = 64 * 1024 * 1024
MOST_CALLS: Final = 5_000
_BATCH_BYTES: Final = 4 * 1024 * 1024
_BATCH_CALLS: Final = 64


class Backlog:
    """First come, first written. Memory is bounded: what does not fit is not taken."""

    def __init__(self) -> None:
        self._waiting: deque[KeptCall] = deque()
        self._bytes = 0
        self._at_work = 0
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._waiting) + self._at_work

    @property
    def is_full(self) -> bool:
        """Tell whether nothing more is taken."""
        return self._bytes >= MOST_BYTES or len(self) >= MOST_CALLS

    def add(self, call: KeptCall) -> None:
        """Take a call in, whether or not it fits: who may be refused asks `is_full` before."""
        self._waiting.append(call)
        self._bytes += call.size_bytes
        self._arrived.set()
        self._idle.clear()

    async def take(self) -> list[KeptCall]:
        """Wait for calls, and return the first of them; `done` or `put_back` must follow."""
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        batch: list[KeptCall] = []
        size = 0
        while self._waiting and len(batch) < _BATCH_CALLS and (not batch or size < _BATCH_BYTES):
            batch.append(self._waiting.popleft())
            size += batch[-1].size_bytes
        self._at_work += len(batch)
        return batch

    def done(self, calls: Sequence[KeptCall]) -> None:
        """Forget calls that were taken."""
        self._at_work -= len(calls)
        self._bytes -= sum(call.size_bytes for call in calls)
        if not len(self):
            self._idle.set()

    def put_back(self, calls: Sequence[KeptCall]) -> None:
        """Let calls that were taken wait again, behind the others: what stands in their way may not be in others'."""
        self._at_work -= len(calls)
        self._waiting.extend(calls)
        self._arrived.set()

    async def wait_until_empty(self) -> None:
        """Wait until everything is written or forgotten."""
        await self._idle.wait()
