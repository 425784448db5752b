"""Two administrators who change the same rights at the same moment wait for each other, and both are served."""

import asyncio

import pytest
from google.protobuf.message import Message
from tollhouse.admin.v1 import groups_pb2, roles_pb2
from tollhouse_server.access.granting import lock_rights
from tollhouse_server.database.rows import run_sql

from tests.integration.admin.plane import Plane

ACME = "tenants/acme"
GROUP, EMPTY, ROLE = f"{ACME}/groups/staff", f"{ACME}/groups/empty", f"{ACME}/roles/extra"
ANN = f"{ACME}/principals/ann"

CROSSINGS: list[tuple[Message, str]] = [
    (
        groups_pb2.RemoveGroupMembersRequest(name=GROUP, principals=[ANN]),
        "DELETE FROM group_member WHERE principal_id = 'ann'",
    ),
    (groups_pb2.DeleteGroupRequest(name=EMPTY), "DELETE FROM role_grant WHERE group_id = 'empty'"),
    (
        roles_pb2.DeleteRoleRequest(name=ROLE),
        "SELECT FROM tenant_role WHERE role_id = 'extra' FOR KEY SHARE",
    ),
]
"""What one asks for, and what another does meanwhile who has locked the tenant's rights first."""


async def is_waiting(plane: Plane) -> bool:
    """Tell whether somebody waits for a lock in this database."""
    waiting = (
        "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)"
        " WHERE NOT granted AND datname = current_database()"
    )
    async with plane.database.transaction() as session:
        return bool((await run_sql(session, waiting)).scalar_one())


@pytest.mark.parametrize(("request_", "meanwhile"), CROSSINGS, ids=[one.DESCRIPTOR.name for one, _ in CROSSINGS])
async def test_who_takes_rights_away_waits_before_he_has_locked_any(
    plane: Plane, request_: Message, meanwhile: str
) -> None:
    """Otherwise each would hold what the other waits for."""
    await plane.tenant("acme")
    await plane.key("acme", "ann")
    role = roles_pb2.Role(permissions=["limits.get"])
    await plane.call(roles_pb2.CreateRoleRequest(parent=ACME, role_id="extra", role=role))
    for group in ("staff", "empty"):
        await plane.call(groups_pb2.CreateGroupRequest(parent=ACME, group_id=group))
    await plane.call(groups_pb2.AddGroupMembersRequest(name=GROUP, principals=[ANN]))
    grant = roles_pb2.RoleGrant(group=EMPTY, role="roles/read-only", scope=ACME)
    await plane.call(roles_pb2.CreateRoleGrantRequest(parent=ACME, role_grant=grant))

    async with asyncio.TaskGroup() as tasks, plane.database.transaction() as session:
        await lock_rights(session, "acme")
        tasks.create_task(plane.call(request_))
        async with asyncio.timeout(10):
            while not await is_waiting(plane):  # noqa: ASYNC110 - the database tells nobody
                await asyncio.sleep(0.01)
        await run_sql(session, meanwhile)
