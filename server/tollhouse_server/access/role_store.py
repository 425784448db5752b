"""SQL of access: the roles that tenants make."""

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.access.roles import ROLES, Role
from tollhouse_server.access.tables import TenantRoleRow
from tollhouse_server.database.integrity import constraints
from tollhouse_server.database.rows import find, insert
from tollhouse_server.errors import ResourceExists, ResourceInUse
from tollhouse_server.names import TenantRoleName


async def create_role(session: AsyncSession, row: TenantRoleRow) -> TenantRoleRow:
    """Insert a role. The caller holds the tenant.

    Raises:
        ResourceExists: the id is taken in this tenant.
    """
    with constraints({"tenant_role_pkey": ResourceExists(name=str(TenantRoleName(row.tenant_id, row.role_id)))}):
        return await insert(session, row)


async def get_role(session: AsyncSession, name: TenantRoleName, *, lock: bool = False) -> TenantRoleRow:
    """Return a role; with `lock` it stays as it is until the transaction ends.

    Raises:
        ResourceNotFound: there is none.
    """
    query = select(TenantRoleRow).where(TenantRoleRow.tenant_id == name.tenant, TenantRoleRow.role_id == name.role)
    return await find(session, query, name, lock=lock)


async def list_roles(session: AsyncSession, tenant: str, *, after: str, size: int) -> list[TenantRoleRow]:
    """Return up to `size` roles of a tenant in the order of their ids."""
    query = select(TenantRoleRow).where(TenantRoleRow.tenant_id == tenant, col(TenantRoleRow.role_id) > after)
    return list((await session.exec(query.order_by(col(TenantRoleRow.role_id)).limit(size))).all())


async def delete_role(session: AsyncSession, row: TenantRoleRow) -> None:
    """Delete a role that nobody holds.

    Raises:
        ResourceInUse: it is granted.
    """
    name = str(TenantRoleName(row.tenant_id, row.role_id))
    with constraints({"role_grant_role_fkey": ResourceInUse(name=name, used_by="role grants")}):
        await session.delete(row)
        await session.flush()


async def role_called(session: AsyncSession, role: str) -> Role:
    """Return what a grant's `role` names: a built-in role by its id, one of a tenant by its whole name.

    Raises:
        ResourceNotFound: there is none.
    """
    if (known := ROLES.get(role)) is not None:
        return known
    name = TenantRoleName.parse(role, "role")
    query = select(TenantRoleRow).where(TenantRoleRow.tenant_id == name.tenant, TenantRoleRow.role_id == name.role)
    # As it is now, not as this transaction may have read it before it locked the tenant's rights.
    row = await find(session, query.execution_options(populate_existing=True), name)
    return Role(role, row.description, frozenset(row.permissions))
