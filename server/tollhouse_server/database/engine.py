"""One engine per process for the control plane (SQLModel); the ledger has raw asyncpg connections of its own."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import asyncpg
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.dsn import engine_url
from tollhouse_server.database.roles import ACTOR_SETTING, AS_CONTROL, TENANT_SETTING
from tollhouse_server.database.rows import run_sql
from tollhouse_server.errors import StoreUnavailable

_GONE = (
    OSError,
    TimeoutError,
    PoolTimeout,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    # The driver's state after the server has cut it off in the middle of a message.
    asyncpg.InternalClientError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.DiskFullError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.QueryCanceledError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    # Two that changed the same things in another order: the one that was ended may simply come again.
    asyncpg.DeadlockDetectedError,
    # A wrong password and a missing database are the same to a caller; the operator reads which in `detail`.
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)


# Until the transaction ends, however it ends; then the connection is again what it said when it opened.
_SET_TENANT = text(f"SELECT set_config('{TENANT_SETTING}', :tenant, true), set_config('{ACTOR_SETTING}', :actor, true)")

_CLOSE_SECONDS = 0.5
"""On one machine a connection takes a millisecond. A process that ends has several databases, closed in turn."""

_LONGEST_PAUSE = "15s"
"""Between two statements of a transaction: a process that stands still must not keep others from what it has locked."""


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn the many ways in which a database can be gone, or have no time, into the one fact StoreUnavailable.

    A task that has been cancelled gets CancelledError instead: what failed is how its connection was given back, and
    whoever outlasts an outage must not take that for one, or it would never end.
    """
    try:
        yield
    except DBAPIError as error:
        cause = error.orig.__cause__ if error.orig is not None else None
        if error.connection_invalidated or isinstance(cause, _GONE) or isinstance(error.orig, _GONE):
            raise _unavailable(cause or error) from error
        raise
    except _GONE as error:
        raise _unavailable(error) from error


def _unavailable(cause: BaseException) -> BaseException:
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        return asyncio.CancelledError()
    return StoreUnavailable(detail=type(cause).__name__)


class Database:
    """The control plane's engine: short transactions, each on one pooled connection."""

    def __init__(self, dsn: str, *, pool_size: int = 5) -> None:
        self._engine: AsyncEngine = create_async_engine(
            engine_url(dsn),
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_timeout=5,
            pool_pre_ping=True,
            # What is bound to a statement may be a secret, or personal: it has no place in an error that is logged.
            hide_parameters=True,
            connect_args={
                "timeout": 5,
                "server_settings": {"idle_in_transaction_session_timeout": _LONGEST_PAUSE, **AS_CONTROL},
            },
        )

        self._each_its_own = self._engine.execution_options(isolation_level="AUTOCOMMIT")

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """Yield a session on every tenant's rows, that commits at the end of the block and rolls back if it raises.

        For background work, which serves all tenants; whoever serves a caller takes `within`.

        Raises:
            StoreUnavailable: PostgreSQL is gone or has no connection to give.
        """
        with store_errors():
            async with AsyncSession(self._engine, expire_on_commit=False) as session, session.begin():
                yield session

    @asynccontextmanager
    async def single_query(self) -> AsyncIterator[AsyncSession]:
        """Yield a session for one reading query on every tenant's rows: it is its own transaction, and saves two waits.

        Raises:
            StoreUnavailable: PostgreSQL is gone or has no connection to give.
        """
        with store_errors():
            async with AsyncSession(self._each_its_own) as session:
                yield session

    @asynccontextmanager
    async def within(
        self, domain: str, *, actor: str = "", begin: Callable[[AsyncSession], Awaitable[None]] | None = None
    ) -> AsyncIterator[AsyncSession]:
        """Yield the session of a `transaction()` that sees and writes only the rows of one tenant, `domain`.

        For the platform these are all tenants' rows. `actor` is the tenant of whoever acts, for the record of his
        requests: an administrator of the platform acts within a tenant that is not his own. `begin` does what must come
        before any query, such as choosing the level of isolation.

        Raises:
            StoreUnavailable: PostgreSQL is gone or has no connection to give.
        """
        async with self.transaction() as session:
            if begin is not None:
                await begin(session)
            await run_sql(session, _SET_TENANT, {"tenant": domain, "actor": actor})
            yield session

    async def close(self) -> None:
        """Close every pooled connection, or leave them to the end of the process where PostgreSQL does not answer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._engine.dispose()


class RollBack(Exception):
    """Raised inside `transaction()` by a dry run, which has seen all it wanted to see."""
