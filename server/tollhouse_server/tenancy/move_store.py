"""SQL of moves of departments. Every function works in its caller's transaction; `begin_move` comes first."""

import base64
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlmodel import col, select, tuple_
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.integrity import constraints
from tollhouse_server.database.rows import change, find, insert, run_sql
from tollhouse_server.errors import DepartmentRing, MergeObstructed, ResourceExists, ResourceNotFound
from tollhouse_server.names import DepartmentMoveName, DepartmentName, TenantName
from tollhouse_server.tenancy.merge_store import merge, own_counts, relocate
from tollhouse_server.tenancy.moves import Tree, failure_of
from tollhouse_server.tenancy.store import active_department, active_tenant, get_tenant
from tollhouse_server.tenancy.tables import DepartmentMoveRow, DepartmentRow

SOON_SECONDS: Final = 2.0
"""How far ahead `due_tenants` looks: longer than anyone waits before he asks again."""

# Not clock_timestamp(), which no index can be asked for: the statement's own time is a little earlier, never later.
_DUE: Final = """
SELECT tenant_id, extract(epoch FROM min(effective_at) - statement_timestamp())::float8 AS seconds
FROM department_move
WHERE state = 'SCHEDULED' AND effective_at <= statement_timestamp() + make_interval(secs => :soon)
GROUP BY tenant_id
"""

# Limits are the ledger's, which lies above this room; how many of them a move concerns is asked here all the same, so
# that one statement counts everything that is below the moved department.
_CONCERNED: Final = """
SELECT count(DISTINCT d.department_id) AS departments, count(p.project_id) AS projects,
    (SELECT count(*) FROM usage_limit WHERE tenant_id = :tenant AND state = 'ACTIVE' AND scope = ANY(:left))
        AS limits_left,
    (SELECT count(*) FROM usage_limit WHERE tenant_id = :tenant AND state = 'ACTIVE' AND scope = ANY(:joined))
        AS limits_joined
FROM department d
LEFT JOIN project p ON p.tenant_id = d.tenant_id AND p.department_id = d.department_id AND p.state = 'ACTIVE'
WHERE d.tenant_id = :tenant AND d.state = 'ACTIVE' AND d.path <@ text2ltree(:top)
"""


async def begin_move(session: AsyncSession, tenant: str) -> None:
    """Let nobody else move a department of this tenant until the transaction ends; comes before every other lock.

    Two moves that cross could each put the other's department below its own.

    Raises:
        ResourceNotFound: there is no such tenant.
    """
    await get_tenant(session, TenantName(tenant), lock=True)


async def foresee(session: AsyncSession, row: DepartmentRow, parent: str | None, at: datetime) -> tuple[str, str]:
    """Return the paths of a department before and after a move at `at`, moves scheduled up to then considered.

    For a merge into `parent` they are those that its contents would have with it.

    Raises:
        ResourceNotFound: the new parent is missing or deleted.
        DepartmentRing: the new parent will be the department itself or below it.
    """
    tenant = {"tenant": row.tenant_id}
    active = "SELECT department_id, parent_id FROM department WHERE tenant_id = :tenant AND state = 'ACTIVE'"
    parents = (await run_sql(session, active, tenant)).all()
    tree = Tree(row.tenant_id, {one.department_id: one.parent_id for one in parents})
    scheduled = await run_sql(
        session,
        "SELECT kind, department_id, parent_id FROM department_move WHERE tenant_id = :tenant AND state = 'SCHEDULED'"
        " AND effective_at <= :at ORDER BY effective_at, created_at, move_id",
        {**tenant, "at": at},
    )
    tree.expect((one.kind, one.department_id, one.parent_id) for one in scheduled)
    before = tree.path(row.department_id)
    tree.move(row.department_id, parent)
    return ".".join(before), ".".join(tree.path(row.department_id))


async def add_move(session: AsyncSession, row: DepartmentMoveRow, *, top: str) -> DepartmentMoveRow:
    """Keep a move, made or scheduled; its id and counts are filled in here. `top` is the department's path as it is.

    Raises:
        ResourceExists: the department is to move at the same moment already.
    """
    row.move_id = f"m-{base64.b32encode(secrets.token_bytes(5)).decode().lower()}"
    before, after = row.path_before.split("."), row.path_after.split(".")
    found = await run_sql(
        session,
        _CONCERNED,
        {
            "tenant": row.tenant_id,
            "top": top,
            "left": [str(DepartmentName(row.tenant_id, one)) for one in before if one not in after],
            "joined": [str(DepartmentName(row.tenant_id, one)) for one in after if one not in before],
        },
    )
    concerned = found.one()
    if row.kind == "MERGE":
        row.own_limits, row.own_grants = await own_counts(session, row.tenant_id, row.department_id)
    row.department_count, row.project_count = concerned.departments, concerned.projects
    row.limits_left, row.limits_joined = concerned.limits_left, concerned.limits_joined
    department = DepartmentName(row.tenant_id, row.department_id)
    exists = ResourceExists(name=f"A move of {department} at {row.effective_at.isoformat()}")
    with constraints({"department_move_once": exists}):
        return await insert(session, row)


async def get_move(session: AsyncSession, name: DepartmentMoveName, *, lock: bool = False) -> DepartmentMoveRow:
    """Return a move; with `lock` it stays as it is until the transaction ends.

    Raises:
        ResourceNotFound: there is none.
    """
    query = select(DepartmentMoveRow).where(
        DepartmentMoveRow.tenant_id == name.tenant, DepartmentMoveRow.move_id == name.department_move
    )
    return await find(session, query, name, lock=lock)


async def list_moves(
    session: AsyncSession,
    tenant: str,
    *,
    department: str | None,
    state: str | None,
    before: tuple[datetime, str] | None,
    size: int,
) -> Sequence[DepartmentMoveRow]:
    """Return up to `size` moves, the latest effective one first, after the position `before`."""
    key = tuple_(col(DepartmentMoveRow.effective_at), col(DepartmentMoveRow.move_id))
    query = select(DepartmentMoveRow).where(DepartmentMoveRow.tenant_id == tenant)
    if department is not None:
        query = query.where(DepartmentMoveRow.department_id == department)
    if state is not None:
        query = query.where(DepartmentMoveRow.state == state)
    if before is not None:
        query = query.where(key < before)
    ordered = query.order_by(col(DepartmentMoveRow.effective_at).desc(), col(DepartmentMoveRow.move_id).desc())
    return (await session.exec(ordered.limit(size))).all()


async def due_tenants(session: AsyncSession) -> dict[str, float]:
    """Return the tenants with a move that is due or soon will be, and in how many seconds: 0 or less, it is due."""
    return {row.tenant_id: row.seconds for row in await run_sql(session, _DUE, {"soon": SOON_SECONDS})}


async def due_moves(session: AsyncSession, tenant: str) -> Sequence[DepartmentMoveRow]:
    """Return the moves that are due by the database's clock, in their order, locked; `begin_move` came before."""
    now = (await run_sql(session, "SELECT clock_timestamp()")).scalar_one()
    query = select(DepartmentMoveRow).where(
        DepartmentMoveRow.tenant_id == tenant,
        DepartmentMoveRow.state == "SCHEDULED",
        col(DepartmentMoveRow.effective_at) <= now,
    )
    ordered = query.order_by(
        col(DepartmentMoveRow.effective_at), col(DepartmentMoveRow.created_at), col(DepartmentMoveRow.move_id)
    )
    return (await session.exec(ordered.with_for_update(key_share=True))).all()


async def carry_out(session: AsyncSession, move: DepartmentMoveRow) -> None:
    """Make a locked move that is due; one that has become impossible is marked as FAILED, with its reason."""
    now = (await run_sql(session, "SELECT clock_timestamp()")).scalar_one()
    try:
        await active_tenant(session, TenantName(move.tenant_id))
        row = await active_department(session, DepartmentName(move.tenant_id, move.department_id))
        before = row.path
        if move.kind == "MERGE":
            await merge(session, row, str(move.parent_id), limit_policy=move.limit_policy)
        else:
            await relocate(session, row, move.parent_id)
    except (DepartmentRing, MergeObstructed, ResourceNotFound) as error:
        await change(session, move, state="FAILED", failure=failure_of(error), ended_at=now)
        return
    await change(session, move, state="APPLIED", path_before=before, path_after=row.path, ended_at=now)
