"""What was found in calls: counted at once, and written down in the background, never with the values."""

import asyncio
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final
from uuid import UUID

from tollhouse_server.database.engine import Database
from tollhouse_server.database.rounds import in_rounds
from tollhouse_server.dlp import finding_store
from tollhouse_server.dlp.policy import CUSTOM_PREFIX, Direction
from tollhouse_server.dlp.redaction import Findings
from tollhouse_server.dlp.tables import DataFindingRow
from tollhouse_server.telemetry.metrics import Metrics

_WRITE_SECONDS: Final = 1.0
_MOST_WAITING: Final = 20_000
_MOST_AT_ONCE: Final = 2_000
_CHORE_SECONDS: Final = 3_600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSeen:
    """Which call something was found in."""

    tenant_id: str
    department_id: str
    request_id: UUID


class FindingLog:
    """Takes findings of calls without waiting, and writes them every second; an outage keeps them, up to a bound."""

    def __init__(self, database: Database, metrics: Metrics) -> None:
        self._database = database
        self._metrics = metrics
        self._waiting: deque[DataFindingRow] = deque()
        self._writing = asyncio.Lock()

    def note(self, call: CallSeen, direction: Direction, findings: Findings) -> None:
        """Count what was found in one direction of one call, and have it written."""
        now = datetime.now(UTC)
        for (name, action), count in findings.counts.items():
            told = "CUSTOM" if name.startswith(CUSTOM_PREFIX) else name
            self._metrics.data_found(detector=told, direction=direction.value, action=action.name, count=count)
            if len(self._waiting) >= _MOST_WAITING:
                self._metrics.data_finding_lost()
                continue
            self._waiting.append(
                DataFindingRow(
                    tenant_id=call.tenant_id,
                    found_at=now,
                    request_id=call.request_id,
                    direction=direction.value,
                    detector=name,
                    action=action.name,
                    department_id=call.department_id,
                    value_count=count,
                )
            )

    async def run(self) -> None:
        """Write for ever; what an outage of the database keeps back is written after it."""
        await in_rounds(self.write, "findings of data policies", pause_seconds=_WRITE_SECONDS)

    async def write(self) -> None:
        """Write all that waits.

        Raises:
            StoreUnavailable: PostgreSQL is gone; nothing is forgotten.
        """
        # One at a time: who drains the process may come while `run` writes.
        async with self._writing:
            while self._waiting:
                batch = list(islice(self._waiting, _MOST_AT_ONCE))
                async with self._database.transaction() as session:
                    await finding_store.add_findings(session, batch)
                for _ in batch:
                    self._waiting.popleft()


class FindingRetention:
    """Forgets findings that are older than so many days."""

    def __init__(self, database: Database, *, days: int) -> None:
        self._database = database
        self._days = days

    async def run(self) -> None:
        """Look every hour, for ever; 0 days keeps everything."""
        if self._days:
            await in_rounds(self.forget, "old findings of data policies", pause_seconds=_CHORE_SECONDS)

    async def forget(self) -> int:
        """Delete what is too old and return how many findings that were.

        Raises:
            StoreUnavailable: PostgreSQL is gone.
        """
        before, forgotten = datetime.now(UTC) - timedelta(days=self._days), 0
        while True:
            async with self._database.transaction() as session:
                count = await finding_store.forget_findings(session, before=before, most=_MOST_AT_ONCE)
            forgotten += count
            if count < _MOST_AT_ONCE:
                return forgotten
