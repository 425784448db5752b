"""ProjectService: the applications and services of departments."""

from datetime import UTC, datetime

from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import projects_pb2 as pb

from tollhouse_server.api.call import Call
from tollhouse_server.api.masks import changed_fields
from tollhouse_server.api.mutation import Change, MutationRequest, Mutations
from tollhouse_server.api.owners import (
    OWNED_FIELDS,
    checked_cost_centre,
    narrowing,
    new_owner,
    owned_values,
    owner_name,
    owner_of,
)
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.values import etag, timestamp, version_of
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import Topic
from tollhouse_server.database.rows import change, check_version
from tollhouse_server.names import DepartmentName, ProjectName, TenantName
from tollhouse_server.tenancy import store
from tollhouse_server.tenancy.tables import ProjectRow

_ANY_DEPARTMENT = "/departments/-"


class ProjectService:
    """Creates, reads, changes and deletes projects."""

    def __init__(self, database: Database, mutations: Mutations, pages: PageTokens) -> None:
        self._database = database
        self._mutations = mutations
        self._pages = pages

    async def create_project(self, request: pb.CreateProjectRequest, call: Call) -> pb.Project:
        row = new_project(request)

        async def act(session: AsyncSession) -> Change[pb.Project]:
            after = project_message(await store.create_project(session, row))
            return Change(resource=after.name, before=None, after=after, answer=after)

        return await self._mutations.run(call, request, pb.Project, act)

    async def get_project(self, request: pb.GetProjectRequest, call: Call) -> pb.Project:
        async with self._database.within(call.domain) as session:
            return project_message(await store.get_project(session, ProjectName.parse(request.name)))

    async def list_projects(self, request: pb.ListProjectsRequest, call: Call) -> pb.ListProjectsResponse:
        tenant, department = _parent(request.parent)
        async with self._database.within(call.domain) as session:
            rows = await store.list_projects(
                session,
                tenant,
                department=department,
                after=self._pages.after(request),
                size=self._pages.size(request) + 1,
                to=narrowing(request, pb.Project.State.Name(request.state)),
            )
        page, last = self._pages.split(request, rows)
        token = self._pages.next(request, last.project_id) if last else ""
        return pb.ListProjectsResponse(projects=map(project_message, page), next_page_token=token)

    async def update_project(self, request: pb.UpdateProjectRequest, call: Call) -> pb.Project:
        fields = changed_fields(request.project, request.update_mask, OWNED_FIELDS)
        name = ProjectName.parse(request.project.name, "project.name")
        values = owned_values(request.project, fields, name.tenant, "project")
        return await self._change(call, request, request.project.name, request.project.etag, values)

    async def delete_project(self, request: pb.DeleteProjectRequest, call: Call) -> pb.Project:
        values: dict[str, object] = {"state": "DELETED", "deleted_at": datetime.now(UTC)}
        return await self._change(call, request, request.name, request.etag, values, Topic.IDENTITY)

    async def _change(
        self, call: Call, request: MutationRequest, text: str, tag: str, values: dict[str, object], *topics: Topic
    ) -> pb.Project:
        name = ProjectName.parse(text)

        async def act(session: AsyncSession) -> Change[pb.Project]:
            row = await store.active_project(session, name)
            check_version(row, version_of(tag, text), text)
            await store.require_owner(session, name.tenant, new_owner(values))
            before = project_message(row)
            after = project_message(await change(session, row, **values))
            return Change(resource=text, before=before, after=after, answer=after)

        return await self._mutations.run(call, request, pb.Project, act, *topics)


def _parent(text: str) -> tuple[str, str | None]:
    """Return the tenant and the department; None stands for all of them."""
    if text.endswith(_ANY_DEPARTMENT):
        return TenantName.parse(text.removesuffix(_ANY_DEPARTMENT), "parent").tenant, None
    name = DepartmentName.parse(text, "parent")
    return name.tenant, name.department


def new_project(request: pb.CreateProjectRequest) -> ProjectRow:
    """Return the project that a request asks for.

    Raises:
        InvalidRequest: a field may not be written so.
    """
    wanted = request.project
    name = ProjectName.parse(f"{request.parent}/projects/{request.project_id}", "project_id")
    return ProjectRow(
        tenant_id=name.tenant,
        project_id=name.project,
        department_id=name.department,
        display_name=wanted.display_name,
        cost_centre=checked_cost_centre(wanted.cost_centre, "project.cost_centre"),
        owner_id=owner_of(wanted.owner, name.tenant, "project.owner"),
    )


def project_message(row: ProjectRow) -> pb.Project:
    """Return a project as callers see it."""
    return pb.Project(
        name=str(ProjectName(row.tenant_id, row.department_id, row.project_id)),
        display_name=row.display_name,
        state=pb.Project.State.Value(f"STATE_{row.state}"),
        create_time=timestamp(row.created_at),
        update_time=timestamp(row.updated_at),
        delete_time=timestamp(row.deleted_at),
        cost_centre=row.cost_centre,
        owner=owner_name(row.tenant_id, row.owner_id),
        etag=etag(row.version),
    )
