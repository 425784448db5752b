"""SQL that makes many departments, projects or principals at once. The caller holds the tenant."""

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Final, TypeVar

from sqlmodel import SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.rows import run_sql
from tollhouse_server.errors import ResourceExists, ResourceNotFound, WrongState
from tollhouse_server.names import DepartmentName, PrincipalName, TenantName
from tollhouse_server.tenancy.store import read_clock, unique_principal
from tollhouse_server.tenancy.tables import DepartmentRow, PrincipalRow, ProjectRow

_PORTION: Final = 500
"""Rows written at once: between two portions the process serves others."""

_LOCK_DEPARTMENTS: Final = """
SELECT department_id, path::text AS path FROM department
WHERE tenant_id = :tenant AND department_id = ANY(:ids) AND deleted_at IS NULL
ORDER BY department_id FOR NO KEY UPDATE
"""
_LOCK_OWNERS: Final = """
SELECT principal_id, state FROM principal
WHERE tenant_id = :tenant AND principal_id = ANY(:ids) AND deleted_at IS NULL
ORDER BY principal_id FOR NO KEY UPDATE
"""
_WITH_EMAIL: Final = """
SELECT wanted.id FROM unnest(CAST(:ids AS text[]), CAST(:emails AS text[])) AS wanted (id, email)
JOIN principal p ON p.tenant_id = :tenant AND lower(p.email) = wanted.email AND p.email <> '' AND p.deleted_at IS NULL
LIMIT 1
"""
_WITH_SUBJECT: Final = """
SELECT wanted.id FROM unnest(CAST(:ids AS text[]), CAST(:issuers AS text[]), CAST(:subjects AS text[]))
    AS wanted (id, issuer, subject)
JOIN principal p ON p.tenant_id = :tenant AND p.issuer = wanted.issuer AND p.subject = wanted.subject
    AND p.subject <> '' AND p.deleted_at IS NULL
LIMIT 1
"""

Row = TypeVar("Row", DepartmentRow, ProjectRow, PrincipalRow)


async def create_departments(session: AsyncSession, tenant: str, rows: Sequence[DepartmentRow]) -> None:
    """Insert departments, each after the one above it; their paths are worked out here.

    Raises:
        ResourceExists: an id is taken in this tenant.
        ResourceNotFound: a parent or an owner is missing or deleted.
        WrongState: an owner is disabled.
    """
    await _require_owners(session, tenant, [row.owner_id for row in rows])
    paths = await _paths(session, tenant, {row.parent_id for row in rows if row.parent_id})
    for row in rows:
        if row.parent_id and row.parent_id not in paths:
            raise ResourceNotFound(name=str(DepartmentName(tenant, row.parent_id)))
        row.path = f"{paths[row.parent_id]}.{row.department_id}" if row.parent_id else row.department_id
        paths[row.department_id] = row.path
    taken = select(DepartmentRow.department_id).where(
        DepartmentRow.tenant_id == tenant, col(DepartmentRow.department_id).in_([row.department_id for row in rows])
    )
    for department in (await session.exec(taken.limit(1))).all():
        raise ResourceExists(name=str(DepartmentName(tenant, department)))
    async for portion in _portions(session, tenant, rows):
        await _write(session, portion)


async def create_projects(session: AsyncSession, tenant: str, rows: Sequence[ProjectRow]) -> None:
    """Insert projects.

    Raises:
        ResourceExists: an id is taken in this tenant.
        ResourceNotFound: a department or an owner is missing or deleted.
        WrongState: an owner is disabled.
    """
    await _require_owners(session, tenant, [row.owner_id for row in rows])
    paths = await _paths(session, tenant, {row.department_id for row in rows})
    for row in rows:
        if row.department_id not in paths:
            raise ResourceNotFound(name=str(DepartmentName(tenant, row.department_id)))
    taken = select(ProjectRow).where(
        ProjectRow.tenant_id == tenant, col(ProjectRow.project_id).in_([row.project_id for row in rows])
    )
    for other in (await session.exec(taken.limit(1))).all():
        raise ResourceExists(name=f"A project {other.project_id} of {TenantName(tenant)}")
    async for portion in _portions(session, tenant, rows):
        await _write(session, portion)


async def create_principals(session: AsyncSession, tenant: str, rows: Sequence[PrincipalRow]) -> None:
    """Insert principals.

    Raises:
        ResourceExists: an id, an e-mail address or a subject is taken in this tenant.
    """
    taken = select(PrincipalRow.principal_id).where(
        PrincipalRow.tenant_id == tenant, col(PrincipalRow.principal_id).in_([row.principal_id for row in rows])
    )
    for principal in (await session.exec(taken.limit(1))).all():
        raise ResourceExists(name=str(PrincipalName(tenant, principal)))
    await _require_unlike(session, tenant, rows)
    async for portion in _portions(session, tenant, rows):
        with unique_principal(tenant, portion[0].principal_id):
            await _write(session, portion)


async def _require_unlike(session: AsyncSession, tenant: str, rows: Sequence[PrincipalRow]) -> None:
    """Name the row whose e-mail address or subject another principal has; of a portion the indexes tell only that."""
    emails, subjects = set[str](), set[tuple[str, str]]()
    for row in rows:
        email, subject = row.email.lower(), (row.issuer, row.subject)
        if (email and email in emails) or (row.subject and subject in subjects):
            raise _alike(tenant, row.principal_id)
        emails.add(email)
        subjects.add(subject)
    wanted = {
        "tenant": tenant,
        "ids": [row.principal_id for row in rows],
        "emails": [row.email.lower() for row in rows],
        "issuers": [row.issuer for row in rows],
        "subjects": [row.subject for row in rows],
    }
    for statement in (_WITH_EMAIL, _WITH_SUBJECT):
        for principal in (await run_sql(session, statement, wanted)).scalars():
            raise _alike(tenant, principal)


def _alike(tenant: str, principal: str) -> ResourceExists:
    name = PrincipalName(tenant, principal)
    return ResourceExists(name=f"Another principal with the e-mail address or the subject of {name}")


async def _portions(session: AsyncSession, tenant: str, rows: Sequence[Row]) -> AsyncIterator[Sequence[Row]]:
    """Yield rows in portions, with the moment of their creation, which then need not be read back."""
    now = (await read_clock(session, tenant)).now
    for start in range(0, len(rows), _PORTION):
        portion = rows[start : start + _PORTION]
        for row in portion:
            row.created_at = row.updated_at = now
        yield portion


async def _write(session: AsyncSession, rows: Sequence[SQLModel]) -> None:
    session.add_all(rows)
    await session.flush()


async def _paths(session: AsyncSession, tenant: str, departments: Collection[str]) -> dict[str, str]:
    found = await run_sql(session, _LOCK_DEPARTMENTS, {"tenant": tenant, "ids": sorted(departments)})
    return {row.department_id: row.path for row in found}


async def _require_owners(session: AsyncSession, tenant: str, owners: Collection[str | None]) -> None:
    wanted = sorted({owner for owner in owners if owner is not None})
    found = await run_sql(session, _LOCK_OWNERS, {"tenant": tenant, "ids": wanted})
    states = {row.principal_id: row.state for row in found}
    for owner in wanted:
        name = str(PrincipalName(tenant, owner))
        if owner not in states:
            raise ResourceNotFound(name=name)
        if states[owner] != "ACTIVE":
            raise WrongState(name=name, state=states[owner], needed="ACTIVE")
