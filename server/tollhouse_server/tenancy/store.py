"""The only SQL of tenancy. Every function works in its caller's transaction."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from sqlalchemy import text
from sqlmodel import SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from tollhouse_server.database.integrity import constraints
from tollhouse_server.database.rows import find, insert, run_sql
from tollhouse_server.errors import ResourceExists, ResourceNotFound
from tollhouse_server.names import DepartmentName, PrincipalName, ProjectName, Scope, TenantName
from tollhouse_server.tenancy.tables import DepartmentRow, PrincipalRow, ProjectRow, TenantRow

Row = TypeVar("Row", bound=SQLModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """The database's time, by which records are booked, and the tenant's calendar."""

    now: datetime
    zone: ZoneInfo
    fiscal_month_start_day: int


async def _page(
    session: AsyncSession, query: SelectOfScalar[Row], key: Any, *, after: str, size: int, deleted: Any | None
) -> list[Row]:
    if after:
        query = query.where(key > after)
    if deleted is not None:
        query = query.where(deleted.is_(None))
    return list((await session.exec(query.order_by(key).limit(size))).all())


# --- tenants ----------------------------------------------------------------------------------------------------------


async def create_tenant(session: AsyncSession, row: TenantRow) -> TenantRow:
    """Insert a tenant.

    Raises:
        ResourceExists: the id is taken, be it by a deleted tenant.
    """
    with constraints({"tenant_pkey": ResourceExists(name=str(TenantName(row.tenant_id)))}):
        return await insert(session, row)


async def get_tenant(session: AsyncSession, name: TenantName, *, lock: bool = False) -> TenantRow:
    """Return a tenant, deleted or not; with `lock` it stays as it is until the transaction ends.

    Raises:
        ResourceNotFound: there is none.
    """
    query = select(TenantRow).where(TenantRow.tenant_id == name.tenant)
    return await find(session, query, name, lock=lock)


async def list_tenants(session: AsyncSession, *, after: str, size: int, show_deleted: bool) -> list[TenantRow]:
    """Return up to `size` tenants in the order of their ids, after the id `after`."""
    deleted = None if show_deleted else col(TenantRow.deleted_at)
    return await _page(session, select(TenantRow), col(TenantRow.tenant_id), after=after, size=size, deleted=deleted)


async def read_clock(session: AsyncSession, tenant: str) -> Clock:
    """Return the database's time and the tenant's calendar.

    Raises:
        ResourceNotFound: there is no such tenant.
    """
    found = await run_sql(
        session,
        "SELECT clock_timestamp() AS now, time_zone, fiscal_month_start_day FROM tenant WHERE tenant_id = :tenant",
        {"tenant": tenant},
    )
    row = found.one_or_none()
    if row is None:
        raise ResourceNotFound(name=str(TenantName(tenant)))
    return Clock(now=row.now, zone=ZoneInfo(row.time_zone), fiscal_month_start_day=row.fiscal_month_start_day)


# --- departments ------------------------------------------------------------------------------------------------------


async def create_department(session: AsyncSession, row: DepartmentRow) -> DepartmentRow:
    """Insert a department below `row.parent_id`, or at the top; `row.path` is worked out here.

    Raises:
        ResourceExists: the id is taken in this tenant.
        ResourceNotFound: the tenant or the parent is missing or deleted.
    """
    name = DepartmentName(row.tenant_id, row.department_id)
    row.path = await path_below(session, row.tenant_id, row.parent_id, row.department_id)
    with constraints({"department_pkey": ResourceExists(name=str(name))}):
        return await insert(session, row)


async def path_below(session: AsyncSession, tenant: str, parent: str | None, department: str) -> str:
    """Return the path of a department below `parent`, and keep the parent from being moved or deleted meanwhile.

    Raises:
        ResourceNotFound: the parent, or for None the tenant, is missing or deleted.
    """
    if parent is None:
        await active_tenant(session, TenantName(tenant))
        return department
    above = await active_department(session, DepartmentName(tenant, parent))
    return f"{above.path}.{department}"


async def active_tenant(session: AsyncSession, name: TenantName) -> TenantRow:
    """Return a locked tenant that is not deleted.

    Raises:
        ResourceNotFound: there is none.
    """
    row = await get_tenant(session, name, lock=True)
    if row.deleted_at is not None:
        raise ResourceNotFound(name=str(name))
    return row


async def active_department(session: AsyncSession, name: DepartmentName) -> DepartmentRow:
    """Return a locked department that is not deleted.

    Raises:
        ResourceNotFound: there is none.
    """
    row = await get_department(session, name, lock=True)
    if row.deleted_at is not None:
        raise ResourceNotFound(name=str(name))
    return row


async def get_department(session: AsyncSession, name: DepartmentName, *, lock: bool = False) -> DepartmentRow:
    """Return a department, deleted or not; with `lock` it stays as it is until the transaction ends.

    Raises:
        ResourceNotFound: there is none.
    """
    query = select(DepartmentRow).where(
        DepartmentRow.tenant_id == name.tenant, DepartmentRow.department_id == name.department
    )
    return await find(session, query, name, lock=lock)


async def list_departments(
    session: AsyncSession, tenant: str, *, root: DepartmentName | None, after: str, size: int, show_deleted: bool
) -> list[DepartmentRow]:
    """Return up to `size` departments in the order of their ids; `root` narrows to it and what is below it."""
    query = select(DepartmentRow).where(DepartmentRow.tenant_id == tenant)
    if root is not None:
        top = await get_department(session, root)
        query = query.where(text("department.path <@ text2ltree(:top)").bindparams(top=top.path))
    deleted = None if show_deleted else col(DepartmentRow.deleted_at)
    return await _page(session, query, col(DepartmentRow.department_id), after=after, size=size, deleted=deleted)


async def department_in_use(session: AsyncSession, row: DepartmentRow) -> str | None:
    """Return the name of something that is alive in the department, or None."""
    below = await run_sql(
        session,
        "SELECT 'departments/' || department_id FROM department"
        " WHERE tenant_id = :tenant AND parent_id = :department AND deleted_at IS NULL"
        " UNION ALL SELECT 'departments/' || department_id || '/projects/' || project_id FROM project"
        " WHERE tenant_id = :tenant AND department_id = :department AND deleted_at IS NULL LIMIT 1",
        {"tenant": row.tenant_id, "department": row.department_id},
    )
    found = below.scalar_one_or_none()
    return None if found is None else f"tenants/{row.tenant_id}/{found}"


async def department_paths(session: AsyncSession) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return for every (tenant, department) the ids from the top of the tree down to it."""
    rows = await run_sql(session, "SELECT tenant_id, department_id, path::text AS path FROM department")
    return {(row.tenant_id, row.department_id): tuple(row.path.split(".")) for row in rows}


# --- projects ---------------------------------------------------------------------------------------------------------


async def create_project(session: AsyncSession, row: ProjectRow) -> ProjectRow:
    """Insert a project.

    Raises:
        ResourceExists: the id is taken in this tenant, be it in another department.
        ResourceNotFound: the department is missing or deleted.
    """
    await active_department(session, DepartmentName(row.tenant_id, row.department_id))
    name = ProjectName(row.tenant_id, row.department_id, row.project_id)
    with constraints({"project_pkey": ResourceExists(name=str(name))}):
        return await insert(session, row)


async def get_project(session: AsyncSession, name: ProjectName, *, lock: bool = False) -> ProjectRow:
    """Return a project, deleted or not. The department in the name must be the right one.

    Raises:
        ResourceNotFound: there is none.
    """
    query = select(ProjectRow).where(
        ProjectRow.tenant_id == name.tenant,
        ProjectRow.department_id == name.department,
        ProjectRow.project_id == name.project,
    )
    return await find(session, query, name, lock=lock)


async def active_project(session: AsyncSession, name: ProjectName) -> ProjectRow:
    """Return a locked project that is not deleted.

    Raises:
        ResourceNotFound: there is none.
    """
    row = await get_project(session, name, lock=True)
    if row.deleted_at is not None:
        raise ResourceNotFound(name=str(name))
    return row


async def require_active(session: AsyncSession, scope: Scope) -> None:
    """Return if the scope is not deleted, and lock it so that it stays so.

    Raises:
        ResourceNotFound: it is missing or deleted.
    """
    match scope:
        case TenantName():
            await active_tenant(session, scope)
        case DepartmentName():
            await active_department(session, scope)
        case ProjectName():
            await active_project(session, scope)


async def active_project_path(session: AsyncSession, name: ProjectName) -> tuple[str, ...]:
    """Return the department ids above a project, from the top of the tree down, if it and all above it are active.

    Raises:
        ResourceNotFound: there is no such project, or it, its department or its tenant is not active.
    """
    found = await run_sql(
        session,
        "SELECT d.path::text FROM project p JOIN department d USING (tenant_id, department_id)"
        " JOIN tenant t USING (tenant_id)"
        " WHERE p.tenant_id = :tenant AND p.department_id = :department AND p.project_id = :project"
        " AND p.state = 'ACTIVE' AND d.state = 'ACTIVE' AND t.state = 'ACTIVE'",
        {"tenant": name.tenant, "department": name.department, "project": name.project},
    )
    path: str | None = found.scalar_one_or_none()
    if path is None:
        raise ResourceNotFound(name=str(name))
    return tuple(path.split("."))


async def list_projects(
    session: AsyncSession, tenant: str, *, department: str | None, after: str, size: int, show_deleted: bool
) -> list[ProjectRow]:
    """Return up to `size` projects of one department, or of all, in the order of their ids."""
    query = select(ProjectRow).where(ProjectRow.tenant_id == tenant)
    if department is not None:
        query = query.where(ProjectRow.department_id == department)
    deleted = None if show_deleted else col(ProjectRow.deleted_at)
    return await _page(session, query, col(ProjectRow.project_id), after=after, size=size, deleted=deleted)


async def project_departments(session: AsyncSession, tenant: str, projects: Collection[str | None]) -> dict[str, str]:
    """Return the department of each of the projects."""
    query = select(ProjectRow.project_id, ProjectRow.department_id).where(
        ProjectRow.tenant_id == tenant, col(ProjectRow.project_id).in_([project for project in projects if project])
    )
    return dict((await session.exec(query)).all())


# --- principals -------------------------------------------------------------------------------------------------------


async def create_principal(session: AsyncSession, row: PrincipalRow) -> PrincipalRow:
    """Insert a principal.

    Raises:
        ResourceExists: the id is taken in this tenant.
        ResourceNotFound: the tenant is missing or deleted.
    """
    await active_tenant(session, TenantName(row.tenant_id))
    with constraints({"principal_pkey": ResourceExists(name=str(PrincipalName(row.tenant_id, row.principal_id)))}):
        return await insert(session, row)


async def get_principal(session: AsyncSession, name: PrincipalName, *, lock: bool = False) -> PrincipalRow:
    """Return a principal, deleted or not; with `lock` it stays as it is until the transaction ends.

    Raises:
        ResourceNotFound: there is none.
    """
    query = select(PrincipalRow).where(
        PrincipalRow.tenant_id == name.tenant, PrincipalRow.principal_id == name.principal
    )
    return await find(session, query, name, lock=lock)


async def active_principal(session: AsyncSession, name: PrincipalName) -> PrincipalRow:
    """Return a locked principal that is not deleted.

    Raises:
        ResourceNotFound: there is none.
    """
    row = await get_principal(session, name, lock=True)
    if row.deleted_at is not None:
        raise ResourceNotFound(name=str(name))
    return row


async def list_principals(
    session: AsyncSession, tenant: str, *, after: str, size: int, show_deleted: bool
) -> list[PrincipalRow]:
    """Return up to `size` principals in the order of their ids."""
    query = select(PrincipalRow).where(PrincipalRow.tenant_id == tenant)
    deleted = None if show_deleted else col(PrincipalRow.deleted_at)
    return await _page(session, query, col(PrincipalRow.principal_id), after=after, size=size, deleted=deleted)
