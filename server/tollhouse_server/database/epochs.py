"""Epochs: how every process learns within half a second that something it keeps in memory has changed.

A change bumps its topic's epoch in its own transaction. Each process polls all epochs with one query; a snapshot
whose topic moved is loaded again. Nothing is ever invalidated by guessing a time to live.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import TypeAlias

import structlog
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.engine import Database
from tollhouse_server.database.rows import run_sql
from tollhouse_server.errors import StoreUnavailable

_log = structlog.get_logger(__name__)

Reload: TypeAlias = Callable[[], Awaitable[Callable[[], None] | None]]
"""Loads a snapshot; what it returns, if anything, puts it in force."""


class Topic(StrEnum):
    """What a process may keep a snapshot of; one row each in the table `epoch`."""

    IDENTITY = "identity"
    ACCESS = "access"
    CATALOGUE = "catalogue"
    PRICES = "prices"
    ACCOUNTS = "accounts"
    LIMITS = "limits"
    BREAKERS = "breakers"
    DATA_POLICIES = "data_policies"
    TENANT_KEYS = "tenant_keys"
    CONTENT = "content"
    LABELS = "labels"


_KNOWN = frozenset(topic.value for topic in Topic)


async def bump(session: AsyncSession, topic: Topic) -> None:
    """Announce, at the commit of `session`, that everyone's snapshot of `topic` is out of date."""
    await run_sql(session, "UPDATE epoch SET value = value + 1 WHERE topic = :topic", {"topic": topic.value})


async def lock(session: AsyncSession, topic: Topic) -> None:
    """Wait until no other transaction changes what `topic` stands for, and keep others waiting until this one ends."""
    await run_sql(session, "SELECT value FROM epoch WHERE topic = :topic FOR UPDATE", {"topic": topic.value})


class EpochWatch:
    """Polls the epochs and runs a topic's reload when it moved; knows how old its own knowledge is."""

    def __init__(
        self, database: Database, *, interval_seconds: float = 0.5, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._clock = clock
        self._interval_seconds = interval_seconds
        self._reloads: list[tuple[Topic, Reload]] = []
        self._step: Callable[[], Awaitable[float | None]] | None = None
        self._pause_seconds = interval_seconds
        self._seen: dict[Topic, int] = {}
        self._heard_at = float("-inf")
        self._unanswered_since: float | None = None
        self._refreshing = asyncio.Lock()
        self._news = asyncio.Event()

    def on_change(self, topic: Topic, reload: Reload) -> None:
        """Run `reload` at the next `refresh()` and whenever `topic` has moved since.

        What reloads return is run when all of them have ended, without a pause: snapshots that belong together, such as
        rights along the tree and paths in it, change at one moment.
        """
        self._reloads.append((topic, reload))
        self._seen.pop(topic, None)

    def before_reading(self, step: Callable[[], Awaitable[float | None]]) -> None:
        """Run `step` before each reading of the epochs, so that what is due by the clock has happened for the reader.

        It returns in how many seconds something will be due again, or None if nothing will be soon.
        """
        self._step = step

    @property
    def staleness_seconds(self) -> float:
        """Seconds since the database last confirmed what this process knows; infinite before the first time."""
        return self._clock() - self._heard_at

    @property
    def unanswered_seconds(self) -> float:
        """Seconds for which the database has been asked in vain; 0 where it answered when it was asked last.

        Other than staleness it does not grow while nobody asks, as at a start or while the process stands still.
        """
        return 0.0 if self._unanswered_since is None else self._clock() - self._unanswered_since

    async def refresh(self) -> None:
        """Read the epochs once and reload what moved.

        Raises:
            StoreUnavailable: the database cannot be asked; the old snapshots stay.
        """
        # One at a time: a slow reload of an older epoch must not come after a quick one of a newer.
        async with self._refreshing:
            await self._refresh()

    async def _refresh(self) -> None:
        if self._unanswered_since is None:
            self._unanswered_since = self._clock()
        self._pause_seconds = self._interval_seconds
        if self._step is not None and (due_in_seconds := await self._step()) is not None:
            self._pause_seconds = min(self._interval_seconds, due_in_seconds)
        asked_at = self._clock()
        async with self._database.transaction() as session:
            rows = (await run_sql(session, "SELECT topic, value FROM epoch")).all()
        # A newer server's migration may have brought topics that this one keeps nothing of.
        epochs = {Topic(row.topic): row.value for row in rows if row.topic in _KNOWN}
        moved = {topic for topic, value in epochs.items() if self._seen.get(topic) != value}
        loaded = [
            await reload() for reload in dict.fromkeys(reload for topic, reload in self._reloads if topic in moved)
        ]
        for put_in_force in loaded:
            if put_in_force is not None:
                put_in_force()
        self._seen = epochs
        # The moment of asking, not of the answer: a change committed in between may not be in it.
        self._heard_at = asked_at
        self._unanswered_since = None
        self._news.set()
        self._news = asyncio.Event()

    async def wait_for_news(self) -> None:
        """Wait until the database has confirmed or changed what this process knows. Asks nothing itself.

        Calls that wait out an outage must not each try to connect: `run` does, at its pace, for all of them.
        """
        await self._news.wait()

    async def run(self) -> None:
        """Refresh for ever; a database outage makes the snapshots stale, never ends the watch."""
        while True:
            try:
                await self.refresh()
            except StoreUnavailable as error:
                _log.warning(
                    "epochs_unreadable", detail=error.detail, staleness_seconds=round(self.staleness_seconds, 1)
                )
            await asyncio.sleep(self._pause_seconds)
