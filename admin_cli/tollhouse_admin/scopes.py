"""The options that say where: tenant, department, project; and the names that follow from them."""

from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, TypeAlias

import typer
from tollhouse.admin.v1 import (
    departments_pb2,
    departments_pb2_grpc,
    principals_pb2,
    principals_pb2_grpc,
    projects_pb2,
    projects_pb2_grpc,
    tenants_pb2,
    tenants_pb2_grpc,
)

from tollhouse_admin.command import Session
from tollhouse_admin.completion import offered
from tollhouse_admin.connection import Connection
from tollhouse_admin.failures import Failure, wrong_usage
from tollhouse_admin.names import full_name, is_full, named, scope_name
from tollhouse_admin.output import note

PLATFORM_TENANT = "tenants/platform"
OFFERED = 500
"""Most names that a Tab asks for."""


def _tenant_names(connection: Connection) -> Iterator[str]:
    stub = connection.stub(tenants_pb2_grpc.TenantServiceStub)
    for tenant in connection.pages(stub.ListTenants, tenants_pb2.ListTenantsRequest(), "tenants", limit=OFFERED):
        yield tenant.name


def complete_tenants(incomplete: str) -> list[str]:
    """Offer the ids of tenants."""
    return offered(incomplete, _tenant_names)


def _companies(connection: Connection) -> list[str]:
    """Return the names of tenants beside the platform's; of many only some."""
    stub = connection.stub(tenants_pb2_grpc.TenantServiceStub)
    pages = connection.pages(stub.ListTenants, tenants_pb2.ListTenantsRequest(), "tenants", limit=3)
    return [tenant.name for tenant in pages if tenant.name != PLATFORM_TENANT]


Listing: TypeAlias = Callable[[Connection, str], Iterable[Any]]
"""Reads resources of a tenant, given its name."""


def complete_in_tenant(listing: Listing) -> Callable[[typer.Context, str], list[str]]:
    """Return what offers the ids of a listing in the tenant that was typed before, the default or the only one."""

    def complete(context: typer.Context, incomplete: str) -> list[str]:
        typed = context.params.get("tenant")

        def entries(connection: Connection) -> Iterator[str]:
            tenant = typed or connection.endpoint.tenant
            tenants = [full_name(tenant, "tenants")] if tenant else _companies(connection)
            if len(tenants) == 1:
                yield from (each.name for each in listing(connection, tenants[0]))

        return offered(incomplete, entries, profile=context.params.get("profile"))

    return complete


def _departments(connection: Connection, tenant: str) -> Iterable[Any]:
    stub = connection.stub(departments_pb2_grpc.DepartmentServiceStub)
    request = departments_pb2.ListDepartmentsRequest(parent=tenant)
    return connection.pages(stub.ListDepartments, request, "departments", limit=OFFERED)


def _projects(connection: Connection, tenant: str) -> Iterable[Any]:
    stub = connection.stub(projects_pb2_grpc.ProjectServiceStub)
    request = projects_pb2.ListProjectsRequest(parent=f"{tenant}/departments/-")
    return connection.pages(stub.ListProjects, request, "projects", limit=OFFERED)


def _principals(connection: Connection, tenant: str) -> Iterable[Any]:
    stub = connection.stub(principals_pb2_grpc.PrincipalServiceStub)
    request = principals_pb2.ListPrincipalsRequest(parent=tenant)
    return connection.pages(stub.ListPrincipals, request, "principals", limit=OFFERED)


complete_departments = complete_in_tenant(_departments)
complete_projects = complete_in_tenant(_projects)
complete_principals = complete_in_tenant(_principals)


Tenant = Annotated[
    str | None,
    typer.Option(
        "--tenant",
        "-t",
        metavar="ID",
        callback=named,
        help="Tenant; absent: TOLLHOUSE_TENANT, the profile's, or the only one.",
        autocompletion=complete_tenants,
    ),
]
Department = Annotated[
    str | None,
    typer.Option(
        "--department", "-d", metavar="ID", callback=named, help="Department.", autocompletion=complete_departments
    ),
]
OnlyDepartment = Annotated[
    str | None,
    typer.Option(
        "--department",
        "-d",
        metavar="ID",
        callback=named,
        help="Only this department and what is in and below it; absent: the whole tenant.",
        autocompletion=complete_departments,
    ),
]
Project = Annotated[
    str | None,
    typer.Option(
        "--project",
        "-p",
        metavar="ID",
        callback=named,
        help="Project of the department.",
        autocompletion=complete_projects,
    ),
]
Scope = Annotated[
    str | None,
    typer.Option(
        "--scope",
        metavar="SCOPE",
        callback=named,
        help="departments/research, departments/research/projects/chat, tenant, or a name.",
    ),
]


def tenant_name(session: Session, tenant: str | None) -> str:
    """Return the tenant that was named, or the default one.

    Raises:
        Failure: none was named, and there is not exactly one that the credential may see.
    """
    chosen = tenant or session.connection.endpoint.tenant
    if chosen:
        return full_name(chosen, "tenants")
    only = _only_tenant(session)
    note(f"using the only tenant, {only.removeprefix('tenants/')}")
    return only


def _only_tenant(session: Session) -> str:
    advice = "Name it with --tenant, TOLLHOUSE_TENANT or 'tollhouse config set NAME --tenant ID'"
    try:
        names = _companies(session.connection)
    except Failure as failure:
        # A tenant's own administrator may not list tenants; what he lacks is the option.
        if failure.reason == "PERMISSION_DENIED":
            raise wrong_usage("No tenant is named", advice) from failure
        raise
    if len(names) != 1:
        raise wrong_usage(f"No tenant is named, and there are {'several' if names else 'none'}", advice)
    return names[0]


def in_tenant(session: Session, typed: str, collection: str, tenant: str | None) -> str:
    """Return the full name of something that lies directly in a tenant."""
    parent = "" if is_full(typed) else tenant_name(session, tenant)
    return full_name(typed, collection, parent)


def owner_name(owner: str | None, tenant: str) -> str | None:
    """Return the full name of an owner; nothing for nobody, None where none is given."""
    return full_name(owner, "principals", tenant) if owner else owner


def department_name(session: Session, department: str, tenant: str | None) -> str:
    """Return the full name of a department."""
    return in_tenant(session, department, "departments", tenant)


def project_name(session: Session, project: str, department: str | None, tenant: str | None) -> str:
    """Return the full name of a project.

    Raises:
        Failure: only its id was given, and not its department.
    """
    if is_full(project):
        return full_name(project, "projects")
    if project.startswith("departments/"):
        return full_name(project, "projects", tenant_name(session, tenant))
    if department is None:
        raise wrong_usage(f"The department of project {project!r} is not named", "Add --department ID.")
    return full_name(project, "projects", department_name(session, department, tenant))


def chosen_project(session: Session, project: str | None, department: str | None, tenant: str | None) -> str | None:
    """Return the full name of the project to charge; None where none was named: the credential has its own.

    Raises:
        Failure: a department or tenant was named without a project, which alone is charged.
    """
    if project:
        return project_name(session, project, department, tenant)
    if department is not None or tenant is not None:
        raise wrong_usage("--department and --tenant need --project", "Name the project to charge, or leave them away.")
    return None


def require_place(session: Session, name: str) -> None:
    """Look for a department or project by its full name; what is neither is not looked for.

    Raises:
        Failure: it does not exist.
    """
    collection, _, last = name.rpartition("/")
    if last == "-" or not collection.endswith(("/departments", "/projects")):
        return
    try:
        if collection.endswith("/projects"):
            projects = session.connection.stub(projects_pb2_grpc.ProjectServiceStub)
            session.connection.call(projects.GetProject, projects_pb2.GetProjectRequest(name=name))
        else:
            departments = session.connection.stub(departments_pb2_grpc.DepartmentServiceStub)
            session.connection.call(departments.GetDepartment, departments_pb2.GetDepartmentRequest(name=name))
    except Failure as failure:
        # Who may list what is in it need not be one who may look at it.
        if failure.reason != "PERMISSION_DENIED":
            raise


def scope_of(
    session: Session, *, scope: str | None, tenant: str | None, department: str | None, project: str | None
) -> str:
    """Return the one scope that the options mean: a project, a department or, without either, the tenant.

    Raises:
        Failure: `scope` is given along with a department or project, or is not a scope.
    """
    if scope is not None:
        if department or project:
            raise wrong_usage("--scope says it all; it does not go with --department and --project")
        whole = scope == "platform" or is_full(scope)
        return scope_name("" if whole else tenant_name(session, tenant), scope)
    if project is not None:
        return project_name(session, project, department, tenant)
    if department is not None:
        return department_name(session, department, tenant)
    return tenant_name(session, tenant)
