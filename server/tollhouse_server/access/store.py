"""The only SQL of access."""

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.access.tables import RoleGrantRow
from tollhouse_server.database.integrity import constraints
from tollhouse_server.database.rows import find, insert, run_sql
from tollhouse_server.errors import ResourceExists
from tollhouse_server.names import RoleGrantName


async def create_grant(session: AsyncSession, row: RoleGrantRow) -> RoleGrantRow:
    """Insert a grant.

    Raises:
        ResourceExists: the id is taken, or the principal has this role on this scope already.
    """
    exists = ResourceExists(name=str(RoleGrantName(row.tenant_id, row.grant_id)))
    same = ResourceExists(name=f"A grant of {row.role} on {row.scope} to {row.principal_id}")
    with constraints({"role_grant_pkey": exists, "role_grant_once": same}):
        return await insert(session, row)


async def get_grant(session: AsyncSession, name: RoleGrantName) -> RoleGrantRow:
    """Return a grant.

    Raises:
        ResourceNotFound: there is none.
    """
    query = select(RoleGrantRow).where(RoleGrantRow.tenant_id == name.tenant, RoleGrantRow.grant_id == name.role_grant)
    return await find(session, query, name)


async def list_grants(
    session: AsyncSession, tenant: str, *, principal: str | None, scope: str | None, after: str, size: int
) -> list[RoleGrantRow]:
    """Return up to `size` grants in the order of their ids, narrowed to a principal and to exactly one scope."""
    query = select(RoleGrantRow).where(RoleGrantRow.tenant_id == tenant, col(RoleGrantRow.grant_id) > after)
    if principal is not None:
        query = query.where(RoleGrantRow.principal_id == principal)
    if scope is not None:
        query = query.where(RoleGrantRow.scope == scope)
    return list((await session.exec(query.order_by(col(RoleGrantRow.grant_id)).limit(size))).all())


async def grants_of(session: AsyncSession, tenant: str, principal: str) -> list[RoleGrantRow]:
    """Return every grant of a principal."""
    query = select(RoleGrantRow).where(RoleGrantRow.tenant_id == tenant, RoleGrantRow.principal_id == principal)
    return list((await session.exec(query)).all())


async def delete_grant(session: AsyncSession, row: RoleGrantRow) -> None:
    """Take a role away."""
    await session.delete(row)
    await session.flush()


async def all_grants(session: AsyncSession) -> list[tuple[str, str, str, str]]:
    """Return (tenant, principal, role, scope) of every grant of every principal that is not deleted."""
    rows = await run_sql(
        session,
        "SELECT g.tenant_id, g.principal_id, g.role, g.scope FROM role_grant g"
        " JOIN principal p USING (tenant_id, principal_id) WHERE p.state = 'ACTIVE'",
    )
    return [(row.tenant_id, row.principal_id, row.role, row.scope) for row in rows]
