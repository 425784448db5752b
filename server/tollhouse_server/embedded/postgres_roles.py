"""The roles and the database: root bootstraps, owner owns the schema and migrates, app owns nothing and logs in.

What app may do it may only as `control` or as `ledger`: each of its connections takes one of them.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable

import asyncpg

from tollhouse_server.database.roles import APP, CONTROL, LEDGER, OWNER

__all__ = ["APP", "DATABASE", "OWNER", "ROOT", "prepare_database", "scram_verifier", "set_up_roles"]

ROOT = "tollhouse_root"
DATABASE = "tollhouse"
EXTENSIONS = ("ltree", "pg_stat_statements")
# PostgreSQL's own default, and the floor of RFC 7677.
SCRAM_ITERATIONS = 4096


async def set_up_roles(dsn_of: Callable[[str], str], *, owner_password: str, app_password: str) -> None:
    """Make roles, database and extensions, or bring them in line; `dsn_of(database)` connects as the superuser."""
    connection = await asyncpg.connect(dsn_of("postgres"), timeout=10, ssl=False)
    try:
        await _set_up_role(connection, OWNER, owner_password)
        await _set_up_role(connection, APP, app_password)
        for role in (CONTROL, LEDGER):
            await _set_up_part(connection, role)
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
            await connection.execute(f"CREATE DATABASE {DATABASE} OWNER {OWNER}")
    finally:
        await connection.close()
    await prepare_database(dsn_of(DATABASE), DATABASE)


async def prepare_database(dsn: str, database: str) -> None:
    """Add the extensions, which only a superuser may do, and say who may connect."""
    connection = await asyncpg.connect(dsn, timeout=10, ssl=False)
    try:
        for extension in EXTENSIONS:
            await connection.execute(f"CREATE EXTENSION IF NOT EXISTS {extension}")
        await connection.execute(f'REVOKE ALL ON DATABASE "{database}" FROM PUBLIC')
        await connection.execute(f'GRANT CONNECT ON DATABASE "{database}" TO {APP}')
    finally:
        await connection.close()


async def _set_up_role(connection: "asyncpg.Connection[asyncpg.Record]", role: str, password: str) -> None:
    exists = await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role)
    verb = "ALTER" if exists else "CREATE"
    rights = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
    await connection.execute(f"{verb} ROLE {role} {rights} PASSWORD '{scram_verifier(password)}'")


async def _set_up_part(connection: "asyncpg.Connection[asyncpg.Record]", role: str) -> None:
    """Make a role that nobody logs in as, and that app takes on purpose or not at all."""
    if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role):
        await connection.execute(f"CREATE ROLE {role}")
    await connection.execute(f"ALTER ROLE {role} NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS")
    await connection.execute(f"GRANT {role} TO {APP} WITH INHERIT FALSE, SET TRUE, ADMIN FALSE")


def scram_verifier(password: str, *, salt: bytes | None = None) -> str:
    """Return the SCRAM-SHA-256 verifier (RFC 5803) that PostgreSQL stores.

    The server never sees the password itself, so no server log and no pg_stat_statements row can show it.
    """
    salt = secrets.token_bytes(16) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, SCRAM_ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    salt_text, stored_text, server_text = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return f"SCRAM-SHA-256${SCRAM_ITERATIONS}:{salt_text}${stored_text}:{server_text}"
