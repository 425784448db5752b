"""SQL of access: grants."""

from collections.abc import Collection, Sequence

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.access.tables import RoleGrantRow
from tollhouse_server.database.integrity import constraints
from tollhouse_server.database.rows import find, insert, run_sql
from tollhouse_server.errors import ResourceExists, ResourceNotFound
from tollhouse_server.names import GroupName, PrincipalName, RoleGrantName

_REACHING = """
SELECT g.* FROM role_grant g
WHERE g.tenant_id = :tenant AND (g.principal_id = :principal OR g.group_id = ANY(:claimed) OR g.group_id IN (
    SELECT m.group_id FROM group_member m WHERE m.tenant_id = :tenant AND m.principal_id = :principal))
ORDER BY g.grant_id
"""

_ROLES_HELD = """
SELECT DISTINCT held.principal_id, held.role FROM (
    SELECT g.principal_id, g.role, g.grant_id FROM role_grant g
    WHERE g.tenant_id = :tenant AND g.principal_id = ANY(:principals)
    UNION ALL
    SELECT m.principal_id, g.role, g.grant_id FROM group_member m
    JOIN role_grant g ON g.tenant_id = m.tenant_id AND g.group_id = m.group_id
    WHERE m.tenant_id = :tenant AND m.principal_id = ANY(:principals)
) held ORDER BY held.principal_id, held.role
"""

_HOLDERS = """
SELECT g.principal_id FROM role_grant g
WHERE g.tenant_id = :tenant AND g.role = :role AND g.principal_id IS NOT NULL
UNION
SELECT m.principal_id FROM role_grant g
JOIN group_member m ON m.tenant_id = g.tenant_id AND m.group_id = g.group_id
WHERE g.tenant_id = :tenant AND g.role = :role
ORDER BY 1
"""

_ROLES_BESIDE = """
SELECT DISTINCT g.group_id, other.role FROM role_grant g
JOIN role_grant other ON other.tenant_id = g.tenant_id AND other.group_id = g.group_id AND other.role <> g.role
WHERE g.tenant_id = :tenant AND g.role = :role
ORDER BY g.group_id, other.role
"""


async def create_grant(session: AsyncSession, row: RoleGrantRow) -> RoleGrantRow:
    """Insert a grant.

    Raises:
        ResourceExists: the id is taken, or who gets it has this role on this scope already.
        ResourceNotFound: there is no such group or role of the tenant.
    """
    exists = ResourceExists(name=str(RoleGrantName(row.tenant_id, row.grant_id)))
    same = ResourceExists(name=f"A grant of {row.role} on {row.scope} to {row.principal_id or row.group_id}")
    facts = {
        "role_grant_pkey": exists,
        "role_grant_once": same,
        "role_grant_role_fkey": ResourceNotFound(name=row.role),
        "role_grant_group_fkey": ResourceNotFound(name=str(GroupName(row.tenant_id, row.group_id or ""))),
    }
    with constraints(facts):
        return await insert(session, row)


async def get_grant(session: AsyncSession, name: RoleGrantName) -> RoleGrantRow:
    """Return a grant.

    Raises:
        ResourceNotFound: there is none.
    """
    query = select(RoleGrantRow).where(RoleGrantRow.tenant_id == name.tenant, RoleGrantRow.grant_id == name.role_grant)
    return await find(session, query, name)


async def list_grants(
    session: AsyncSession,
    tenant: str,
    *,
    principal: str | None = None,
    group: str | None = None,
    scope: str | None = None,
    after: str,
    size: int,
) -> list[RoleGrantRow]:
    """Return up to `size` grants in the order of their ids, narrowed to whom they are for and to exactly one scope."""
    query = select(RoleGrantRow).where(RoleGrantRow.tenant_id == tenant, col(RoleGrantRow.grant_id) > after)
    if principal is not None:
        query = query.where(RoleGrantRow.principal_id == principal)
    if group is not None:
        query = query.where(RoleGrantRow.group_id == group)
    if scope is not None:
        query = query.where(RoleGrantRow.scope == scope)
    return list((await session.exec(query.order_by(col(RoleGrantRow.grant_id)).limit(size))).all())


async def grants_of(session: AsyncSession, tenant: str, principal: str) -> list[RoleGrantRow]:
    """Return every grant of a principal himself."""
    query = select(RoleGrantRow).where(RoleGrantRow.tenant_id == tenant, RoleGrantRow.principal_id == principal)
    return list((await session.exec(query)).all())


async def grants_of_group(session: AsyncSession, tenant: str, group: str) -> list[RoleGrantRow]:
    """Return every grant of a group."""
    query = select(RoleGrantRow).where(RoleGrantRow.tenant_id == tenant, RoleGrantRow.group_id == group)
    return list((await session.exec(query.order_by(col(RoleGrantRow.grant_id)))).all())


async def grants_reaching(
    session: AsyncSession, name: PrincipalName, *, claimed: Collection[str] = ()
) -> list[RoleGrantRow]:
    """Return every grant of a principal and of the groups that he is in, or that his credential says he is in."""
    parameters = {"tenant": name.tenant, "principal": name.principal, "claimed": list(claimed)}
    rows = (await run_sql(session, _REACHING, parameters)).mappings()
    fields = RoleGrantRow.model_fields
    return [RoleGrantRow(**{field: row[field] for field in fields}) for row in rows]


async def grants_on(session: AsyncSession, tenant: str, scopes: Sequence[str]) -> list[RoleGrantRow]:
    """Return every grant that is made on exactly one of `scopes`."""
    query = select(RoleGrantRow).where(RoleGrantRow.tenant_id == tenant, col(RoleGrantRow.scope).in_(scopes))
    return list((await session.exec(query.order_by(col(RoleGrantRow.grant_id)))).all())


async def delete_grant(session: AsyncSession, row: RoleGrantRow) -> None:
    """Take a role away."""
    await session.delete(row)
    await session.flush()


async def roles_held(session: AsyncSession, tenant: str, principals: Collection[str]) -> list[tuple[str, str]]:
    """Return (principal, role) of every role that principals hold, by grants of their own and by those of groups."""
    rows = await run_sql(session, _ROLES_HELD, {"tenant": tenant, "principals": list(principals)})
    return [(row.principal_id, row.role) for row in rows]


async def holders(session: AsyncSession, tenant: str, role: str) -> list[str]:
    """Return the ids of the principals who hold a role, by grants of their own or of a group."""
    rows = await run_sql(session, _HOLDERS, {"tenant": tenant, "role": role})
    return [row.principal_id for row in rows]


async def roles_beside(session: AsyncSession, tenant: str, role: str) -> list[tuple[str, str]]:
    """Return (group, role) of every other role of the groups that have a role, whether or not anyone is in them."""
    rows = await run_sql(session, _ROLES_BESIDE, {"tenant": tenant, "role": role})
    return [(row.group_id, row.role) for row in rows]
