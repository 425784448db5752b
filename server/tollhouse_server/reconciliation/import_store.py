"""The SQL of imports: lines wait beside the bill until their file is whole, and come into it once.

A line that is in the bill already is not taken again. Files may overlap; within one file a line that is there twice
counts twice, because a bill can be wrong, and that is what a reconciliation must see.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from operator import attrgetter
from typing import Any, Final
from uuid import UUID

import orjson
from sqlalchemy import Row
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.rows import copy_rows, run_sql
from tollhouse_server.errors import ResourceNotFound
from tollhouse_server.names import BillImportName
from tollhouse_server.reconciliation.lines import BillLine


@dataclass(frozen=True, slots=True, kw_only=True)
class BillImport:
    """A file of Google's bill; `state` is RECEIVING or COMPLETE. Of its lines, `new_line_count` were not known yet."""

    import_id: UUID
    file_name: str
    format: str
    state: str
    line_count: int
    new_line_count: int
    cost_nanos: int
    credits_nanos: int
    first_day: date | None
    last_day: date | None
    currencies: tuple[str, ...]
    created_by: str
    created_at: datetime
    completed_at: datetime | None

    @property
    def name(self) -> str:
        """Return the resource name."""
        return str(BillImportName(str(self.import_id)))


_COLUMNS: Final = tuple(field.name for field in dataclasses.fields(BillLine))
_READ: Final = attrgetter(*_COLUMNS)

_CREATE = """
INSERT INTO bill_import (import_id, file_name, format, created_by)
VALUES (:import_id, :file_name, :format, :creator) RETURNING *
"""

# The sums are of what was received, whether known already or not.
_COUNT = """
UPDATE bill_import i SET line_count = s.lines, cost_nanos = s.cost, credits_nanos = s.credits, first_day = s.first_day,
    last_day = s.last_day, currencies = s.currencies
FROM (
    SELECT count(*) AS lines, coalesce(sum(cost_nanos), 0) AS cost, coalesce(sum(credits_nanos), 0) AS credits,
        min(day) AS first_day, max(day) AS last_day,
        coalesce(array_agg(DISTINCT currency ORDER BY currency), '{}') AS currencies
    FROM bill_line_received WHERE import_id = :import_id
) s
WHERE i.import_id = :import_id
"""

_TAKE_IN = f"""
INSERT INTO bill_line (occurrence, import_id, {", ".join(_COLUMNS)})
SELECT row_number() OVER (PARTITION BY line_digest ORDER BY line_number), import_id, {", ".join(_COLUMNS)}
FROM bill_line_received WHERE import_id = :import_id
ON CONFLICT (line_digest, occurrence) DO NOTHING
"""  # noqa: S608 - as above

_COMPLETE = """
UPDATE bill_import SET state = 'COMPLETE', new_line_count = :new, completed_at = clock_timestamp()
WHERE import_id = :import_id RETURNING *
"""

_LIST = """
SELECT * FROM bill_import WHERE (created_at, import_id) > (:created_at, :import_id)
ORDER BY created_at, import_id LIMIT :size
"""


async def create_import(
    session: AsyncSession, import_id: UUID, *, file_name: str, bill_format: str, creator: str
) -> BillImport:
    """Begin a file. Files that were left half received for a day are given up first."""
    await run_sql(
        session,
        "DELETE FROM bill_import WHERE state = 'RECEIVING' AND created_at < clock_timestamp() - interval '1 day'",
    )
    values = {"import_id": import_id, "file_name": file_name, "format": bill_format, "creator": creator}
    return _import((await run_sql(session, _CREATE, values)).one())


async def get_import(session: AsyncSession, import_id: UUID, *, lock: bool = False) -> BillImport:
    """Return an import.

    Raises:
        ResourceNotFound: there is none.
    """
    query = "SELECT * FROM bill_import WHERE import_id = :import_id"
    if lock:
        query += " FOR UPDATE"
    row = (await run_sql(session, query, {"import_id": import_id})).one_or_none()
    if row is None:
        raise ResourceNotFound(name=str(BillImportName(str(import_id))))
    return _import(row)


async def list_imports(session: AsyncSession, *, after: tuple[datetime, UUID], size: int) -> list[BillImport]:
    """Return up to `size` imports, the oldest first, that come behind a moment and id."""
    values = {"created_at": after[0], "import_id": after[1], "size": size}
    return [_import(row) for row in (await run_sql(session, _LIST, values)).all()]


async def receive(session: AsyncSession, found: BillImport, lines: Sequence[BillLine]) -> int:
    """Keep the next lines of a locked import; return how many it has then."""
    numbered = enumerate(lines, found.line_count + 1)
    rows = ((found.import_id, number, *_values(line)) for number, line in numbered)
    await copy_rows(session, "bill_line_received", ("import_id", "line_number", *_COLUMNS), rows)
    count = found.line_count + len(lines)
    update = "UPDATE bill_import SET line_count = :count WHERE import_id = :import_id"
    await run_sql(session, update, {"count": count, "import_id": found.import_id})
    return count


async def complete(session: AsyncSession, import_id: UUID) -> BillImport:
    """Take the lines of a locked import into the bill, all in the caller's transaction."""
    key = {"import_id": import_id}
    await run_sql(session, _COUNT, key)
    taken = await run_sql(session, _TAKE_IN, key)
    await run_sql(session, "DELETE FROM bill_line_received WHERE import_id = :import_id", key)
    return _import((await run_sql(session, _COMPLETE, key | {"new": taken.rowcount})).one())


def _values(line: BillLine) -> Iterator[Any]:
    for name, value in zip(_COLUMNS, _READ(line), strict=True):
        yield orjson.dumps(value).decode() if name == "credits" else value


def _import(row: Row[Any]) -> BillImport:
    values = dict(row._mapping)
    amounts = {name: round(values[name]) for name in ("cost_nanos", "credits_nanos")}
    return BillImport(**values | amounts | {"currencies": tuple(row.currencies)})
