"""SQL of access: the rights of all tenants, read in pages, so that a server goes on serving meanwhile."""

from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any, Final

from sqlalchemy import Row
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.access.rights import GROUPS, PRINCIPALS, TenantRights
from tollhouse_server.database.rows import run_sql
from tollhouse_server.names import TenantRoleName

_PAGE: Final = 250
"""Rows read at once: some milliseconds in which nothing else happens here."""

_FEW_TENANTS: Final = 50

_GRANTS: Final = "SELECT tenant_id, grant_id, principal_id, group_id, role, scope FROM role_grant"
_MEMBERS: Final = "SELECT tenant_id, group_id, principal_id FROM group_member"
_ROLES: Final = "SELECT tenant_id, role_id, permissions FROM tenant_role"
_BARRED: Final = "SELECT tenant_id, principal_id FROM principal"
# Of a department that was merged into another one it is the other one's: there is what it had.
_TREE: Final = """
SELECT tenant_id, department_id, coalesce((
    SELECT m.path FROM department m WHERE m.tenant_id = d.tenant_id AND m.department_id = d.merged_into
), path)::text AS path
FROM department d
"""


async def versions(session: AsyncSession) -> dict[str, int]:
    """Return for each tenant what changes when anything changes that its policy is made of."""
    rows = await run_sql(session, "SELECT tenant_id, value FROM access_version")
    return {row.tenant_id: row.value for row in rows}


async def read_rights(session: AsyncSession, tenants: Collection[str]) -> Mapping[str, TenantRights]:
    """Return the rights of `tenants` as they are now."""
    found = {tenant: TenantRights() for tenant in tenants}
    if not found:
        return found
    names = sorted(found)
    async for row in _pages(session, _GRANTS, names, ("grant_id",)):
        kind, subject = (PRINCIPALS, row.principal_id) if row.group_id is None else (GROUPS, row.group_id)
        found[row.tenant_id].grant(kind, subject, row.role, row.scope)
    async for row in _pages(session, _MEMBERS, names, ("group_id", "principal_id")):
        found[row.tenant_id].join(row.group_id, row.principal_id)
    async for row in _pages(session, _ROLES, names, ("role_id",)):
        found[row.tenant_id].roles[str(TenantRoleName(row.tenant_id, row.role_id))] = frozenset(row.permissions)
    async for row in _pages(session, _BARRED, names, ("principal_id",), also="state <> 'ACTIVE'"):
        found[row.tenant_id].barred.add(row.principal_id)
    async for row in _pages(session, _TREE, names, ("department_id",)):
        found[row.tenant_id].add_department(row.department_id, row.path.split("."))
    return found


async def _pages(
    session: AsyncSession, query: str, tenants: list[str], key: tuple[str, ...], *, also: str = "true"
) -> AsyncIterator[Row[Any]]:
    """Yield the rows of `tenants`, in no order that matters, a page at a time.

    Many tenants are read as all are: in the order of the primary key, which no list of tenants keeps PostgreSQL from.
    """
    if len(tenants) > _FEW_TENANTS:
        wanted = set(tenants)
        async for row in _in_order(session, f"{query} WHERE {also}", ("tenant_id", *key), {}):
            if row.tenant_id in wanted:
                yield row
        return
    for tenant in tenants:
        of_one = f"{query} WHERE tenant_id = :tenant AND {also}"
        async for row in _in_order(session, of_one, key, {"tenant": tenant}):
            yield row


async def _in_order(
    session: AsyncSession, query: str, key: tuple[str, ...], parameters: Mapping[str, str]
) -> AsyncIterator[Row[Any]]:
    order, after = ", ".join(key), ", ".join(f":{column}" for column in key)
    page = f"{query} AND ({order}) > ({after}) ORDER BY {order} LIMIT {_PAGE}"
    last = dict.fromkeys(key, "")
    while True:
        rows = (await run_sql(session, page, {**parameters, **last})).all()
        for row in rows:
            yield row
        if len(rows) < _PAGE:
            return
        last = {column: getattr(rows[-1], column) for column in key}
