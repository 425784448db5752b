"""`tollhouse roles`: who may do what, and where."""

from typing import Annotated

import typer
from tollhouse.admin.v1 import roles_pb2 as pb
from tollhouse.admin.v1.roles_pb2_grpc import RoleServiceStub

from tollhouse_admin.command import CHANGE, DESTROY, LIST, READ, Session, command, noun
from tollhouse_admin.failures import ExitCode, Failure
from tollhouse_admin.names import full_name, tenant_of
from tollhouse_admin.output import Format, Layout, show_list, show_one
from tollhouse_admin.resource import Kind
from tollhouse_admin.scopes import Department, Project, Scope, Tenant, in_tenant, scope_of, tenant_name

app = noun("Roles: who may do what, and where.")

_SEE = "'tollhouse roles list' shows the roles"

GrantId = Annotated[str, typer.Argument(metavar="GRANT", help="Id or name of the grant.")]


def _stub(session: Session) -> RoleServiceStub:
    return session.connection.stub(RoleServiceStub)


def _read_grant(session: Session, name: str) -> pb.RoleGrant:
    return session.connection.call(_stub(session).GetRoleGrant, pb.GetRoleGrantRequest(name=name))


ROLES = Layout(["name", "description", "permissions"])
ROLES_AT_A_GLANCE = Layout(["name", "description"])
GRANT = Kind(Layout(["name", "principal", "role", "scope", "create_time", "creator"]), _read_grant)


@command(app, "list", LIST)
def list_roles(session: Session) -> None:
    """List the roles that can be granted."""
    pages = session.connection.pages(
        _stub(session).ListRoles, pb.ListRolesRequest(), "roles", limit=session.options.limit
    )
    table = session.options.output is Format.TABLE
    show_list(session.options.output, ROLES_AT_A_GLANCE if table else ROLES, pages)


@command(app, "describe", READ)
def describe(session: Session, role: Annotated[str, typer.Argument(metavar="ROLE", help="Id or name.")]) -> None:
    """Show what a role permits."""
    name = full_name(role, "roles")
    for each in session.connection.pages(_stub(session).ListRoles, pb.ListRolesRequest(), "roles"):
        if each.name == name:
            show_one(session.options.output, ROLES, each)
            return
    message = f"There is no role {name}"
    raise Failure(reason="RESOURCE_NOT_FOUND", message=message, advice=_SEE, exit_code=ExitCode.NOT_FOUND)


@command(app, "grants", LIST)
def grants(
    session: Session,
    *,
    tenant: Tenant = None,
    principal: Annotated[str | None, typer.Option(metavar="PRINCIPAL", help="Only those of this principal.")] = None,
    scope: Scope = None,
    department: Department = None,
    project: Project = None,
) -> None:
    """List a tenant's grants; with a scope only those made on exactly that scope."""
    parent = tenant_name(session, tenant)
    narrowed = scope or department or project
    request = pb.ListRoleGrantsRequest(
        parent=parent,
        principal=full_name(principal, "principals", parent) if principal else "",
        scope=scope_of(session, scope=scope, tenant=parent, department=department, project=project) if narrowed else "",
    )
    GRANT.show_pages(session, _stub(session).ListRoleGrants, request, "role_grants")


@command(app, "show", READ)
def show(session: Session, grant: GrantId, *, tenant: Tenant = None) -> None:
    """Show one grant."""
    GRANT.show(session, in_tenant(session, grant, "roleGrants", tenant))


@command(app, "grant", CHANGE)
def grant(
    session: Session,
    principal: Annotated[str, typer.Argument(metavar="PRINCIPAL", help="Id or name of who gets the role.")],
    role: Annotated[str, typer.Argument(metavar="ROLE", help="Id or name of the role.")],
    *,
    scope: Scope = None,
    tenant: Tenant = None,
    department: Department = None,
    project: Project = None,
    grant_id: Annotated[str | None, typer.Option("--id", metavar="ID", help="Id of the grant.")] = None,
) -> None:
    """Give a role to a principal on a scope and everything below it; without one on the whole tenant."""
    who = in_tenant(session, principal, "principals", tenant)
    parent = tenant_of(who)
    where = scope_of(session, scope=scope, tenant=parent, department=department, project=project)
    resource = pb.RoleGrant(principal=who, role=full_name(role, "roles"), scope=where)
    request = pb.CreateRoleGrantRequest(parent=parent, role_grant_id=grant_id or "", role_grant=resource)
    subject = f"grant of {resource.role} on {where} to {who}"
    GRANT.create(session, subject, _stub(session).CreateRoleGrant, request)


@command(app, "revoke", DESTROY)
def revoke(session: Session, grant: GrantId, *, tenant: Tenant = None) -> None:
    """Take a grant away, within two seconds on every server."""
    name = in_tenant(session, grant, "roleGrants", tenant)
    warning = f"The role of {name} will be taken away."
    GRANT.change(
        session, "revoke", name, _stub(session).DeleteRoleGrant, pb.DeleteRoleGrantRequest(name=name), warning=warning
    )
