"""What rows have in common: a stale writer is refused, a change counts one up; and the way to plain SQL."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

from sqlalchemy import CursorResult, TextClause, text
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.errors import EtagMismatch


class Versioned(Protocol):
    """A row with a version and a time of its last change."""

    version: int
    updated_at: datetime | None


Row = TypeVar("Row", bound=Versioned)


def check_version(row: Versioned, expected: int | None, name: str) -> None:
    """Raise EtagMismatch when a version is expected and `row`, which must be locked, is at another one."""
    if expected is not None and row.version != expected:
        raise EtagMismatch(name=name)


async def change(session: AsyncSession, row: Row, **values: object) -> Row:
    """Write `values` to a locked row and count its version up; equal values change nothing, not even the version."""
    if all(getattr(row, column) == value for column, value in values.items()):
        return row
    for column, value in values.items():
        setattr(row, column, value)
    row.version += 1
    row.updated_at = datetime.now(UTC)
    session.add(row)
    await session.flush()
    return row


async def run_sql(
    session: AsyncSession, sql: str | TextClause, parameters: Mapping[str, object] | None = None
) -> CursorResult[Any]:
    """Run plain SQL in the session's transaction, after what the session has not written yet."""
    await session.flush()
    connection = await session.connection()
    return await connection.execute(text(sql) if isinstance(sql, str) else sql, parameters)
