"""What the authorizer knows: of one moment, and never older than what is given on it."""

from typing import Any

import pytest
from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import groups_pb2, principals_pb2, roles_pb2, tenants_pb2
from tollhouse_server.access import rights_store, role_store
from tollhouse_server.access.authorizer import Authorizer
from tollhouse_server.bootstrap import create_administrator_key
from tollhouse_server.database.epochs import EpochWatch
from tollhouse_server.database.rows import run_sql
from tollhouse_server.errors import CredentialsInvalid, PermissionDenied
from tollhouse_server.names import TenantRoleName

from tests.integration.admin.plane import PEPPER, Plane
from tests.unit.access.build import principal

ACME = "tenants/acme"
STAFF = f"{ACME}/groups/staff"
ANN = f"{ACME}/principals/ann"


async def test_a_policy_is_of_one_moment(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes into a group after it has lost its role never had the role, also while rights are being read."""
    await plane.tenant("acme")
    await plane.key("acme", "ann")
    await plane.call(groups_pb2.CreateGroupRequest(parent=ACME, group_id="staff"))
    wanted = roles_pb2.RoleGrant(group=STAFF, role="roles/tenant-admin", scope=ACME)
    grant = await plane.call(roles_pb2.CreateRoleGrantRequest(parent=ACME, role_grant=wanted))
    reader = Authorizer(plane.database, EpochWatch(plane.database))

    async def run_and_change(session: AsyncSession, sql: Any, parameters: Any = None) -> Any:
        """Let the group lose its role, and ann join it, after the first page of grants was read."""
        found = await run_sql(session, sql, parameters)
        if "FROM role_grant" in sql and not changed:
            changed.append(sql)
            await plane.call(roles_pb2.DeleteRoleGrantRequest(name=grant.name))
            await plane.call(groups_pb2.AddGroupMembersRequest(name=STAFF, principals=[ANN]))
        return found

    changed: list[str] = []
    monkeypatch.setattr(rights_store, "run_sql", run_and_change)
    (await reader.reload())()

    assert changed
    assert not reader.allows(principal("acme", "ann"), "tenants.update", ACME)


async def test_nothing_is_given_on_knowledge_that_has_become_old(plane: Plane) -> None:
    """A process that stood still after it had let a call in looks again before it judges what the call gives."""
    await plane.tenant("acme")
    await plane.key("acme", "ann", ("finance", ACME))
    watch = EpochWatch(plane.database)
    stale = Authorizer(plane.database, watch)
    await watch.refresh()
    (grant,) = (await plane.call(roles_pb2.ListRoleGrantsRequest(parent=ACME, principal=ANN))).role_grants
    await plane.call(roles_pb2.DeleteRoleGrantRequest(name=grant.name))
    watch._heard_at -= 60

    with pytest.raises(PermissionDenied):
        await stale.require_all(principal("acme", "ann"), ["usage.get"], ACME)


async def test_a_role_is_judged_as_it_is_when_it_is_given(plane: Plane) -> None:
    """Also by a transaction that has read it before, as one does that applies a whole tree."""
    await plane.tenant("acme")
    role = roles_pb2.Role(permissions=["limits.get"])
    await plane.call(roles_pb2.CreateRoleRequest(parent=ACME, role_id="extra", role=role))
    name = TenantRoleName("acme", "extra")

    async with plane.database.transaction() as session:
        kept = await role_store.get_role(session, name)
        wider = roles_pb2.Role(name=str(name), permissions=["limits.get", "limits.delete"])
        await plane.call(roles_pb2.UpdateRoleRequest(role=wider))
        judged = await role_store.role_called(session, str(name))

    assert judged.permissions == {"limits.get", "limits.delete"}
    assert kept.role_id == "extra"


async def test_the_platform_can_be_administered_again_whoever_was_removed(plane: Plane) -> None:
    """The last administrator may have deleted himself: who runs the server makes a key that works."""
    lost = plane.admin_key
    await plane.call(principals_pb2.DeletePrincipalRequest(name="tenants/platform/principals/administrator"))
    await plane.watch.refresh()
    with pytest.raises(CredentialsInvalid):
        await plane.call(tenants_pb2.ListTenantsRequest(), key=lost)

    key = await create_administrator_key(plane.database, PEPPER)
    await plane.watch.refresh()

    assert (await plane.call(tenants_pb2.ListTenantsRequest(), key=key)).tenants
