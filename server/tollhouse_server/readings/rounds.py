"""The round in which the housekeeper that leads reads what the metrics tell of money and of the database."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import structlog
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.engine import Database
from tollhouse_server.database.rounds import in_rounds, postponing
from tollhouse_server.database.rows import run_sql
from tollhouse_server.readings import budget_store, state_store
from tollhouse_server.readings.department_costs import DepartmentCosts
from tollhouse_server.readings.figures import (
    budget_readings,
    department_reading,
    reconciliation_readings,
    state_readings,
)
from tollhouse_server.reporting.rollup_store import read_watermark
from tollhouse_server.telemetry.declarations import database as declared
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.telemetry.readings import Reading, publish, reading, withdraw

_log = structlog.get_logger(__name__)

ROUND_SECONDS: Final = 15.0
_LEADERLESS: Final = timedelta(seconds=3 * ROUND_SECONDS)
"""So long nobody may have led before somebody does: as long as a process takes to end, and others to see that."""

# Any constant that no other advisory lock of Tollhouse uses: spells "read".
_LEADER_LOCK: Final = 0x72656164


@dataclass(frozen=True, slots=True, kw_only=True)
class Most:
    """How many budgets and departments are told of one by one."""

    budgets: int
    departments: int


class Readings:
    """Takes readings while it leads. One leader at a time has them all, and keeps them from one round to the next."""

    def __init__(self, database: Database, metrics: Metrics, directory: Path, most: Most) -> None:
        self._database = database
        self._metrics = metrics
        self._directory = directory
        self._most = most
        self._costs = DepartmentCosts()
        self._alerts_since: datetime | None = None

    async def run(self) -> None:
        """Read for ever whenever no other housekeeper does; a database outage only postpones it."""
        await in_rounds(self._lead, "leading the readings", pause_seconds=ROUND_SECONDS)

    async def _lead(self) -> None:
        """Read until the connection that makes this process the leader is lost; return at once if another one leads."""
        async with self._leading() as leader:
            while leader is not None:
                await run_sql(leader, "SELECT 1")
                with postponing("readings"):
                    self._publish(await self.read())
                await asyncio.sleep(ROUND_SECONDS)

    def _publish(self, readings: Iterable[Reading]) -> None:
        try:
            publish(self._directory, readings)
        except OSError as error:
            # A full disk; this process has more to do than to be looked at, and old readings are not served.
            _log.error("readings_not_written", error=type(error).__name__)

    @asynccontextmanager
    async def _leading(self) -> AsyncIterator[AsyncSession | None]:
        """Yield the session whose connection holds the lock, None while another process does."""
        async with self._database.single_query() as session:
            held = (
                (await run_sql(session, "SELECT pg_try_advisory_lock(:key) AS held", {"key": _LEADER_LOCK})).one().held
            )
            if not held:
                # The other one counts from here on.
                self._alerts_since = None
                yield None
                return
            try:
                yield session
            finally:
                # What another one reads from now on must not stand beside what this one has read.
                withdraw(self._directory)
                # The lock ends with its connection, which must not go back to the pool with it.
                await session.invalidate()

    async def read(self) -> Iterable[Reading]:
        """Return all readings of now.

        Raises:
            StoreUnavailable: PostgreSQL is gone, or the ledger's clock is held.
        """
        async with self._database.transaction() as session:
            watermark = await read_watermark(session)
        async with self._database.transaction() as session:
            await self._costs.refresh(session, watermark)
            await self._count_alerts(session, watermark)
            budgets = await budget_store.read_budgets(session, most=self._most.budgets)
            reconciled = await state_store.read_reconciliation(session)
            state = await state_store.read_state(session)
        return (
            *budget_readings(budgets),
            department_reading(*self._costs.dearest(self._most.departments)),
            *reconciliation_readings(reconciled),
            *state_readings(state),
            reading(declared.READINGS_TAKEN, time.time()),
        )

    async def _count_alerts(self, session: AsyncSession, until: datetime) -> None:
        """Count what limits have raised since the last round; a new leader begins with what nobody may have counted.

        What the last one counted in its last seconds is counted twice then: better than an alert of which nobody hears.
        """
        if self._alerts_since is None:
            self._metrics.limit_alerts_begin()
            # In the next round: a counter that is seen first with something in it has not risen.
            self._alerts_since = until - _LEADERLESS
            return
        for raised in await budget_store.raised_alerts(session, self._alerts_since, until):
            self._metrics.limit_alerts(
                kind=raised.kind.lower(), threshold_per_cent=raised.threshold, count=raised.count
            )
        self._alerts_since = until
