"""`tollhouse roles`: who may do what, and where."""

from collections.abc import Iterable
from typing import Annotated

import typer
from tollhouse.admin.v1 import roles_pb2 as pb
from tollhouse.admin.v1.roles_pb2_grpc import RoleServiceStub

from tollhouse_admin.command import CHANGE, DESTROY, LIST, READ, Session, command, noun
from tollhouse_admin.connection import Connection
from tollhouse_admin.failures import ExitCode, Failure
from tollhouse_admin.names import full_name, is_full, last_id, named, tenant_of
from tollhouse_admin.output import Format, Layout, show_list, show_one
from tollhouse_admin.resource import Etag, Kind, NewId, changed, mask
from tollhouse_admin.scopes import (
    OFFERED,
    Department,
    Project,
    Scope,
    Tenant,
    complete_in_tenant,
    complete_principals,
    in_tenant,
    scope_of,
    tenant_name,
)

app = noun("Roles: who may do what, and where.")

_SEE = "'tollhouse roles list' shows the roles"


def _roles(connection: Connection, tenant: str) -> Iterable[pb.Role]:
    stub = connection.stub(RoleServiceStub)
    return connection.pages(stub.ListRoles, pb.ListRolesRequest(parent=tenant), "roles", limit=OFFERED)


def _own_roles(connection: Connection, tenant: str) -> Iterable[pb.Role]:
    return (role for role in _roles(connection, tenant) if is_full(role.name))


def _grants(connection: Connection, tenant: str) -> Iterable[pb.RoleGrant]:
    stub = connection.stub(RoleServiceStub)
    return connection.pages(stub.ListRoleGrants, pb.ListRoleGrantsRequest(parent=tenant), "role_grants", limit=OFFERED)


complete_roles = complete_in_tenant(_roles)
GrantId = Annotated[
    str,
    typer.Argument(metavar="GRANT", help="Id or name of the grant.", autocompletion=complete_in_tenant(_grants)),
]


def _stub(session: Session) -> RoleServiceStub:
    return session.connection.stub(RoleServiceStub)


def _read_grant(session: Session, name: str) -> pb.RoleGrant:
    return session.connection.call(_stub(session).GetRoleGrant, pb.GetRoleGrantRequest(name=name))


ROLES = Layout(["name", "description", "permissions"])
ROLES_AT_A_GLANCE = Layout(["name", "description"])
GRANT = Kind(Layout(["name", "principal", "group", "role", "scope", "create_time", "creator"]), _read_grant)


def _read_role(session: Session, name: str) -> pb.Role:
    return session.connection.call(_stub(session).GetRole, pb.GetRoleRequest(name=name))


ROLE = Kind(ROLES, _read_role)

Permissions = Annotated[
    list[str] | None,
    typer.Option("--permission", metavar="PERMISSION", help="Such as projects.create; may be given many times."),
]
Description = Annotated[str | None, typer.Option(metavar="TEXT", help="What the role is for, in one sentence.")]
OwnRole = Annotated[
    str,
    typer.Argument(
        metavar="ROLE",
        autocompletion=complete_in_tenant(_own_roles),
        help="Id or name of a role that the tenant has made.",
    ),
]


def _tenant_or_none(session: Session, tenant: str | None) -> str:
    """Return the tenant that was named, or the default one; without either nothing, which leaves everybody's roles."""
    chosen = tenant or session.connection.endpoint.tenant
    return full_name(chosen, "tenants") if chosen else ""


def _role_name(session: Session, typed: str, parent: str) -> str:
    """Return the name of a role: by its id one that every tenant has, or else one that `parent` has made."""
    if "/" in typed:
        return full_name(typed, "roles", "" if typed.startswith("roles/") else parent)
    request = pb.ListRolesRequest(parent=parent)
    for each in session.connection.pages(_stub(session).ListRoles, request, "roles"):
        if last_id(each.name) == typed:
            return str(each.name)
    message = f"There is no role {typed}"
    raise Failure(reason="RESOURCE_NOT_FOUND", message=message, advice=_SEE, exit_code=ExitCode.NOT_FOUND)


@command(app, "list", LIST)
def list_roles(session: Session, *, tenant: Tenant = None) -> None:
    """List the roles that can be granted: those of everybody, then those that the tenant has made."""
    request = pb.ListRolesRequest(parent=_tenant_or_none(session, tenant))
    pages = session.connection.pages(_stub(session).ListRoles, request, "roles", limit=session.options.limit)
    table = session.options.output is Format.TABLE
    show_list(session.options.output, ROLES_AT_A_GLANCE if table else ROLES, pages)


@command(app, "describe", READ)
def describe(
    session: Session,
    role: Annotated[str, typer.Argument(metavar="ROLE", autocompletion=complete_roles, help="Id or name.")],
    *,
    tenant: Tenant = None,
) -> None:
    """Show what a role permits."""
    name = full_name(role, "roles")
    own = tenant_of(name) if is_full(name) else _tenant_or_none(session, tenant)
    request = pb.ListRolesRequest(parent=own)
    for each in session.connection.pages(_stub(session).ListRoles, request, "roles"):
        if name in (each.name, f"roles/{last_id(each.name)}"):
            show_one(session.options.output, ROLES, each)
            return
    message = f"There is no role {name}"
    raise Failure(reason="RESOURCE_NOT_FOUND", message=message, advice=_SEE, exit_code=ExitCode.NOT_FOUND)


@command(app, "create", CHANGE)
def create(
    session: Session,
    role: NewId,
    *,
    permission: Permissions = None,
    tenant: Tenant = None,
    description: Description = None,
) -> None:
    """Make a role of the tenant's own; needs every one of its permissions on the whole tenant."""
    name = in_tenant(session, role, "roles", tenant)
    resource = pb.Role(description=description or "", permissions=permission or [])
    request = pb.CreateRoleRequest(parent=tenant_of(name), role_id=last_id(name), role=resource)
    ROLE.create(session, name, _stub(session).CreateRole, request)


@command(app, "update", CHANGE)
def update(
    session: Session,
    role: OwnRole,
    *,
    permission: Permissions = None,
    tenant: Tenant = None,
    description: Description = None,
    etag: Etag = None,
) -> None:
    """Change a role of the tenant's own for all who hold it; what is permitted replaces what was."""
    name = in_tenant(session, role, "roles", tenant)
    fields = changed(permissions=permission or None, description=description)
    request = pb.UpdateRoleRequest(role=pb.Role(name=name, etag=etag or "", **fields), update_mask=mask(fields))
    ROLE.change(session, "update", name, _stub(session).UpdateRole, request)


@command(app, "delete", DESTROY)
def delete(session: Session, role: OwnRole, *, tenant: Tenant = None, etag: Etag = None) -> None:
    """Delete a role of the tenant's own that nobody holds."""
    name = in_tenant(session, role, "roles", tenant)
    warning = f"{name} will be deleted."
    ROLE.change(
        session,
        "delete",
        name,
        _stub(session).DeleteRole,
        pb.DeleteRoleRequest(name=name, etag=etag or ""),
        warning=warning,
    )


@command(app, "grants", LIST)
def grants(
    session: Session,
    *,
    tenant: Tenant = None,
    principal: Annotated[
        str | None,
        typer.Option(
            metavar="PRINCIPAL",
            callback=named,
            autocompletion=complete_principals,
            help="Only those of this principal.",
        ),
    ] = None,
    group: Annotated[
        str | None, typer.Option(metavar="GROUP", callback=named, help="Only those of this group.")
    ] = None,
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
        group=full_name(group, "groups", parent) if group else "",
        scope=scope_of(session, scope=scope, tenant=parent, department=department, project=project) if narrowed else "",
    )
    GRANT.show_pages(session, _stub(session).ListRoleGrants, request, "role_grants", within=request.scope)


@command(app, "show", READ)
def show(session: Session, grant: GrantId, *, tenant: Tenant = None) -> None:
    """Show one grant."""
    GRANT.show(session, in_tenant(session, grant, "roleGrants", tenant))


@command(app, "grant", CHANGE)
def grant(
    session: Session,
    principal: Annotated[
        str,
        typer.Argument(
            metavar="PRINCIPAL",
            help="Id or name of who gets the role; a group as groups/ID.",
            autocompletion=complete_principals,
        ),
    ],
    role: Annotated[str, typer.Argument(metavar="ROLE", autocompletion=complete_roles, help="Id or name of the role.")],
    *,
    scope: Scope = None,
    tenant: Tenant = None,
    department: Department = None,
    project: Project = None,
    grant_id: Annotated[str | None, typer.Option("--id", metavar="ID", help="Id of the grant.")] = None,
) -> None:
    """Give a role to a principal or a group on a scope and everything below it; without one on the whole tenant."""
    kind = "groups" if "groups" in principal.split("/")[:-1] else "principals"
    who = in_tenant(session, principal, kind, tenant)
    parent = tenant_of(who)
    where = scope_of(session, scope=scope, tenant=parent, department=department, project=project)
    resource = pb.RoleGrant(role=_role_name(session, role, parent), scope=where)
    setattr(resource, kind.removesuffix("s"), who)
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
