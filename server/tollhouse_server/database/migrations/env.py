"""Alembic's entry: one connection, one advisory lock, one transaction per migration; rights and row security last."""

import asyncio
import time
from typing import Final

import structlog
from alembic import context
from sqlalchemy import Connection, pool, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from tollhouse_server.database.integrity import LOCK_NOT_AVAILABLE, refusal_of
from tollhouse_server.database.roles import OF_ALL_TENANTS
from tollhouse_server.database.row_security import check_roles, secure

# Any constant that no other advisory lock of Tollhouse uses: spells "toll".
_MIGRATION_LOCK: Final = 0x746F6C6C

_LONGEST_WAIT: Final = "2s"
"""What a migration waits for a table: whoever comes after it, ticks too, waits behind it for as long."""

_TRIES: Final = 20
_PAUSE_SECONDS: Final = 1.0

_log = structlog.get_logger(__name__)


def _migrate(connection: Connection) -> None:
    context.configure(connection=connection, transaction_per_migration=True)
    connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _MIGRATION_LOCK})
    connection.execute(text(f"SET lock_timeout = '{_LONGEST_WAIT}'"))
    connection.commit()
    try:
        check_roles(connection)
        connection.commit()
        for tries_left in reversed(range(_TRIES)):
            try:
                _apply(connection)
                break
            except DBAPIError as error:
                connection.rollback()
                if refusal_of(error)[0] != LOCK_NOT_AVAILABLE or not tries_left:
                    raise
            # What has piled up behind it goes first.
            _log.warning("migration_waits_for_a_table", tries_left=tries_left)
            time.sleep(_PAUSE_SECONDS)
    finally:
        connection.rollback()
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _MIGRATION_LOCK})
        connection.commit()


def _apply(connection: Connection) -> None:
    """Apply what is missing; what has been applied before an error stays."""
    with context.begin_transaction():
        context.run_migrations()
    secure(connection)
    connection.commit()


async def _run() -> None:
    # A migration that changes rows must see them.
    settings = {"server_settings": dict(OF_ALL_TENANTS)}
    engine = create_async_engine(context.config.attributes["url"], poolclass=pool.NullPool, connect_args=settings)
    async with engine.connect() as connection:
        await connection.run_sync(_migrate)
    await engine.dispose()


asyncio.run(_run())
