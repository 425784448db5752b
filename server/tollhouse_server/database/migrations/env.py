"""Alembic's entry: one connection, one advisory lock, one transaction per migration; rights and row security last."""

import asyncio

from alembic import context
from sqlalchemy import Connection, pool, text
from sqlalchemy.ext.asyncio import create_async_engine
from tollhouse_server.database.roles import OF_ALL_TENANTS
from tollhouse_server.database.row_security import check_roles, secure

# Any constant that no other advisory lock of Tollhouse uses: spells "toll".
_MIGRATION_LOCK = 0x746F6C6C


def _migrate(connection: Connection) -> None:
    context.configure(connection=connection, transaction_per_migration=True)
    connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _MIGRATION_LOCK})
    connection.commit()
    try:
        check_roles(connection)
        connection.commit()
        with context.begin_transaction():
            context.run_migrations()
        secure(connection)
        connection.commit()
    finally:
        connection.rollback()
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _MIGRATION_LOCK})
        connection.commit()


async def _run() -> None:
    # A migration that changes rows must see them.
    settings = {"server_settings": dict(OF_ALL_TENANTS)}
    engine = create_async_engine(context.config.attributes["url"], poolclass=pool.NullPool, connect_args=settings)
    async with engine.connect() as connection:
        await connection.run_sync(_migrate)
    await engine.dispose()


asyncio.run(_run())
