"""A connection that carries one tick at a time."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import asyncpg

if TYPE_CHECKING:
    from tollhouse_server.ledger.store import Connection

_GOODBYE_SECONDS = 2.0


class Lane:
    """A connection, opened when it is needed. As a context manager it closes what it opened."""

    def __init__(self, connect: Callable[[], Awaitable["Connection"]]) -> None:
        self._connect = connect
        self._connection: Connection | None = None

    async def connected(self) -> "Connection":
        """Return the connection, opened again where it was lost.

        Raises:
            OSError, TimeoutError, asyncpg.PostgresError: the server cannot be reached or refuses.
        """
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._connect()
        return self._connection

    def drop(self) -> None:
        """End the connection at once: nobody knows what state it is in."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def __aenter__(self) -> "Lane":
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._connection is None or self._connection.is_closed():
            return
        try:
            await self._connection.close(timeout=_GOODBYE_SECONDS)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self.drop()
