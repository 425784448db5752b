"""Groups, roles of tenants, and that nobody gives more than he has by any of them."""

from typing import Any

import pytest
from tollhouse.admin.v1 import (
    access_pb2,
    api_keys_pb2,
    departments_pb2,
    groups_pb2,
    limits_pb2,
    principals_pb2,
    projects_pb2,
    roles_pb2,
    tenants_pb2,
    trees_pb2,
)
from tollhouse_server.errors import DutiesConflict, InvalidRequest, PermissionDenied, ResourceInUse, ResourceNotFound

from tests.integration.admin.plane import Plane

ACME = "tenants/acme"
SALES, EMEA = f"{ACME}/departments/sales", f"{ACME}/departments/emea"
READ = tenants_pb2.GetTenantRequest(name=ACME)


def grant_of(role: str, scope: str, *, principal: str = "", group: str = "") -> roles_pb2.CreateRoleGrantRequest:
    grant = roles_pb2.RoleGrant(role=role if "/" in role else f"roles/{role}", scope=scope)
    if principal:
        grant.principal = f"{ACME}/principals/{principal}"
    if group:
        grant.group = f"{ACME}/groups/{group}"
    return roles_pb2.CreateRoleGrantRequest(parent=ACME, role_grant=grant)


def join(group: str, *principals: str) -> groups_pb2.AddGroupMembersRequest:
    names = [f"{ACME}/principals/{one}" for one in principals]
    return groups_pb2.AddGroupMembersRequest(name=f"{ACME}/groups/{group}", principals=names)


def role_of(role: str, *permissions: str) -> roles_pb2.CreateRoleRequest:
    return roles_pb2.CreateRoleRequest(parent=ACME, role_id=role, role=roles_pb2.Role(permissions=permissions))


async def group(plane: Plane, name: str, *grants: tuple[str, str]) -> None:
    """Make a group with (role, scope) grants."""
    await plane.call(groups_pb2.CreateGroupRequest(parent=ACME, group_id=name))
    for role, scope in grants:
        await plane.call(grant_of(role, scope, group=name))


async def refused(plane: Plane, message: Any, key: str) -> None:
    """See that PERMISSION_DENIED is all that comes of a request, now and with what the database says."""
    await plane.watch.refresh()
    with pytest.raises(PermissionDenied):
        await plane.call(message, key=key)


async def test_members_have_what_their_group_has_while_they_are_in_it(plane: Plane) -> None:
    """At once when they join, no more when they leave, when the group is deleted, and when they are disabled."""
    await plane.tenant("acme")
    ann, bob = await plane.key("acme", "ann"), await plane.key("acme", "bob")
    await group(plane, "staff", ("read-only", ACME))

    joined = await plane.call(join("staff", "ann", "bob"))

    assert joined.group.member_count == 2
    assert (await plane.call(READ, key=ann)).name == (await plane.call(READ, key=bob)).name == ACME
    leave = groups_pb2.RemoveGroupMembersRequest(name=f"{ACME}/groups/staff", principals=[f"{ACME}/principals/bob"])
    assert (await plane.call(leave)).group.member_count == 1
    await refused(plane, READ, bob)
    await plane.call(groups_pb2.DeleteGroupRequest(name=f"{ACME}/groups/staff"))
    await refused(plane, READ, ann)


async def test_a_member_who_is_deleted_is_in_no_group_any_more(plane: Plane) -> None:
    """Nothing of him is left that a later principal could take over."""
    await plane.tenant("acme")
    await plane.key("acme", "ann")
    await group(plane, "staff", ("read-only", ACME))
    await plane.call(join("staff", "ann"))

    await plane.call(principals_pb2.DeletePrincipalRequest(name=f"{ACME}/principals/ann"))

    members = await plane.call(groups_pb2.ListGroupMembersRequest(name=f"{ACME}/groups/staff"))
    assert list(members.members) == []


async def test_a_group_is_no_member_of_a_group(plane: Plane) -> None:
    """Only principals are, of the same tenant."""
    await plane.tenant("acme")
    await group(plane, "staff")

    for name in (f"{ACME}/groups/staff", "tenants/platform/principals/administrator"):
        with pytest.raises(InvalidRequest):
            await plane.call(groups_pb2.AddGroupMembersRequest(name=f"{ACME}/groups/staff", principals=[name]))


async def test_nobody_raises_himself_through_a_group(plane: Plane) -> None:
    """Whoever fills groups needs all that a group has, where it has it."""
    await plane.tenant("acme")
    await plane.call(role_of("group-keeper", "groupMembers.add", "groups.get"))
    keeper = await plane.key("acme", "keeper", (f"{ACME}/roles/group-keeper", ACME))
    await group(plane, "plain")
    await group(plane, "admins", ("tenant-admin", SALES))

    await plane.call(join("plain", "keeper"), key=keeper)
    with pytest.raises(PermissionDenied):
        await plane.call(join("admins", "keeper"), key=keeper)


async def test_a_role_of_a_tenant_never_exceeds_its_maker(plane: Plane) -> None:
    """Not when it is made, not when a permission is added, and never with what is the platform's."""
    await plane.tenant("acme")
    await plane.call(role_of("role-maker", "roles.create", "roles.update", "limits.get"))
    maker = await plane.key("acme", "maker", (f"{ACME}/roles/role-maker", ACME))

    await plane.call(role_of("lookout", "limits.get"), key=maker)
    with pytest.raises(PermissionDenied):
        await plane.call(role_of("owner", "limits.get", "limits.delete"), key=maker)
    wider = roles_pb2.Role(name=f"{ACME}/roles/role-maker", permissions=["roles.update", "roleGrants.create"])
    with pytest.raises(PermissionDenied):
        await plane.call(roles_pb2.UpdateRoleRequest(role=wider), key=maker)
    for permission in ("tenants.create", "accounts.list", "nothing.atall"):
        with pytest.raises(InvalidRequest):
            await plane.call(role_of("wrong", permission))


async def test_who_holds_a_role_has_what_it_has_now(plane: Plane) -> None:
    """Its permissions follow the role; one that is held cannot be deleted."""
    await plane.tenant("acme")
    await plane.call(role_of("looker", "tenants.get"))
    ann = await plane.key("acme", "ann", (f"{ACME}/roles/looker", ACME))
    role = f"{ACME}/roles/looker"

    assert (await plane.call(READ, key=ann)).name == ACME
    with pytest.raises(ResourceInUse):
        await plane.call(roles_pb2.DeleteRoleRequest(name=role))
    await plane.call(roles_pb2.UpdateRoleRequest(role=roles_pb2.Role(name=role, permissions=["limits.get"])))
    await refused(plane, READ, ann)
    listed = await plane.call(roles_pb2.ListRolesRequest(page_size=1000), key=ann)
    assert listed.roles[-1].name == role


async def test_another_tenants_role_cannot_be_granted_or_listed(plane: Plane) -> None:
    """Roles that tenants make are their own."""
    await plane.tenant("acme")
    await plane.tenant("bolt")
    await plane.call(role_of("looker", "tenants.get"))
    bob = await plane.key("bolt", "bob", ("tenant-admin", "tenants/bolt"))
    grant = roles_pb2.RoleGrant(principal="tenants/bolt/principals/bob", role=f"{ACME}/roles/looker")
    grant.scope = "tenants/bolt"

    with pytest.raises(InvalidRequest):
        await plane.call(roles_pb2.CreateRoleGrantRequest(parent="tenants/bolt", role_grant=grant), key=bob)
    grant.role = "tenants/bolt/roles/looker"
    with pytest.raises(ResourceNotFound):
        await plane.call(roles_pb2.CreateRoleGrantRequest(parent="tenants/bolt", role_grant=grant), key=bob)
    with pytest.raises(PermissionDenied):
        await plane.call(roles_pb2.ListRolesRequest(parent=ACME), key=bob)


async def test_duties_stay_apart_whichever_way_they_would_come_together(plane: Plane) -> None:
    """By two grants, by a group, by joining one, and by a role that has both: refused, with both roles named."""
    await plane.tenant("acme")
    await plane.key("acme", "dean", ("department-admin", SALES))
    await plane.key("acme", "alma", ("limit-approver", ACME))
    await group(plane, "deans", ("department-admin", EMEA))
    await group(plane, "mixed")
    await plane.call(join("mixed", "dean", "alma"))
    both = ("limitIncreases.request", "limitIncreases.approve")

    with pytest.raises(DutiesConflict) as by_grant:
        await plane.call(grant_of("limit-approver", EMEA, principal="dean"))
    assert "roles/department-admin" in str(by_grant.value)
    assert "roles/limit-approver" in str(by_grant.value)
    for request in (
        join("deans", "alma"),
        grant_of("limit-approver", ACME, group="mixed"),
        grant_of("limit-approver", ACME, group="deans"),
        role_of("all-in-one", *both),
    ):
        with pytest.raises(DutiesConflict):
            await plane.call(request)
    await plane.call(role_of("asker", "limitIncreases.request"))
    await plane.key("acme", "asking", (f"{ACME}/roles/asker", ACME), ("read-only", ACME))


async def test_a_role_that_grows_keeps_its_holders_duties_apart(plane: Plane) -> None:
    """Adding a duty to a role is giving it to all who hold the role."""
    await plane.tenant("acme")
    await plane.call(role_of("extra", "limits.get"))
    await plane.key("acme", "alma", ("limit-approver", ACME), (f"{ACME}/roles/extra", ACME))
    grown = roles_pb2.Role(name=f"{ACME}/roles/extra", permissions=["limits.get", "limitIncreases.request"])

    with pytest.raises(DutiesConflict):
        await plane.call(roles_pb2.UpdateRoleRequest(role=grown))


async def test_a_role_that_grows_keeps_duties_apart_in_a_group_that_nobody_is_in(plane: Plane) -> None:
    """Otherwise whoever joins it later, or comes with a token that names it, would have both."""
    await plane.tenant("acme")
    await plane.call(role_of("extra", "limits.get"))
    await group(plane, "empty", ("limit-approver", ACME), (f"{ACME}/roles/extra", ACME))
    grown = roles_pb2.Role(name=f"{ACME}/roles/extra", permissions=["limits.get", "limitIncreases.request"])

    with pytest.raises(DutiesConflict) as refused:
        await plane.call(roles_pb2.UpdateRoleRequest(role=grown))

    assert f"{ACME}/groups/empty" in str(refused.value)


async def test_who_registers_people_makes_nobody_a_stronger_one(plane: Plane) -> None:
    """A subject of an issuer is a credential: to give a principal another one takes what he may, in a document too."""
    await plane.tenant("acme")
    await plane.call(role_of("registrar", "principals.update", "principals.list", "trees.apply"))
    clerk = await plane.key("acme", "clerk", (f"{ACME}/roles/registrar", ACME))
    await plane.key("acme", "boss", ("tenant-admin", ACME))
    await plane.key("acme", "new")
    login, account = "https://login.example", principals_pb2.Principal.KIND_SERVICE_ACCOUNT
    boss, new = (
        principals_pb2.Principal(name=f"{ACME}/principals/{who}", issuer=login, subject="clerk")
        for who in ("boss", "new")
    )
    entry = trees_pb2.TreePrincipal(id="boss", kind=account, issuer=login, subject="clerk")

    for request in (
        principals_pb2.UpdatePrincipalRequest(principal=boss),
        trees_pb2.ApplyTreeRequest(parent=ACME, tree=trees_pb2.Tree(principals=[entry])),
    ):
        with pytest.raises(PermissionDenied):
            await plane.call(request, key=clerk)
    assert (await plane.call(principals_pb2.UpdatePrincipalRequest(principal=new), key=clerk)).subject == "clerk"
    boss.display_name, boss.subject, boss.issuer = "Boss", "", ""
    assert (await plane.call(principals_pb2.UpdatePrincipalRequest(principal=boss), key=clerk)).display_name == "Boss"


async def test_a_move_gives_nobody_more_than_the_mover_has(plane: Plane) -> None:
    """Who moves a department under people with rights gives them these: he must have them there himself."""
    await plane.tenant("acme")
    await plane.call(role_of("mover", "departments.move", "departments.get"))
    await plane.call(departments_pb2.CreateDepartmentRequest(parent=ACME, department_id="mine"))
    roles = ((f"{ACME}/roles/mover", ACME), ("department-admin", f"{ACME}/departments/mine"))
    mover = await plane.key("acme", "mover", *roles)
    move = departments_pb2.MoveDepartmentRequest(name=EMEA, parent_department=f"{ACME}/departments/mine")
    create = projects_pb2.CreateProjectRequest(parent=EMEA, project_id="p1")

    with pytest.raises(PermissionDenied):
        await plane.call(move, key=mover)

    await refused(plane, create, mover)
    await plane.call(move)
    await plane.watch.refresh()
    await plane.call(create, key=mover)


async def test_a_narrowed_key_gives_and_does_no_more_than_it_is_for(plane: Plane) -> None:
    """Not by its own calls, not by granting, and not by a wider key for its own principal."""
    await plane.tenant("acme")
    admin = await plane.key("acme", "ann", ("tenant-admin", ACME))
    await plane.key("acme", "bob")
    scopes = ["roleGrants.create", "apiKeys.create", "tenants.get"]
    wide = api_keys_pb2.ApiKey(principal=f"{ACME}/principals/ann")
    narrow = api_keys_pb2.ApiKey(principal=f"{ACME}/principals/ann", scopes=scopes)
    key = (await plane.call(api_keys_pb2.CreateApiKeyRequest(parent=ACME, api_key=narrow), key=admin)).secret

    assert (await plane.call(READ, key=key)).name == ACME
    for message in (
        projects_pb2.CreateProjectRequest(parent=EMEA, project_id="p1"),
        grant_of("tenant-admin", ACME, principal="bob"),
        api_keys_pb2.CreateApiKeyRequest(parent=ACME, api_key=wide),
        limits_pb2.ListLimitsRequest(parent=ACME),
    ):
        await refused(plane, message, key)
    await plane.call(api_keys_pb2.CreateApiKeyRequest(parent=ACME, api_key=narrow), key=key)


async def test_a_key_for_someone_whom_a_group_makes_stronger_is_refused(plane: Plane) -> None:
    """What he has through his groups counts as his own."""
    await plane.tenant("acme")
    weak = await plane.key("acme", "ann", ("department-admin", SALES))
    await plane.key("acme", "boss")
    await group(plane, "admins", ("tenant-admin", ACME))
    await plane.call(join("admins", "boss"))
    project = f"{EMEA}/projects/crm"
    asked = api_keys_pb2.ApiKey(principal=f"{ACME}/principals/boss")

    with pytest.raises(PermissionDenied):
        await plane.call(api_keys_pb2.CreateApiKeyRequest(parent=project, api_key=asked), key=weak)


async def test_explanations_name_what_gives_and_what_is_missing(plane: Plane) -> None:
    """The grant and the group that give it; elsewhere, or another permission; disabled; and oneself may always ask."""
    await plane.tenant("acme")
    ann, bob = await plane.key("acme", "ann"), await plane.key("acme", "bob")
    await group(plane, "sellers", ("department-admin", SALES))
    await plane.call(join("sellers", "ann"))

    async def ask(scope: str, permission: str = "projects.create", key: str = ann) -> Any:
        return await plane.call(
            access_pb2.ExplainAccessRequest(principal=f"{ACME}/principals/ann", permission=permission, scope=scope),
            key=key,
        )

    kinds = access_pb2.AccessFinding
    yes = await ask(f"{EMEA}/projects/crm")
    assert yes.allowed
    assert (yes.findings[0].group, yes.findings[0].scope) == (f"{ACME}/groups/sellers", SALES)
    assert list(yes.scopes) == [f"{EMEA}/projects/crm", EMEA, SALES, ACME, "platform"]
    elsewhere, lacking, unknown = await ask(ACME), await ask(EMEA, "limits.delete"), await ask(EMEA, "no.such")
    assert [one.kind for one in elsewhere.findings] == [kinds.KIND_ELSEWHERE]
    assert [one.kind for one in lacking.findings] == [kinds.KIND_ROLE_LACKS]
    assert unknown.findings[0].kind == kinds.KIND_NO_ROLE_HAS
    assert not (elsewhere.allowed or lacking.allowed or unknown.allowed)
    with pytest.raises(PermissionDenied):
        await ask(EMEA, key=bob)
    listed = await plane.call(access_pb2.ListAccessRequest(principal=f"{ACME}/principals/ann"), key=ann)
    assert [one.scope for one in listed.access] == [SALES]
    assert "projects.create" in listed.access[0].permissions
    await plane.call(principals_pb2.DisablePrincipalRequest(name=f"{ACME}/principals/ann"))
    disabled = await ask(EMEA, key=plane.admin_key)
    assert (disabled.allowed, disabled.findings[0].kind) == (False, kinds.KIND_PRINCIPAL_DISABLED)
