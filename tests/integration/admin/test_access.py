"""Who may do what, through the same steps that the chain takes."""

import pytest
from google.protobuf.message import Message
from tollhouse.admin.v1 import access_pb2, departments_pb2, limits_pb2, projects_pb2, roles_pb2, tenants_pb2
from tollhouse_server.errors import InvalidRequest, PermissionDenied, ResourceNotFound

from tests.integration.admin.plane import Plane


def _grant(principal: str, role: str, scope: str, parent: str = "tenants/acme") -> roles_pb2.CreateRoleGrantRequest:
    grant = roles_pb2.RoleGrant(principal=f"{parent}/principals/{principal}", role=f"roles/{role}", scope=scope)
    return roles_pb2.CreateRoleGrantRequest(parent=parent, role_grant=grant)


async def test_a_foreign_scope_is_denied_whether_or_not_it_exists(plane: Plane) -> None:
    """The same words for a tenant that is there and one that is not: nothing is told."""
    await plane.tenant("acme")
    await plane.tenant("bolt")
    key = await plane.key("acme", "ann", ("tenant-admin", "tenants/acme"))

    refusals = []
    for tenant in ("bolt", "none"):
        with pytest.raises(PermissionDenied) as refused:
            await plane.call(tenants_pb2.GetTenantRequest(name=f"tenants/{tenant}"), key=key)
        refusals.append(str(refused.value).replace(tenant, "X"))

    assert refusals[0] == refusals[1]
    with pytest.raises(ResourceNotFound):
        await plane.call(departments_pb2.GetDepartmentRequest(name="tenants/acme/departments/none"), key=key)


@pytest.mark.parametrize(
    "message",
    [
        departments_pb2.ListDepartmentsRequest(parent="tenants/bolt", root="tenants/acme/departments/sales"),
        limits_pb2.ListLimitsRequest(parent="tenants/bolt", scope="tenants/acme"),
        departments_pb2.CreateDepartmentRequest(
            parent="tenants/bolt",
            department_id="spy",
            department=departments_pb2.Department(parent_department="tenants/acme/departments/sales"),
        ),
        departments_pb2.MoveDepartmentRequest(
            name="tenants/acme/departments/sales", parent_department="tenants/bolt/departments/sales"
        ),
        _grant("ann", "caller", "tenants/acme", parent="tenants/bolt"),
    ],
    ids=lambda message: message.DESCRIPTOR.name,
)
async def test_two_tenants_in_one_request_are_refused(plane: Plane, message: Message) -> None:
    """A permission on one field's tenant never carries over to another field's."""
    await plane.tenant("acme")
    await plane.tenant("bolt")
    key = await plane.key("acme", "ann", ("tenant-admin", "tenants/acme"))

    with pytest.raises((InvalidRequest, PermissionDenied)):
        await plane.call(message, key=key)


async def test_a_grant_reaches_sub_departments_and_their_projects(plane: Plane) -> None:
    """Inheritance follows the tree, not the name, and follows it after a move."""
    await plane.tenant("acme")
    key = await plane.key("acme", "dean", ("department-admin", "tenants/acme/departments/sales"))
    create = projects_pb2.CreateProjectRequest(parent="tenants/acme/departments/emea", project_id="p1")

    await plane.call(create, key=key)
    await plane.call(departments_pb2.MoveDepartmentRequest(name="tenants/acme/departments/emea"))
    await plane.watch.refresh()

    create.project_id = "p2"
    with pytest.raises(PermissionDenied):
        await plane.call(create, key=key)


async def test_nobody_grants_more_than_he_has(plane: Plane) -> None:
    """A tenant's administrator makes others in his tenant, never a platform's, and nothing on the platform."""
    await plane.tenant("acme")
    key = await plane.key("acme", "ann", ("tenant-admin", "tenants/acme"))
    await plane.key("acme", "bob")

    await plane.call(_grant("bob", "finance", "tenants/acme/departments/sales"), key=key)
    with pytest.raises(PermissionDenied):
        await plane.call(_grant("bob", "platform-admin", "tenants/acme"), key=key)
    with pytest.raises((PermissionDenied, InvalidRequest)):
        await plane.call(_grant("bob", "tenant-admin", "platform"), key=key)


async def test_a_deleted_grant_is_gone_and_a_new_one_works_at_once(plane: Plane) -> None:
    """A grant counts as soon as its call was answered; a deleted one no longer once the change is heard of."""
    await plane.tenant("acme")
    key = await plane.key("acme", "ann")
    read = tenants_pb2.GetTenantRequest(name="tenants/acme")
    with pytest.raises(PermissionDenied):
        await plane.call(read, key=key)

    grant = await plane.call(_grant("ann", "read-only", "tenants/acme"))

    assert (await plane.call(read, key=key)).name == "tenants/acme"
    await plane.call(roles_pb2.DeleteRoleGrantRequest(name=grant.name))
    await plane.watch.refresh()
    with pytest.raises(PermissionDenied):
        await plane.call(read, key=key)


async def test_finance_changes_nothing(plane: Plane) -> None:
    """Finance reads the tree, and cannot touch a limit."""
    await plane.tenant("acme")
    key = await plane.key("acme", "cfo", ("finance", "tenants/acme"))

    listed = await plane.call(projects_pb2.ListProjectsRequest(parent="tenants/acme/departments/-"), key=key)

    assert [project.name for project in listed.projects] == ["tenants/acme/departments/emea/projects/crm"]
    with pytest.raises(PermissionDenied):
        await plane.call(limits_pb2.DeleteLimitRequest(name="tenants/acme/limits/cap"), key=key)


async def test_no_explanation_tells_of_another_tenants_tree(plane: Plane) -> None:
    """Whoever asks about himself may name any scope; what is above it in another tenant he does not hear."""
    await plane.tenant("acme")
    await plane.tenant("bolt")
    key = await plane.key("acme", "ann", ("tenant-admin", "tenants/acme"))

    answers = [
        await plane.call(
            access_pb2.ExplainAccessRequest(
                principal="tenants/acme/principals/ann",
                permission="projects.create",
                scope=f"tenants/bolt/departments/{department}",
            ),
            key=key,
        )
        for department in ("emea", "none")
    ]

    assert [list(answer.scopes) for answer in answers] == [
        ["tenants/bolt/departments/emea", "platform"],
        ["tenants/bolt/departments/none", "platform"],
    ]
    assert not any(answer.allowed for answer in answers)


async def test_roles_are_listed_to_everyone_who_is_known(plane: Plane) -> None:
    """A principal without any grant sees what could be granted."""
    await plane.tenant("acme")
    key = await plane.key("acme", "nobody")

    listed = await plane.call(roles_pb2.ListRolesRequest(page_size=3), key=key)

    assert [role.name for role in listed.roles] == ["roles/auditor", "roles/caller", "roles/content-reader"]
    assert listed.next_page_token
