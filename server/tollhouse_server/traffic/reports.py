"""Reports: once a second a process says how its traffic is, and hears how that of the others is, in one round trip."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol
from uuid import uuid4

import structlog
from sqlalchemy.exc import DBAPIError

from tollhouse_server.database.engine import Database, store_errors
from tollhouse_server.errors import StoreUnavailable
from tollhouse_server.traffic import report_store
from tollhouse_server.traffic.report_store import DayCount, Exchange

_log = structlog.get_logger(__name__)

_FORGET_SECONDS = 60.0
_GOODBYE_SECONDS = 2.0

Section = Callable[[], Any]


class DayTally(Protocol):
    """Who counts requests of the day."""

    @property
    def today(self) -> str:
        """Return the day that is counted now, as a date."""

    def unsent(self) -> Sequence[DayCount]:
        """Return what was counted since the last `sent`."""

    def sent(self, counts: Sequence[DayCount], exchange: Exchange) -> None:
        """Take note that `counts` are in the database now, and of what had been there before."""


class Reports:
    """This process's report. Sections are asked for their value, which must be JSON, each time it goes out.

    While PostgreSQL is away nothing is heard, and everybody goes on with what he knows; no call ever waits for this.
    """

    def __init__(
        self,
        database: Database,
        tally: DayTally,
        *,
        every_seconds: float = 1.0,
        process_key: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.process_key = process_key or str(uuid4())
        self._database = database
        self._tally = tally
        self._every_seconds = every_seconds
        self._clock = clock
        self._sections: dict[str, Section] = {}
        self._listeners: list[Callable[[Exchange], None]] = []
        self._forgot_at = clock()
        # Two at once would count what was used since the last one twice.
        self._exchanging = asyncio.Lock()

    def contribute(self, name: str, section: Section) -> None:
        """Have `section()` under `name` in every report."""
        self._sections[name] = section

    def on_heard(self, listener: Callable[[Exchange], None]) -> None:
        """Have `listener` told of each exchange."""
        self._listeners.append(listener)

    async def exchange(self) -> None:
        """Send the report and hear the others.

        Raises:
            StoreUnavailable: PostgreSQL is gone; what was counted goes out with the next report.
        """
        async with self._exchanging:
            sections = {name: section() for name, section in self._sections.items()}
            counts = self._tally.unsent()
            async with self._database.transaction() as session:
                heard = await report_store.exchange(
                    session,
                    process_key=self.process_key,
                    sections=sections,
                    counts=counts,
                    today=self._tally.today,
                )
            self._tally.sent(counts, heard)
        for listener in self._listeners:
            listener(heard)

    async def say_goodbye(self) -> None:
        """Say for the last time what this process has used, and that others may have its shares at once.

        Raises:
            StoreUnavailable: PostgreSQL is gone, or takes its time; others hear it from the round, or take the process
                for dead after some seconds.
        """
        self.contribute(report_store.LEAVES, lambda: True)
        with store_errors():
            async with asyncio.timeout(_GOODBYE_SECONDS):
                await self.exchange()

    async def run(self) -> None:
        """Exchange reports for ever."""
        while True:
            try:
                await self.exchange()
                await self._forget_old()
            except StoreUnavailable as error:
                _log.warning("report_postponed", detail=error.detail)
            except DBAPIError as error:
                # Such as a deadlock or a full disk: shares must not end for it.
                _log.error("report_failed", error=type(error.orig).__name__)
            await asyncio.sleep(self._every_seconds)

    async def _forget_old(self) -> None:
        now = self._clock()
        if now - self._forgot_at >= _FORGET_SECONDS:
            self._forgot_at = now
            async with self._database.transaction() as session:
                await report_store.forget_old(session)
