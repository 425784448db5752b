"""SQL that changes the tree: a department is put elsewhere, or what is in it is, and it ends.

What other rooms keep by a scope's name is renamed here all the same, although they lie above this room: in one
transaction with the tree, so that no limit, grant or policy of a project is ever without its project.
"""

from datetime import datetime
from typing import Final

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.rows import change, run_sql
from tollhouse_server.errors import DepartmentRing, MergeObstructed
from tollhouse_server.names import DepartmentName, LimitName, TenantName
from tollhouse_server.tenancy.store import active_department, path_below
from tollhouse_server.tenancy.tables import DepartmentRow

_RELOCATE: Final = """
UPDATE department
SET path = CASE WHEN path = text2ltree(:old) THEN text2ltree(:new)
    ELSE text2ltree(:new) || subpath(path, nlevel(text2ltree(:old))) END
WHERE tenant_id = :tenant AND path <@ text2ltree(:old)
"""

# Ended departments below come along, and those that were merged into this one before point to where it goes.
_TAKE_OVER: Final = (
    """
UPDATE department
SET path = text2ltree(:new) || subpath(path, nlevel(text2ltree(:old))),
    parent_id = CASE WHEN parent_id = :department THEN :into ELSE parent_id END,
    merged_into = CASE WHEN merged_into = :department THEN :into ELSE merged_into END
WHERE tenant_id = :tenant AND path <@ text2ltree(:old) AND department_id <> :department
""",
    """
UPDATE project
SET department_id = :into, former_departments = array_append(former_departments, :department),
    version = version + 1, updated_at = clock_timestamp()
WHERE tenant_id = :tenant AND department_id = :department
""",
)

# Each with a column `scope`, in which the names of projects, and of the keys in them, begin with their department's.
_SCOPED_TABLES: Final = ("usage_limit", "role_grant", "routing_policy")

_RENAMES: Final = tuple(
    f"""
UPDATE {table} SET scope = :into_name || substr(scope, length(:name) + 1)
WHERE tenant_id = :tenant AND starts_with(scope, :name || '/projects/')
"""  # noqa: S608 - tables of ours
    for table in _SCOPED_TABLES
)

_RENAME_KEPT: Final = """
UPDATE content_policy SET version = version + 1, updated_at = clock_timestamp(), scopes = (
    SELECT array_agg(
        CASE WHEN starts_with(one, :name || '/projects/') THEN :into_name || substr(one, length(:name) + 1) ELSE one END
        ORDER BY place
    ) FROM unnest(scopes) WITH ORDINALITY AS kept (one, place))
WHERE tenant_id = :tenant AND EXISTS (SELECT FROM unnest(scopes) AS one WHERE starts_with(one, :name || '/projects/'))
"""

_GRANT_ANEW: Final = """
INSERT INTO role_grant (tenant_id, grant_id, principal_id, group_id, role, scope, creator, created_at)
SELECT g.tenant_id, 'g-' || left(md5(g.grant_id || moved.scope), 16), g.principal_id, g.group_id, g.role, moved.scope,
    g.creator, clock_timestamp()
FROM role_grant g
CROSS JOIN (
    SELECT :tenant_name || '/departments/' || department_id AS scope FROM department
    WHERE tenant_id = :tenant AND parent_id = :department AND state = 'ACTIVE'
    UNION ALL
    SELECT :into_name || '/projects/' || project_id FROM project
    WHERE tenant_id = :tenant AND department_id = :department AND state = 'ACTIVE'
) AS moved
WHERE g.tenant_id = :tenant AND g.scope = :name
ON CONFLICT DO NOTHING
"""

_OWN_LIMITS: Final = {
    "": (),
    "TRANSFER": (
        """
UPDATE usage_limit SET scope = :into_name, version = version + 1, updated_at = clock_timestamp()
WHERE tenant_id = :tenant AND scope = :name AND state = 'ACTIVE'
""",
    ),
    "END": (
        # A wallet is money: it goes where the department goes.
        """
UPDATE usage_limit SET scope = :into_name, version = version + 1, updated_at = clock_timestamp()
WHERE tenant_id = :tenant AND scope = :name AND state = 'ACTIVE' AND kept_by <> ''
""",
        """
UPDATE usage_limit SET state = 'DELETED', version = version + 1, updated_at = clock_timestamp()
WHERE tenant_id = :tenant AND scope = :name AND state = 'ACTIVE'
""",
    ),
}

_OBSTACLES: Final = """
SELECT
    (SELECT min(name) FROM usage_limit WHERE tenant_id = :tenant AND scope = :name AND state = 'ACTIVE') AS limit_id,
    CASE WHEN EXISTS (SELECT FROM routing_policy WHERE tenant_id = :tenant AND scope = :name AND policy <> '{}')
        THEN 'routingPolicy'
        WHEN EXISTS (SELECT FROM data_policy WHERE tenant_id = :tenant AND scope = :name) THEN 'dataPolicy'
        WHEN EXISTS (SELECT FROM content_policy WHERE tenant_id = :tenant AND :name = ANY (scopes)) THEN 'contentPolicy'
    END AS policy
"""

_OWN_COUNTS: Final = """
SELECT
    (SELECT count(*) FROM usage_limit WHERE tenant_id = :tenant AND scope = :name AND state = 'ACTIVE') AS limits,
    (SELECT count(*) FROM role_grant WHERE tenant_id = :tenant AND scope = :name) AS grants
"""


async def relocate(session: AsyncSession, row: DepartmentRow, parent: str | None) -> None:
    """Put a locked department and everything below it under `parent`, or at the top.

    Raises:
        ResourceNotFound: the new parent is missing or deleted.
        DepartmentRing: the new parent is the department itself or below it.
    """
    path = await path_below(session, row.tenant_id, parent, row.department_id)
    _require_no_ring(row, path.rpartition(".")[0], parent)
    await run_sql(session, _RELOCATE, {"tenant": row.tenant_id, "old": row.path, "new": path})
    await session.refresh(row)
    await change(session, row, parent_id=parent)


async def merge(session: AsyncSession, row: DepartmentRow, into: str, *, limit_policy: str) -> None:
    """Put everything in a locked department into another one, and end it.

    Raises:
        ResourceNotFound: the other one is missing, deleted or merged itself.
        DepartmentRing: it is the department itself or below it.
        MergeObstructed: as `require_mergeable`.
    """
    target = await active_department(session, DepartmentName(row.tenant_id, into))
    _require_no_ring(row, target.path, into)
    await require_mergeable(session, row, limit_policy=limit_policy)
    wanted = {
        "tenant": row.tenant_id,
        "tenant_name": f"tenants/{row.tenant_id}",
        "department": row.department_id,
        "name": str(DepartmentName(row.tenant_id, row.department_id)),
        "old": row.path,
        "into": into,
        "into_name": str(DepartmentName(row.tenant_id, into)),
        "new": target.path,
    }
    for statement in (_GRANT_ANEW, *_OWN_LIMITS[limit_policy], *_RENAMES, _RENAME_KEPT, *_TAKE_OVER):
        await run_sql(session, statement, wanted)
    ended: datetime = (await run_sql(session, "SELECT clock_timestamp()")).scalar_one()
    path = f"{target.path}.{row.department_id}"
    await change(session, row, state="MERGED", merged_into=into, parent_id=into, path=path, deleted_at=ended)


def _require_no_ring(row: DepartmentRow, above: str, asked: str | None) -> None:
    if row.department_id in above.split("."):
        name = DepartmentName(row.tenant_id, row.department_id)
        raise DepartmentRing(name=str(name), used_by=str(DepartmentName(row.tenant_id, str(asked))))


async def require_mergeable(session: AsyncSession, row: DepartmentRow, *, limit_policy: str) -> None:
    """Return if nothing that the department itself says would be lost in silence.

    Raises:
        MergeObstructed: it has a policy, kept content is narrowed to it, or it has limits of which nobody has said what
            becomes of them.
    """
    name = DepartmentName(row.tenant_id, row.department_id)
    found = (await run_sql(session, _OBSTACLES, {"tenant": row.tenant_id, "name": str(name)})).one()
    if found.policy is not None:
        owner = TenantName(row.tenant_id) if found.policy == "contentPolicy" else name
        raise MergeObstructed(name=str(name), obstacle=f"{owner}/{found.policy}")
    if found.limit_id is not None and not limit_policy:
        raise MergeObstructed(name=str(name), obstacle=str(LimitName(row.tenant_id, found.limit_id)))


async def own_counts(session: AsyncSession, tenant: str, department: str) -> tuple[int, int]:
    """Return how many limits and how many role grants there are on exactly this department."""
    asked = {"tenant": tenant, "name": str(DepartmentName(tenant, department))}
    found = (await run_sql(session, _OWN_COUNTS, asked)).one()
    return found.limits, found.grants
