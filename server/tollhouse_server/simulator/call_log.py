"""The durable log of served calls: SQLite with one synchronous commit for all calls that wait at that moment."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

_COLUMNS = (
    "served_at_ms",
    "key_id",
    "project",
    "model",
    "method",
    "usage",
    "attempt_id",
    "service_tier",
    "fault",
    "image_count",
    "response_id",
    "region",
)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS served_call (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    served_at_ms INTEGER NOT NULL,
    key_id TEXT NOT NULL,
    project TEXT NOT NULL,
    model TEXT NOT NULL,
    method TEXT NOT NULL,
    usage BLOB NOT NULL,
    attempt_id TEXT,
    service_tier TEXT NOT NULL,
    fault TEXT,
    image_count INTEGER NOT NULL,
    response_id TEXT,
    region TEXT NOT NULL DEFAULT ''
)
"""
# Columns that a log of an earlier version lacks; where its calls went is not known any more.
_ADDED = {"region": "TEXT NOT NULL DEFAULT ''"}
_INSERT = f"INSERT INTO served_call ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608
_AMEND = "UPDATE served_call SET usage = ? WHERE sequence = ?"
_FILTERS = ("key_id", "project", "region", "model", "method", "attempt_id", "fault")
_BATCH_LIMIT = 2_000


@dataclass(frozen=True, slots=True)
class CallRow:
    """One served call as it is written; `usage` is the full usage metadata as JSON bytes."""

    served_at_ms: int
    key_id: str
    project: str
    model: str
    method: str
    usage: bytes
    attempt_id: str | None
    service_tier: str
    fault: str | None
    image_count: int
    response_id: str | None
    region: str = "global"


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A statement that waits for the next commit; `durable` gets the sequence of an inserted row."""

    statement: str
    values: tuple[Any, ...]
    loop: asyncio.AbstractEventLoop
    durable: asyncio.Future[int]


class CallLog:
    """Writes served calls from one thread, so that waiting calls share one fsync (group commit)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_until_closed, name="call-log", daemon=True)

    def __enter__(self) -> CallLog:
        with _connect(self.path) as connection:
            connection.execute(_SCHEMA)
            _add_columns(connection)
        connection.close()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._queue.put(None)
        self._thread.join()

    async def append(self, row: CallRow) -> int:
        """Return the row's sequence once it is on disk; raise sqlite3.Error when it could not be written."""
        return await self._write(_INSERT, astuple(row))

    async def amend(self, sequence: int, usage: bytes) -> None:
        """Return once a row says that its call has used this instead; raise as `append` does."""
        await self._write(_AMEND, (usage, sequence))

    async def _write(self, statement: str, values: tuple[Any, ...]) -> int:
        loop = asyncio.get_running_loop()
        waiting = _Waiting(statement, values, loop, loop.create_future())
        self._queue.put(waiting)
        return await waiting.durable

    async def rows(self, *, after: int, limit: int, filters: Mapping[str, str]) -> list[dict[str, Any]]:
        """List rows with a sequence above `after`, oldest first."""
        return await asyncio.to_thread(self._rows, after, limit, filters)

    async def count(self, filters: Mapping[str, str]) -> int:
        """Count the rows that match."""
        return await asyncio.to_thread(self._count, filters)

    def _rows(self, after: int, limit: int, filters: Mapping[str, str]) -> list[dict[str, Any]]:
        where, values = _where(filters)
        query = f"SELECT * FROM served_call WHERE sequence > ?{where} ORDER BY sequence LIMIT ?"  # noqa: S608
        connection = _connect(self.path)
        try:
            connection.row_factory = sqlite3.Row
            rows = [dict(row) for row in connection.execute(query, (after, *values, limit))]
        finally:
            connection.close()
        return [row | {"usage": orjson.loads(row["usage"])} for row in rows]

    def _count(self, filters: Mapping[str, str]) -> int:
        where, values = _where(filters)
        connection = _connect(self.path)
        try:
            query = f"SELECT count(*) FROM served_call WHERE 1{where}"  # noqa: S608
            return int(connection.execute(query, values).fetchone()[0])
        finally:
            connection.close()

    def _write_until_closed(self) -> None:
        connection = _connect(self.path)
        try:
            while (first := self._queue.get()) is not None:
                batch, closing = self._collect(first)
                _commit(connection, batch)
                if closing:
                    return
        finally:
            connection.close()

    def _collect(self, first: _Waiting) -> tuple[list[_Waiting], bool]:
        """Take all that wait now; True with them when closing was asked for."""
        batch = [first]
        while len(batch) < _BATCH_LIMIT:
            try:
                waiting = self._queue.get_nowait()
            except queue.Empty:
                return batch, False
            if waiting is None:
                return batch, True
            batch.append(waiting)
        return batch, False


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=10)
    connection.execute("PRAGMA journal_mode = WAL")
    # FULL syncs the WAL at every commit: a row survives power loss, not only the death of the process.
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _add_columns(connection: sqlite3.Connection) -> None:
    """Bring a log that an earlier version wrote to today's columns."""
    present = {row[1] for row in connection.execute("PRAGMA table_info(served_call)")}
    for name in _ADDED.keys() - present:
        connection.execute(f"ALTER TABLE served_call ADD COLUMN {name} {_ADDED[name]}")


def _commit(connection: sqlite3.Connection, batch: list[_Waiting]) -> None:
    failure: sqlite3.Error | None = None
    sequences: list[int] = []
    try:
        with connection:
            sequences = [connection.execute(each.statement, each.values).lastrowid or 0 for each in batch]
    except sqlite3.Error as error:
        failure = error
    # One wake-up of the loop for the whole batch; each wake-up costs a system call.
    batch[0].loop.call_soon_threadsafe(_release, [waiting.durable for waiting in batch], sequences, failure)


def _release(waiting: list[asyncio.Future[int]], sequences: list[int], failure: sqlite3.Error | None) -> None:
    if failure is not None:
        for durable in waiting:
            if not durable.done():
                durable.set_exception(failure)
        return
    for durable, sequence in zip(waiting, sequences, strict=True):
        if not durable.done():
            durable.set_result(sequence)


def _where(filters: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    names = [name for name in _FILTERS if name in filters]
    return "".join(f" AND {name} = ?" for name in names), tuple(filters[name] for name in names)
