"""`tollhouse projects`: what spends money within a department."""

from enum import StrEnum
from typing import Annotated

import typer
from tollhouse.admin.v1 import projects_pb2 as pb
from tollhouse.admin.v1.projects_pb2_grpc import ProjectServiceStub

from tollhouse_admin.command import CHANGE, DESTROY, LIST, READ, Session, command, noun
from tollhouse_admin.names import last_id, tenant_of
from tollhouse_admin.output import Layout
from tollhouse_admin.rendering import enum_number
from tollhouse_admin.resource import (
    CostCentre,
    DisplayName,
    Etag,
    Kind,
    NewId,
    OnlyCostCentre,
    OnlyOwner,
    Owner,
    ShowDeleted,
    changed,
    mask,
)
from tollhouse_admin.scopes import (
    Department,
    Tenant,
    complete_projects,
    department_name,
    owner_name,
    project_name,
)

app = noun("Projects: what spends money within a department.")

ProjectId = Annotated[str, typer.Argument(metavar="PROJECT", help="Id or name.", autocompletion=complete_projects)]


def _stub(session: Session) -> ProjectServiceStub:
    return session.connection.stub(ProjectServiceStub)


def _read(session: Session, name: str) -> pb.Project:
    return session.connection.call(_stub(session).GetProject, pb.GetProjectRequest(name=name))


PROJECT = Kind(Layout(["name", "display_name", "cost_centre", "owner", "state", "create_time"]), _read)


class ProjectState(StrEnum):
    """Where a project is in its life."""

    ACTIVE = "active"
    DELETED = "deleted"


@command(app, "create", CHANGE)
def create(
    session: Session,
    project: NewId,
    *,
    department: Department = None,
    tenant: Tenant = None,
    display_name: DisplayName = None,
    cost_centre: CostCentre = None,
    owner: Owner = None,
) -> None:
    """Create a project in a department."""
    name = project_name(session, project, department, tenant)
    parent = name.rsplit("/", 2)[0]
    resource = pb.Project(
        display_name=display_name or "",
        cost_centre=cost_centre or "",
        owner=owner_name(owner, tenant_of(name)) or "",
    )
    request = pb.CreateProjectRequest(parent=parent, project_id=last_id(name), project=resource)
    PROJECT.create(session, name, _stub(session).CreateProject, request)


@command(app, "list", LIST)
def list_projects(
    session: Session,
    *,
    department: Department = None,
    tenant: Tenant = None,
    cost_centre: OnlyCostCentre = None,
    owner: OnlyOwner = None,
    state: Annotated[ProjectState | None, typer.Option(help="Only projects in this state.")] = None,
    show_deleted: ShowDeleted = False,
) -> None:
    """List the projects of a department, or of the whole tenant."""
    # `-` stands for every department.
    parent = department_name(session, department or "-", tenant)
    states = pb.Project.State
    request = pb.ListProjectsRequest(
        parent=parent,
        show_deleted=show_deleted,
        cost_centre=cost_centre or "",
        owner=owner_name(owner, tenant_of(parent)) or "",
        state=states.ValueType(enum_number(states.DESCRIPTOR, state.value)) if state else states.STATE_UNSPECIFIED,
    )
    PROJECT.show_pages(session, _stub(session).ListProjects, request, "projects", within=parent)


@command(app, "show", READ)
def show(session: Session, project: ProjectId, *, department: Department = None, tenant: Tenant = None) -> None:
    """Show one project."""
    PROJECT.show(session, project_name(session, project, department, tenant))


@command(app, "update", CHANGE)
def update(
    session: Session,
    project: ProjectId,
    *,
    department: Department = None,
    tenant: Tenant = None,
    display_name: DisplayName = None,
    cost_centre: CostCentre = None,
    owner: Owner = None,
    etag: Etag = None,
) -> None:
    """Change a project's display name, cost centre or owner."""
    name = project_name(session, project, department, tenant)
    fields = changed(display_name=display_name, cost_centre=cost_centre, owner=owner_name(owner, tenant_of(name)))
    resource = pb.Project(name=name, etag=etag or "", **fields)
    request = pb.UpdateProjectRequest(project=resource, update_mask=mask(fields))
    PROJECT.change(session, "update", name, _stub(session).UpdateProject, request)


@command(app, "delete", DESTROY)
def delete(
    session: Session, project: ProjectId, *, department: Department = None, tenant: Tenant = None, etag: Etag = None
) -> None:
    """Delete a project: its keys are refused, its records stay."""
    name = project_name(session, project, department, tenant)
    request = pb.DeleteProjectRequest(name=name, etag=etag or "")
    warning = f"Every key of {name} will be refused for good."
    PROJECT.change(session, "delete", name, _stub(session).DeleteProject, request, warning=warning)
