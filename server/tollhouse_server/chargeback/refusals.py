"""Refused spend: calls that a limit refused, and what they would have held. Counted at once, written now and then.

A call that is repeated after a refusal is counted again: nobody knows which calls are one wish. Of a process that dies
the last second is lost; a commit whose answer was lost may count a second twice.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final, TypeAlias

import structlog

from tollhouse_server.chargeback import refusal_store
from tollhouse_server.chargeback.cells import RefusedPart
from tollhouse_server.chargeback.statement import Refusals
from tollhouse_server.database.engine import Database
from tollhouse_server.database.rounds import in_rounds
from tollhouse_server.ledger.terms import CallTerms

_log = structlog.get_logger(__name__)

MOST_WAITING: Final = 10_000
"""Departments and quarters of an hour that wait to be written at a time; of further ones only the number is kept."""

_WRITE_SECONDS: Final = 1.0
_QUARTER_SECONDS: Final = 900
"""Midnights of all time zones are on quarters of an hour; which one a tenant's is, is found when it is written."""

_Key: TypeAlias = tuple[str, tuple[str, ...], int]


class RefusedSpend:
    """Takes refused calls in without waiting, and writes their sums."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._database = database
        self._clock = clock
        self._waiting: dict[_Key, tuple[int, int]] = {}
        self._lost = 0
        self._writing = asyncio.Lock()

    def note(self, terms: CallTerms) -> None:
        """Count a call that a limit has refused. Never waits, never raises, and its memory is bounded."""
        quarter = int(self._clock().timestamp()) // _QUARTER_SECONDS
        self._add((terms.scope.tenant_id, terms.scope.department_path, quarter), 1, terms.ceiling.cost_nanos)

    def _add(self, key: _Key, calls: int, nanos: int) -> None:
        found = self._waiting.get(key)
        if found is None and len(self._waiting) >= MOST_WAITING:
            self._lost += calls
            return
        before = found or (0, 0)
        self._waiting[key] = (before[0] + calls, before[1] + nanos)

    async def run(self) -> None:
        """Write for ever; while the database is away, go on counting."""
        await in_rounds(self.write, "refused spend", pause_seconds=_WRITE_SECONDS)

    async def write(self) -> None:
        """Write all that waits.

        Raises:
            StoreUnavailable: PostgreSQL is gone; what waits, waits on.
        """
        # One at a time: who drains the process may come while `run` writes.
        async with self._writing:
            taken, self._waiting = self._waiting, {}
            self._tell_lost()
            if not taken:
                return
            try:
                async with self._database.transaction() as session:
                    await refusal_store.add_refused(session, _parts(taken))
            except BaseException:
                for key, (calls, nanos) in taken.items():
                    self._add(key, calls, nanos)
                raise

    def _tell_lost(self) -> None:
        if self._lost:
            _log.warning("refused_spend_lost", calls=self._lost)
            self._lost = 0


def _parts(taken: dict[_Key, tuple[int, int]]) -> list[RefusedPart]:
    return [
        RefusedPart(
            tenant=tenant,
            department_path=path,
            at=datetime.fromtimestamp(quarter * _QUARTER_SECONDS, UTC),
            calls=calls,
            ceiling_nanos=nanos,
        )
        # In the order of the rows: two processes that add to the same ones must not deadlock.
        for (tenant, path, quarter), (calls, nanos) in sorted(taken.items())
    ]


def refusals_of(found: Sequence[RefusedPart], department: str) -> Refusals:
    """Return what limits have refused to a department with everything below it; to the tenant without one."""
    mine = [one for one in found if not department or department in one.department_path]
    return Refusals(calls=sum(one.calls for one in mine), ceiling_nanos=sum(one.ceiling_nanos for one in mine))
