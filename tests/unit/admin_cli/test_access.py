"""Groups, roles of tenants and explanations on the command line."""

from tollhouse.admin.v1 import access_pb2, groups_pb2, roles_pb2

from tests.unit.admin_cli.canned import CannedServer
from tests.unit.admin_cli.conftest import Run


def test_a_group_gets_a_role_that_its_tenant_has_made(server: CannedServer, run: Run) -> None:
    """By their ids: the role is found among the tenant's own."""
    own = roles_pb2.Role(name="tenants/acme/roles/tester")
    server.answers["ListRoles"] = roles_pb2.ListRolesResponse(roles=[roles_pb2.Role(name="roles/caller"), own])
    server.answers["CreateRoleGrant"] = roles_pb2.RoleGrant(name="tenants/acme/roleGrants/g")

    result = run("roles", "grant", "groups/staff", "tester", "-t", "acme")

    grant = server.last.request.role_grant
    assert result.code == 0
    assert (grant.group, grant.principal) == ("tenants/acme/groups/staff", "")
    assert (grant.role, grant.scope) == (own.name, "tenants/acme")


def test_members_are_named_by_their_ids(server: CannedServer, run: Run) -> None:
    """Of the group's own tenant."""
    server.answers["AddGroupMembers"] = groups_pb2.GroupMembersChange(group=groups_pb2.Group(member_count=2))

    result = run("groups", "add", "staff", "ann", "bob", "-t", "acme")

    assert result.code == 0
    assert server.last.request.name == "tenants/acme/groups/staff"
    assert list(server.last.request.principals) == ["tenants/acme/principals/ann", "tenants/acme/principals/bob"]


def test_an_explanation_says_no_and_why(server: CannedServer, run: Run) -> None:
    """The verdict first, then a sentence for each finding, then where a grant would count."""
    finding = access_pb2.AccessFinding(kind=access_pb2.AccessFinding.KIND_ELSEWHERE, sentence="Only on sales.")
    scopes = ["tenants/acme/departments/hr", "tenants/acme", "platform"]
    server.answers["ExplainAccess"] = access_pb2.ExplainAccessResponse(findings=[finding], scopes=scopes)

    result = run("access", "explain", "ann", "projects.create", "departments/hr", "-t", "acme")

    assert server.last.request.scope == "tenants/acme/departments/hr"
    assert result.out.startswith("no: tenants/acme/principals/ann lacks projects.create on tenants/acme/departments/hr")
    assert "Only on sales." in result.out
    assert "tenants/acme/departments/hr, tenants/acme, platform" in result.out
