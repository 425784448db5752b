"""SQL of tenants, departments, projects and principals, one at a time, in its caller's transaction."""

from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from sqlalchemy import func, text
from sqlmodel import SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from tollhouse_server.database.integrity import constraints
from tollhouse_server.database.rows import find, insert, run_sql
from tollhouse_server.errors import ResourceExists, ResourceNotFound, WrongState
from tollhouse_server.names import DepartmentName, PrincipalName, ProjectName, Scope, TenantName
from tollhouse_server.tenancy.tables import DepartmentRow, PrincipalRow, ProjectRow, TenantRow

Row = TypeVar("Row", bound=SQLModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowing:
    """Which departments, projects or principals a list is about; what is None narrows nothing.

    A state shows the deleted ones too if it is theirs; without one `show_deleted` says whether they are there.
    """

    show_deleted: bool = False
    state: str | None = None
    cost_centre: str | None = None
    owner: str | None = None
    kind: str | None = None
    email: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """The database's time, by which records are booked, and the tenant's calendar."""

    now: datetime
    zone: ZoneInfo
    fiscal_month_start_day: int


async def _page(session: AsyncSession, query: SelectOfScalar[Row], key: Any, *, after: str, size: int) -> list[Row]:
    if after:
        query = query.where(key > after)
    return list((await session.exec(query.order_by(key).limit(size))).all())


def _narrowed(query: SelectOfScalar[Row], table: Any, to: Narrowing) -> SelectOfScalar[Row]:
    if to.state is not None:
        query = query.where(table.state == to.state)
    elif not to.show_deleted:
        query = query.where(table.deleted_at.is_(None))
    if to.cost_centre is not None:
        query = query.where(table.cost_centre == to.cost_centre)
    if to.owner is not None:
        query = query.where(table.owner_id == to.owner)
    if to.kind is not None:
        query = query.where(table.kind == to.kind)
    if to.email is not None:
        query = query.where(func.lower(table.email) == to.email.lower())
    return query


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
    query = _narrowed(select(TenantRow), TenantRow, Narrowing(show_deleted=show_deleted))
    return await _page(session, query, col(TenantRow.tenant_id), after=after, size=size)


async def read_clock(session: AsyncSession, tenant: str) -> Clock:
    """Return the database's time and the tenant's calendar.

    Raises:
        ResourceNotFound: there is no such tenant.
    """
    clocks = await read_clocks(session, [tenant])
    if tenant not in clocks:
        raise ResourceNotFound(name=str(TenantName(tenant)))
    return clocks[tenant]


async def read_clocks(session: AsyncSession, tenants: Collection[str]) -> dict[str, Clock]:
    """Return the database's time and the calendar of each of the tenants that there are, by id."""
    query = """
SELECT tenant_id, clock_timestamp() AS now, time_zone, fiscal_month_start_day FROM tenant
WHERE tenant_id = ANY (:tenants)
"""
    return {
        row.tenant_id: Clock(
            now=row.now, zone=ZoneInfo(row.time_zone), fiscal_month_start_day=row.fiscal_month_start_day
        )
        for row in await run_sql(session, query, {"tenants": list(tenants)})
    }


# --- departments ------------------------------------------------------------------------------------------------------


async def create_department(session: AsyncSession, row: DepartmentRow) -> DepartmentRow:
    """Insert a department below `row.parent_id`, or at the top; `row.path` is worked out here.

    Raises:
        ResourceExists: the id is taken in this tenant.
        ResourceNotFound: the tenant, the parent or the owner is missing or deleted.
        WrongState: the owner is disabled.
    """
    name = DepartmentName(row.tenant_id, row.department_id)
    row.path = await path_below(session, row.tenant_id, row.parent_id, row.department_id)
    await require_owner(session, row.tenant_id, row.owner_id)
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
    session: AsyncSession, tenant: str, *, root: DepartmentName | None, after: str, size: int, to: Narrowing
) -> list[DepartmentRow]:
    """Return up to `size` departments in the order of their ids; `root` narrows to it and what is below it."""
    query = select(DepartmentRow).where(DepartmentRow.tenant_id == tenant)
    if root is not None:
        top = await get_department(session, root)
        query = query.where(text("department.path <@ text2ltree(:top)").bindparams(top=top.path))
    key = col(DepartmentRow.department_id)
    return await _page(session, _narrowed(query, DepartmentRow, to), key, after=after, size=size)


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


# --- projects ---------------------------------------------------------------------------------------------------------


async def create_project(session: AsyncSession, row: ProjectRow) -> ProjectRow:
    """Insert a project.

    Raises:
        ResourceExists: the id is taken in this tenant, be it in another department.
        ResourceNotFound: the department or the owner is missing or deleted.
        WrongState: the owner is disabled.
    """
    await active_department(session, DepartmentName(row.tenant_id, row.department_id))
    await require_owner(session, row.tenant_id, row.owner_id)
    # Perhaps in another department, where the caller may not look.
    taken = ResourceExists(name=f"A project {row.project_id} of {TenantName(row.tenant_id)}")
    with constraints({"project_pkey": taken}):
        return await insert(session, row)


async def get_project(session: AsyncSession, name: ProjectName, *, lock: bool = False) -> ProjectRow:
    """Return a project, deleted or not. The department in the name must be the right one.

    To read, one that was merged away with the project in it does too: a lock is wanted for names that are kept.

    Raises:
        ResourceNotFound: there is none.
    """
    query = select(ProjectRow).where(ProjectRow.tenant_id == name.tenant, ProjectRow.project_id == name.project)
    in_department = col(ProjectRow.department_id) == name.department
    if not lock:
        in_department |= col(ProjectRow.former_departments).contains([name.department])
    return await find(session, query.where(in_department), name, lock=lock)


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

    A name that it had before a merge finds it too.

    Raises:
        ResourceNotFound: there is no such project, or it, its department or its tenant is not active.
    """
    found = await run_sql(
        session,
        "SELECT d.path::text FROM project p JOIN department d USING (tenant_id, department_id)"
        " JOIN tenant t USING (tenant_id)"
        " WHERE p.tenant_id = :tenant AND p.project_id = :project"
        " AND (p.department_id = :department OR p.former_departments @> ARRAY[:department])"
        " AND p.state = 'ACTIVE' AND d.state = 'ACTIVE' AND t.state = 'ACTIVE'",
        {"tenant": name.tenant, "department": name.department, "project": name.project},
    )
    path: str | None = found.scalar_one_or_none()
    if path is None:
        raise ResourceNotFound(name=str(name))
    return tuple(path.split("."))


async def list_projects(
    session: AsyncSession, tenant: str, *, department: str | None, after: str, size: int, to: Narrowing
) -> list[ProjectRow]:
    """Return up to `size` projects of one department, or of all, in the order of their ids."""
    query = select(ProjectRow).where(ProjectRow.tenant_id == tenant)
    if department is not None:
        query = query.where(ProjectRow.department_id == department)
    return await _page(session, _narrowed(query, ProjectRow, to), col(ProjectRow.project_id), after=after, size=size)


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
        ResourceExists: the id, the e-mail address or the subject is taken in this tenant.
        ResourceNotFound: the tenant is missing or deleted.
    """
    await active_tenant(session, TenantName(row.tenant_id))
    with unique_principal(row.tenant_id, row.principal_id):
        return await insert(session, row)


def unique_principal(tenant: str, principal: str) -> AbstractContextManager[None]:
    """Tell what of a principal's another one has already, where writing it fails for that."""
    return constraints(
        {
            "principal_pkey": ResourceExists(name=str(PrincipalName(tenant, principal))),
            "principal_email": ResourceExists(name=f"A principal of tenants/{tenant} with this e-mail address"),
            "principal_subject": ResourceExists(name=f"A principal of tenants/{tenant} with this subject"),
        }
    )


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
    session: AsyncSession, tenant: str, *, after: str, size: int, to: Narrowing
) -> list[PrincipalRow]:
    """Return up to `size` principals in the order of their ids."""
    query = _narrowed(select(PrincipalRow).where(PrincipalRow.tenant_id == tenant), PrincipalRow, to)
    return await _page(session, query, col(PrincipalRow.principal_id), after=after, size=size)


async def require_owner(session: AsyncSession, tenant: str, owner: str | None) -> None:
    """Return if there is an active principal of this id, or none is named, and keep it from being deleted meanwhile.

    Raises:
        ResourceNotFound: it is missing or deleted.
        WrongState: it is disabled.
    """
    if owner is None:
        return
    row = await active_principal(session, PrincipalName(tenant, owner))
    if row.state != "ACTIVE":
        raise WrongState(name=str(PrincipalName(tenant, owner)), state=row.state, needed="ACTIVE")
