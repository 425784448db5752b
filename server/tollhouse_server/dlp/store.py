"""The SQL of data policies. Every function works in its caller's transaction."""

from datetime import UTC, datetime
from typing import TypeAlias

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.dlp.policy import DataPolicy, scopes_above
from tollhouse_server.dlp.tables import DataPolicyRow
from tollhouse_server.errors import EtagMismatch, ResourceNotFound
from tollhouse_server.names import DepartmentName, TenantName
from tollhouse_server.tenancy.store import active_department, require_active

DataScope: TypeAlias = TenantName | DepartmentName


async def load_policies(session: AsyncSession) -> dict[str, DataPolicy]:
    """Return every policy by the name of its scope."""
    rows = (await session.exec(select(DataPolicyRow))).all()
    return {row.scope: policy_of(row) for row in rows}


def policy_of(row: DataPolicyRow | None) -> DataPolicy:
    """Return what a scope says; nothing where it has no row."""
    return DataPolicy() if row is None else DataPolicy.model_validate(row.policy)


async def find_policy(session: AsyncSession, scope: DataScope, *, lock: bool = False) -> DataPolicyRow | None:
    """Return a scope's row, None if it says nothing.

    Raises:
        ResourceNotFound: the scope does not exist.
    """
    # It locks the scope too: two who say the first word of one scope come after each other.
    await require_active(session, scope)
    query = select(DataPolicyRow).where(
        col(DataPolicyRow.tenant_id) == scope.tenant, col(DataPolicyRow.scope) == str(scope)
    )
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    return (await session.exec(query)).one_or_none()


async def policies_above(session: AsyncSession, scope: DataScope) -> list[tuple[str, DataPolicy]]:
    """Return the policies in force in a scope with the scopes that say so, the topmost first.

    Raises:
        ResourceNotFound: the scope does not exist.
    """
    path: tuple[str, ...] = ()
    if isinstance(scope, DepartmentName):
        path = tuple((await active_department(session, scope)).path.split("."))
    scopes = scopes_above(scope.tenant, path)
    query = select(DataPolicyRow).where(
        col(DataPolicyRow.tenant_id) == scope.tenant, col(DataPolicyRow.scope).in_(scopes)
    )
    found = {row.scope: policy_of(row) for row in (await session.exec(query)).all()}
    return [(one, found[one]) for one in scopes if one in found]


async def put_policy(
    session: AsyncSession, scope: DataScope, policy: DataPolicy, *, version: int | None
) -> DataPolicyRow:
    """Write what a scope says.

    Raises:
        ResourceNotFound: the scope does not exist.
        EtagMismatch: the policy is not at `version`; 0 is that of a scope that says nothing.
    """
    row = await find_policy(session, scope, lock=True)
    _check_version(row, scope, version)
    content, now = policy.model_dump(mode="json", exclude_defaults=True), datetime.now(UTC)
    if row is None:
        row = DataPolicyRow(tenant_id=scope.tenant, scope=str(scope), policy=content, created_at=now, updated_at=now)
    elif policy_of(row) != policy:
        row.policy, row.version, row.updated_at = content, row.version + 1, now
    session.add(row)
    await session.flush()
    return row


async def delete_policy(session: AsyncSession, scope: DataScope, *, version: int | None) -> None:
    """Make a scope say nothing.

    Raises:
        ResourceNotFound: it says nothing, or does not exist.
        EtagMismatch: the policy is not at `version`.
    """
    row = await find_policy(session, scope, lock=True)
    if row is None:
        raise ResourceNotFound(name=f"{scope}/dataPolicy")
    _check_version(row, scope, version)
    await session.delete(row)
    await session.flush()


def _check_version(row: DataPolicyRow | None, scope: DataScope, version: int | None) -> None:
    if version is not None and version != (0 if row is None else row.version):
        raise EtagMismatch(name=f"{scope}/dataPolicy")
