"""SQL of access: groups and who is in them."""

from collections.abc import Collection, Sequence
from typing import Final

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.access.tables import GroupMemberRow, GroupRow
from tollhouse_server.database.integrity import constraints
from tollhouse_server.database.rows import find, insert, run_sql
from tollhouse_server.errors import GroupFull, ResourceExists
from tollhouse_server.names import GroupName, PrincipalName

MAX_MEMBERS: Final = 10_000


async def create_group(session: AsyncSession, row: GroupRow) -> GroupRow:
    """Insert a group. The caller holds the tenant.

    Raises:
        ResourceExists: the id is taken in this tenant.
    """
    with constraints({"principal_group_pkey": ResourceExists(name=str(GroupName(row.tenant_id, row.group_id)))}):
        return await insert(session, row)


async def get_group(session: AsyncSession, name: GroupName, *, lock: bool = False) -> GroupRow:
    """Return a group; with `lock` it stays as it is until the transaction ends.

    Raises:
        ResourceNotFound: there is none.
    """
    query = select(GroupRow).where(GroupRow.tenant_id == name.tenant, GroupRow.group_id == name.group)
    return await find(session, query, name, lock=lock)


async def list_groups(session: AsyncSession, tenant: str, *, after: str, size: int) -> list[GroupRow]:
    """Return up to `size` groups in the order of their ids."""
    query = select(GroupRow).where(GroupRow.tenant_id == tenant, col(GroupRow.group_id) > after)
    return list((await session.exec(query.order_by(col(GroupRow.group_id)).limit(size))).all())


async def delete_group(session: AsyncSession, row: GroupRow) -> None:
    """Delete a group with its memberships and its grants; nothing that it gave is left."""
    parameters = {"tenant": row.tenant_id, "group": row.group_id}
    await run_sql(session, "DELETE FROM group_member WHERE tenant_id = :tenant AND group_id = :group", parameters)
    await run_sql(session, "DELETE FROM role_grant WHERE tenant_id = :tenant AND group_id = :group", parameters)
    await session.delete(row)
    await session.flush()


async def members_of(session: AsyncSession, name: GroupName) -> list[str]:
    """Return the ids of all members."""
    return [row.principal_id for row in await list_members(session, name, after="", size=MAX_MEMBERS)]


async def list_members(session: AsyncSession, name: GroupName, *, after: str, size: int) -> list[GroupMemberRow]:
    """Return up to `size` memberships in the order of the principals' ids."""
    query = select(GroupMemberRow).where(
        GroupMemberRow.tenant_id == name.tenant,
        GroupMemberRow.group_id == name.group,
        col(GroupMemberRow.principal_id) > after,
    )
    return list((await session.exec(query.order_by(col(GroupMemberRow.principal_id)).limit(size))).all())


async def members_by_group(session: AsyncSession, tenant: str) -> dict[str, list[str]]:
    """Return who is in each group of a tenant that has members: ids of principals, in order, by the group's id."""
    query = select(GroupMemberRow).where(GroupMemberRow.tenant_id == tenant)
    members: dict[str, list[str]] = {}
    for row in await session.exec(query.order_by(col(GroupMemberRow.principal_id))):
        members.setdefault(row.group_id, []).append(row.principal_id)
    return members


async def add_members(session: AsyncSession, name: GroupName, principals: Sequence[str], *, creator: str) -> list[str]:
    """Put principals into a locked group; return those who were not in it before.

    Raises:
        GroupFull: there would be more than MAX_MEMBERS.
    """
    rows = await run_sql(
        session,
        "INSERT INTO group_member (tenant_id, group_id, principal_id, creator)"
        " SELECT :tenant, :group, p, :creator FROM unnest(CAST(:principals AS text[])) p"
        " ON CONFLICT DO NOTHING RETURNING principal_id",
        {"tenant": name.tenant, "group": name.group, "principals": list(principals), "creator": creator},
    )
    added = sorted(row.principal_id for row in rows)
    count = await member_count(session, name)
    if count > MAX_MEMBERS:
        raise GroupFull(name=str(name), most=MAX_MEMBERS, wanted=count)
    return added


async def remove_members(session: AsyncSession, name: GroupName, principals: Collection[str]) -> list[str]:
    """Take principals out of a group; return those who were in it."""
    rows = await run_sql(
        session,
        "DELETE FROM group_member WHERE tenant_id = :tenant AND group_id = :group"
        " AND principal_id = ANY(:principals) RETURNING principal_id",
        {"tenant": name.tenant, "group": name.group, "principals": list(principals)},
    )
    return sorted(row.principal_id for row in rows)


async def member_count(session: AsyncSession, name: GroupName) -> int:
    """Return how many members a group has."""
    rows = await run_sql(
        session,
        "SELECT count(*) AS members FROM group_member WHERE tenant_id = :tenant AND group_id = :group",
        {"tenant": name.tenant, "group": name.group},
    )
    return int(rows.one().members)


async def leave_all_groups(session: AsyncSession, name: PrincipalName) -> None:
    """Take a principal out of every group: he is about to be deleted."""
    await run_sql(
        session,
        "DELETE FROM group_member WHERE tenant_id = :tenant AND principal_id = :principal",
        {"tenant": name.tenant, "principal": name.principal},
    )
