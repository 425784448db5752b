"""The SQL that streams the records of a statement as CSV: by COPY, so that memory stays small."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.names import DepartmentName, Scope
from tollhouse_server.reporting.periods import Period
from tollhouse_server.reporting.rollup_store import require_records

_PIECES_AHEAD: Final = 4
_PIECE_BYTES: Final = 256 * 1024

# What COPY is given cannot be bound: ids are of letters, digits and hyphens (`names.py`), moments are made here.
_RECORDS: Final = """
SELECT attempt_id, to_char(settled_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS booked_at, kind,
    array_to_string(department_path, '/') AS department_path, project_id AS project, credential_id AS credential, tier,
    model, price_version, input_tokens, output_tokens, images, cost_nanos, lines, labels, outcome
FROM usage_record
WHERE tenant_id = '{tenant}' AND settled_at >= '{start}' AND settled_at < '{end}'{narrowed}
ORDER BY settled_at, attempt_id
"""


async def stream_records(session: AsyncSession, scope: Scope, period: Period) -> AsyncIterator[bytes]:
    """Yield the records of a tenant or department and a period as CSV, the oldest first, in pieces.

    Raises:
        RecordsDropped: some of them were dropped after an export.
    """
    await require_records(session, scope.tenant, [period])
    connection = await (await session.connection()).get_raw_connection()
    driver: Any = connection.driver_connection
    pieces: asyncio.Queue[bytes | None] = asyncio.Queue(_PIECES_AHEAD)
    copying = asyncio.create_task(_copy(driver, _query(scope, period), pieces))
    try:
        async for piece in _joined(pieces):
            yield piece
        await copying
    finally:
        # Who reads may stop at any moment: the query ends with it.
        copying.cancel()
        with suppress(asyncio.CancelledError):
            await copying


async def _copy(driver: Any, query: str, pieces: "asyncio.Queue[bytes | None]") -> None:
    """Put the pieces of a query's answer, and None behind the last, also when it fails; cancelled, nobody reads."""
    task = asyncio.current_task()
    try:
        await driver.copy_from_query(query, output=pieces.put, format="csv", header=True)
    finally:
        if task is None or not task.cancelling():
            await pieces.put(None)


async def _joined(pieces: "asyncio.Queue[bytes | None]") -> AsyncIterator[bytes]:
    """Yield what is put, joined to pieces of a good size."""
    buffer = bytearray()
    while (piece := await pieces.get()) is not None:
        buffer += piece
        if len(buffer) >= _PIECE_BYTES:
            yield bytes(buffer)
            buffer.clear()
    if buffer:
        yield bytes(buffer)


def _query(scope: Scope, period: Period) -> str:
    narrowed = f" AND department_path @> ARRAY['{scope.department}']" if isinstance(scope, DepartmentName) else ""
    return _RECORDS.format(tenant=scope.tenant, start=_moment(period.start), end=_moment(period.end), narrowed=narrowed)


def _moment(moment: datetime) -> str:
    return moment.isoformat()
