"""The SQL that streams the records of a statement as CSV: by COPY, so that memory stays small.

What PostgreSQL makes of records takes one of its processors whole. So a period is cut into slices, each in order and
behind the one before, and two connections that see the same state of the ledger copy slices in turn: while one is being
sent, the next is being made.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.rows import run_sql
from tollhouse_server.names import DepartmentName, Scope
from tollhouse_server.reporting.periods import Period
from tollhouse_server.reporting.rollup_store import require_records, rolled_days
from tollhouse_server.reporting.store import begin_snapshot

_PIECE_BYTES: Final = 256 * 1024
_PIECES_AHEAD: Final = 64
"""What a connection may have copied that nobody has read: 16 MB, about two slices."""

_SLICE_RECORDS: Final = 16_000
_SLICE_OF_UNKNOWN: Final = timedelta(hours=1)

# In the order of the index a slice needs no sorting on disk. Who reads slowly keeps connections waiting between slices,
# and they hold nothing that others wait for.
_SETTINGS: Final = """
SELECT set_config('enable_sort', 'off', true), set_config('max_parallel_workers_per_gather', '0', true),
    set_config('idle_in_transaction_session_timeout', '10min', true)
"""

# What COPY is given cannot be bound: ids are of letters, digits and hyphens (`names.py`), moments are made here.
_RECORDS: Final = """
SELECT attempt_id, to_char(settled_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS booked_at, kind,
    array_to_string(department_path, '/') AS department_path, project_id AS project, credential_id AS credential, tier,
    model, price_version, input_tokens, output_tokens, images, cost_nanos, lines, labels, outcome
FROM usage_record
WHERE tenant_id = '{tenant}' AND settled_at >= '{start}' AND settled_at < '{end}'{narrowed}
ORDER BY settled_at, attempt_id
"""


async def share_snapshot(session: AsyncSession) -> Callable[[AsyncSession], Awaitable[None]]:
    """Return how another transaction begins so that it sees the same as this one, which must outlast that moment."""
    snapshot: str = (await run_sql(session, "SELECT pg_export_snapshot() AS snapshot")).one().snapshot

    async def begin(other: AsyncSession) -> None:
        await begin_snapshot(other, snapshot=snapshot)

    return begin


async def stream_records(sessions: Sequence[AsyncSession], scope: Scope, period: Period) -> AsyncIterator[bytes]:
    """Yield the records of a tenant or department and a period as CSV, the oldest first, in pieces.

    `sessions` are in transactions that see the same state; they copy in turn.

    Raises:
        RecordsDropped: some of them were dropped after an export.
    """
    await require_records(sessions[0], scope.tenant, [period])
    counts = [(day.period, day.record_count) for day in await rolled_days(sessions[0], scope.tenant, period)]
    queries = [_query(scope, one) for one in _slices(period, counts)]
    lanes = [
        _Lane(session, queries[number :: len(sessions)], is_first=number == 0)
        for number, session in enumerate(sessions)
    ]
    copying = [asyncio.create_task(lane.copy()) for lane in lanes]
    try:
        for number in range(len(queries)):
            lane = number % len(lanes)
            while (piece := await lanes[lane].pieces.get()) is not None:
                yield piece
            if lanes[lane].has_failed:
                await copying[lane]
        await asyncio.gather(*copying)
    finally:
        # Who reads may stop at any moment: the queries end with it.
        for task in copying:
            task.cancel()
        await asyncio.gather(*copying, return_exceptions=True)


@dataclass(slots=True)
class _Lane:
    """One connection with the slices that it copies; in `pieces` is what nobody has read, None behind each slice."""

    session: AsyncSession
    queries: Sequence[str]
    is_first: bool
    pieces: "asyncio.Queue[bytes | None]" = field(default_factory=lambda: asyncio.Queue(_PIECES_AHEAD))
    has_failed: bool = False
    _buffer: bytearray = field(default_factory=bytearray)

    async def copy(self) -> None:
        """Put the pieces of each slice, and None behind the last one, also when it fails; cancelled, nobody reads."""
        try:
            await run_sql(self.session, _SETTINGS)
            connection = await (await self.session.connection()).get_raw_connection()
            driver: Any = connection.driver_connection
            for number, query in enumerate(self.queries):
                header = self.is_first and number == 0
                await driver.copy_from_query(query, output=self._gather, format="csv", header=header)
                if self._buffer:
                    await self.pieces.put(bytes(self._buffer))
                    self._buffer.clear()
                await self.pieces.put(None)
        except Exception:
            self.has_failed = True
            await self.pieces.put(None)
            raise

    async def _gather(self, piece: bytes) -> None:
        """Join what comes to pieces of a good size."""
        self._buffer += piece
        if len(self._buffer) >= _PIECE_BYTES:
            whole = bytes(self._buffer)
            self._buffer.clear()
            await self.pieces.put(whole)


def _slices(period: Period, days: Sequence[tuple[Period, int]]) -> Iterator[Period]:
    """Cut a period into parts of about so many records, where days of it were counted, and else into hours."""
    at = period.start
    for day, records in [*days, (Period(start=period.end, end=period.end), 0)]:
        yield from _cut(at, day.start, -((at - day.start) // _SLICE_OF_UNKNOWN))
        yield from _cut(day.start, day.end, -(-records // _SLICE_RECORDS))
        at = day.end


def _cut(start: datetime, end: datetime, parts: int) -> Iterator[Period]:
    """Cut a stretch of time into equal parts, at least one if it is not empty."""
    parts = max(1, parts)
    moments = [start + (end - start) * number / parts for number in range(parts)]
    for begun, ended in zip(moments, [*moments[1:], end], strict=True):
        if begun < ended:
            yield Period(start=begun, end=ended)


def _query(scope: Scope, period: Period) -> str:
    narrowed = f" AND department_path @> ARRAY['{scope.department}']" if isinstance(scope, DepartmentName) else ""
    return _RECORDS.format(tenant=scope.tenant, start=_moment(period.start), end=_moment(period.end), narrowed=narrowed)


def _moment(moment: datetime) -> str:
    return moment.isoformat()
