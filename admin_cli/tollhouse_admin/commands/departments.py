"""`tollhouse departments`: the tree of departments to which cost is charged."""

from typing import Annotated

import typer
from tollhouse.admin.v1 import departments_pb2 as pb
from tollhouse.admin.v1.departments_pb2_grpc import DepartmentServiceStub

from tollhouse_admin.command import CHANGE, DESTROY, LIST, READ, Session, command, noun
from tollhouse_admin.failures import wrong_usage
from tollhouse_admin.names import full_name, last_id, tenant_of
from tollhouse_admin.output import Layout
from tollhouse_admin.resource import DisplayName, Etag, Kind, NewId, ShowDeleted, changed, mask
from tollhouse_admin.scopes import Tenant, complete_departments, department_name, tenant_name

app = noun("Departments: the tree to which cost is charged.")

DepartmentId = Annotated[
    str, typer.Argument(metavar="DEPARTMENT", autocompletion=complete_departments, help="Id or name.")
]
Under = Annotated[
    str | None, typer.Option(metavar="DEPARTMENT", autocompletion=complete_departments, help="Department above it.")
]


def _stub(session: Session) -> DepartmentServiceStub:
    return session.connection.stub(DepartmentServiceStub)


def _read(session: Session, name: str) -> pb.Department:
    return session.connection.call(_stub(session).GetDepartment, pb.GetDepartmentRequest(name=name))


DEPARTMENT = Kind(Layout(["name", "display_name", "parent_department", "state", "create_time"]), _read)


@command(app, "create", CHANGE)
def create(
    session: Session, department: NewId, *, tenant: Tenant = None, under: Under = None, display_name: DisplayName = None
) -> None:
    """Create a department below the tenant, or below another department."""
    name = department_name(session, department, tenant)
    parent = full_name(under, "departments", tenant_of(name)) if under else ""
    resource = pb.Department(display_name=display_name or "", parent_department=parent)
    request = pb.CreateDepartmentRequest(parent=tenant_of(name), department_id=last_id(name), department=resource)
    DEPARTMENT.create(session, name, _stub(session).CreateDepartment, request)


@command(app, "list", LIST)
def list_departments(
    session: Session, *, tenant: Tenant = None, under: Under = None, show_deleted: ShowDeleted = False
) -> None:
    """List a tenant's departments, or those below one of them."""
    parent = tenant_name(session, tenant)
    root = full_name(under, "departments", parent) if under else ""
    request = pb.ListDepartmentsRequest(parent=parent, root=root, show_deleted=show_deleted)
    DEPARTMENT.show_pages(session, _stub(session).ListDepartments, request, "departments")


@command(app, "show", READ)
def show(session: Session, department: DepartmentId, *, tenant: Tenant = None) -> None:
    """Show one department."""
    DEPARTMENT.show(session, department_name(session, department, tenant))


@command(app, "update", CHANGE)
def update(
    session: Session,
    department: DepartmentId,
    *,
    tenant: Tenant = None,
    display_name: DisplayName = None,
    etag: Etag = None,
) -> None:
    """Change a department's display name."""
    name = department_name(session, department, tenant)
    fields = changed(display_name=display_name)
    resource = pb.Department(name=name, etag=etag or "", **fields)
    request = pb.UpdateDepartmentRequest(department=resource, update_mask=mask(fields))
    DEPARTMENT.change(session, "update", name, _stub(session).UpdateDepartment, request)


@command(app, "move", CHANGE)
def move(
    session: Session,
    department: DepartmentId,
    *,
    tenant: Tenant = None,
    under: Under = None,
    top: Annotated[bool, typer.Option("--top", help="Directly below the tenant.")] = False,
) -> None:
    """Put a department, with all that is below it, under another one, from now on."""
    if (under is None) == (not top):
        raise wrong_usage("Where to is not said", "Give either --under DEPARTMENT or --top.")
    name = department_name(session, department, tenant)
    parent = full_name(under, "departments", tenant_of(name)) if under else ""
    request = pb.MoveDepartmentRequest(name=name, parent_department=parent)
    DEPARTMENT.change(session, "move", name, _stub(session).MoveDepartment, request)


@command(app, "delete", DESTROY)
def delete(session: Session, department: DepartmentId, *, tenant: Tenant = None) -> None:
    """Delete an empty department; its records stay."""
    name = department_name(session, department, tenant)
    request = pb.DeleteDepartmentRequest(name=name)
    warning = f"{name} will be deleted for good."
    DEPARTMENT.change(session, "delete", name, _stub(session).DeleteDepartment, request, warning=warning)
