"""A connection that carries one tick at a time, and the care for statements that outlive theirs.

A planned tick commits by itself: when its connection is lost PostgreSQL may still carry it out, at any later time. So
whoever asks what became of it ends its session first.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import asyncpg

from tollhouse_server.errors import StoreUnavailable
from tollhouse_server.ledger import recovery_store
from tollhouse_server.ledger.recovery_store import Session

if TYPE_CHECKING:
    from tollhouse_server.ledger.store import Connection

_GOODBYE_SECONDS = 2.0


class LostSessions:
    """The sessions that the lanes of one process have lost, and that may still be at work."""

    def __init__(self) -> None:
        self._sessions: set[Session] = set()

    def add(self, session: Session) -> None:
        """Remember a session whose connection was given up."""
        self._sessions.add(session)

    async def end(self, connection: "Connection") -> None:
        """See to it that none of them is at work any more.

        Raises:
            StoreUnavailable: one of them does not end.
        """
        sessions = set(self._sessions)
        if sessions and not await recovery_store.end_sessions(connection, sessions):
            raise StoreUnavailable(detail="a session that was given up does not end")
        # Another lane may have lost its own meanwhile.
        self._sessions -= sessions


class Lane:
    """A connection, opened when it is needed. As a context manager it closes what it opened."""

    def __init__(self, connect: Callable[[], Awaitable["Connection"]], lost: LostSessions) -> None:
        self._connect = connect
        self._lost = lost
        self._connection: Connection | None = None
        self._session: Session | None = None

    @property
    def is_connected(self) -> bool:
        """Tell whether there is a connection that is not known to be lost."""
        return self._connection is not None and not self._connection.is_closed()

    async def connected(self) -> "Connection":
        """Return the connection, opened again where it was lost.

        Raises:
            OSError, TimeoutError, asyncpg.PostgresError: the server cannot be reached or refuses.
        """
        if self._connection is None or self._connection.is_closed():
            self.drop()
            connection = await self._connect()
            try:
                self._session = await recovery_store.session_of(connection)
            except BaseException:
                connection.terminate()
                raise
            self._connection = connection
        return self._connection

    def drop(self) -> None:
        """End the connection at once: nobody knows what state it is in."""
        if self._session is not None:
            self._lost.add(self._session)
            self._session = None
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
