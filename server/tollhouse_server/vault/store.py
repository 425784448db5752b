"""The only SQL of this room: tenants' data keys as Vault has wrapped them."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row, text
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.epochs import Topic, bump, lock
from tollhouse_server.database.rows import run_sql

_COLUMNS = "tenant_id, version, transit_key, wrapped, destroyed_at IS NOT NULL AS destroyed"
_NEWEST = text(f"SELECT {_COLUMNS} FROM tenant_key WHERE tenant_id = :tenant ORDER BY version DESC LIMIT 1")  # noqa: S608
_ONE = text(f"SELECT {_COLUMNS} FROM tenant_key WHERE tenant_id = :tenant AND version = :version")  # noqa: S608
_STANDINGS = text("""
SELECT tenant_id, coalesce(max(version) FILTER (WHERE destroyed_at IS NULL), 0) AS newest,
       coalesce(max(version) FILTER (WHERE destroyed_at IS NOT NULL), 0) AS destroyed
FROM tenant_key WHERE tenant_id = ANY(:tenants) GROUP BY tenant_id
""")
_ADD = text("""
INSERT INTO tenant_key (tenant_id, version, transit_key, wrapped) VALUES (:tenant, :version, :transit_key, :wrapped)
""")
_MARK = text("UPDATE tenant_key SET destroyed_at = now() WHERE tenant_id = :tenant AND destroyed_at IS NULL")
_MARK_WRAPPED = text("""
UPDATE tenant_key SET destroyed_at = now()
WHERE tenant_id = :tenant AND transit_key = :transit_key AND destroyed_at IS NULL
""")
_UNDESTROYED = text("""
SELECT DISTINCT transit_key FROM tenant_key
WHERE tenant_id = :tenant AND destroyed_at IS NOT NULL AND wrapped <> '' ORDER BY transit_key
""")
_UNFINISHED = text("""
SELECT DISTINCT tenant_id, transit_key FROM tenant_key WHERE destroyed_at IS NOT NULL AND wrapped <> ''
ORDER BY tenant_id, transit_key
""")
_FORGET = text("""
UPDATE tenant_key SET wrapped = '' WHERE tenant_id = :tenant AND transit_key = :transit_key
AND destroyed_at IS NOT NULL
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class WrappedKey:
    """A version of a tenant's data key; `wrapped` is empty when all of a destroyed one is gone."""

    tenant_id: str
    version: int
    transit_key: str
    wrapped: bytes = field(repr=False)
    destroyed: bool = False


async def newest_key(session: AsyncSession, tenant_id: str) -> WrappedKey | None:
    """Return the tenant's newest key, which may be a destroyed one."""
    row = (await run_sql(session, _NEWEST, {"tenant": tenant_id})).first()
    return None if row is None else _key(row)


async def find_key(session: AsyncSession, tenant_id: str, version: int) -> WrappedKey | None:
    """Return one version of a tenant's key."""
    row = (await run_sql(session, _ONE, {"tenant": tenant_id, "version": version})).first()
    return None if row is None else _key(row)


async def standings(session: AsyncSession, tenants: Collection[str]) -> dict[str, tuple[int, int]]:
    """Return the newest live and the newest destroyed version of each tenant, 0 for none."""
    rows = await run_sql(session, _STANDINGS, {"tenants": sorted(tenants)})
    return {row.tenant_id: (row.newest, row.destroyed) for row in rows}


async def add_key(session: AsyncSession, key: WrappedKey, *, after: WrappedKey | None) -> bool:
    """Add a version unless another process was first: `after` must still be the newest one, and as it was."""
    await lock(session, Topic.TENANT_KEYS)
    newest = await newest_key(session, key.tenant_id)
    if (newest and (newest.version, newest.destroyed)) != (after and (after.version, after.destroyed)):
        return False
    parameters = {"version": key.version, "transit_key": key.transit_key, "wrapped": key.wrapped}
    await run_sql(session, _ADD, {"tenant": key.tenant_id, **parameters})
    await bump(session, Topic.TENANT_KEYS)
    return True


async def mark_destroyed(session: AsyncSession, tenant_id: str) -> list[str]:
    """Mark all of a tenant's keys as destroyed, and return the transit keys that are to be destroyed in Vault."""
    await lock(session, Topic.TENANT_KEYS)
    await run_sql(session, _MARK, {"tenant": tenant_id})
    await bump(session, Topic.TENANT_KEYS)
    return list((await run_sql(session, _UNDESTROYED, {"tenant": tenant_id})).scalars())


async def begin_destruction(session: AsyncSession, tenant_id: str) -> int:
    """Mark a tenant's keys in the transaction of the act that destroys them; `TenantKeys.destroy` must follow.

    It takes no lock that whoever seals in the same transaction would wait for, and tells nobody yet.
    """
    return (await run_sql(session, _MARK, {"tenant": tenant_id})).rowcount


async def mark_wrapped_destroyed(session: AsyncSession, tenant_id: str, transit_key: str) -> None:
    """Mark every key that a transit key wraps as destroyed, and tell all who hold one."""
    await lock(session, Topic.TENANT_KEYS)
    await run_sql(session, _MARK_WRAPPED, {"tenant": tenant_id, "transit_key": transit_key})
    await bump(session, Topic.TENANT_KEYS)


async def unfinished_destructions(session: AsyncSession) -> list[tuple[str, str]]:
    """Return the tenants and transit keys that are marked as destroyed and may still be in Vault."""
    return [(row.tenant_id, row.transit_key) for row in await run_sql(session, _UNFINISHED)]


async def forget_wrapped(session: AsyncSession, tenant_id: str, transit_key: str) -> None:
    """Drop what a transit key had wrapped, now that it is no more."""
    await run_sql(session, _FORGET, {"tenant": tenant_id, "transit_key": transit_key})


def _key(row: Row[Any]) -> WrappedKey:
    return WrappedKey(**row._mapping)
