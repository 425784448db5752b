"""DepartmentService: the tree to which cost is charged."""

from datetime import UTC, datetime

from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import departments_pb2 as pb

from tollhouse_server.api.call import Call
from tollhouse_server.api.masks import changed_fields
from tollhouse_server.api.mutation import Change, Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.values import etag, timestamp, version_of
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import Topic
from tollhouse_server.database.rows import change, check_version
from tollhouse_server.errors import ResourceInUse
from tollhouse_server.names import DepartmentName, TenantName
from tollhouse_server.tenancy import store
from tollhouse_server.tenancy.tables import DepartmentRow


class DepartmentService:
    """Creates, reads, renames, moves and deletes departments."""

    def __init__(self, database: Database, mutations: Mutations, pages: PageTokens) -> None:
        self._database = database
        self._mutations = mutations
        self._pages = pages

    async def create_department(self, request: pb.CreateDepartmentRequest, call: Call) -> pb.Department:
        tenant = TenantName.parse(request.parent, "parent").tenant
        name = DepartmentName.parse(f"{request.parent}/departments/{request.department_id}", "department_id")
        parent = _parent_id(request.department.parent_department)

        async def act(session: AsyncSession) -> Change[pb.Department]:
            row = DepartmentRow(
                tenant_id=tenant,
                department_id=name.department,
                parent_id=parent,
                path="",
                display_name=request.department.display_name,
            )
            after = _message(await store.create_department(session, row))
            return Change(resource=after.name, before=None, after=after, answer=after)

        return await self._mutations.run(call, request, pb.Department, act, Topic.ACCESS)

    async def get_department(self, request: pb.GetDepartmentRequest, call: Call) -> pb.Department:
        async with self._database.transaction() as session:
            return _message(await store.get_department(session, DepartmentName.parse(request.name)))

    async def list_departments(self, request: pb.ListDepartmentsRequest, call: Call) -> pb.ListDepartmentsResponse:
        async with self._database.transaction() as session:
            rows = await store.list_departments(
                session,
                TenantName.parse(request.parent, "parent").tenant,
                root=DepartmentName.parse(request.root, "root") if request.root else None,
                after=self._pages.after(request),
                size=self._pages.size(request) + 1,
                show_deleted=request.show_deleted,
            )
        page, last = self._pages.split(request, rows)
        token = self._pages.next(request, last.department_id) if last else ""
        return pb.ListDepartmentsResponse(departments=map(_message, page), next_page_token=token)

    async def update_department(self, request: pb.UpdateDepartmentRequest, call: Call) -> pb.Department:
        fields = changed_fields(request.department, request.update_mask, ("display_name",))
        values = {field: getattr(request.department, field) for field in fields}
        name = DepartmentName.parse(request.department.name, "department.name")

        async def act(session: AsyncSession) -> Change[pb.Department]:
            row = await _locked(session, name, request.department.etag)
            before = _message(row)
            after = _message(await change(session, row, **values))
            return Change(resource=str(name), before=before, after=after, answer=after)

        return await self._mutations.run(call, request, pb.Department, act)

    async def move_department(self, request: pb.MoveDepartmentRequest, call: Call) -> pb.Department:
        name = DepartmentName.parse(request.name)
        parent = _parent_id(request.parent_department)

        async def act(session: AsyncSession) -> Change[pb.Department]:
            await store.begin_move(session, name)
            row = await _locked(session, name, request.etag)
            before = _message(row)
            await store.move_department(session, row, parent)
            after = _message(await change(session, row, parent_id=parent))
            return Change(resource=str(name), before=before, after=after, answer=after)

        return await self._mutations.run(call, request, pb.Department, act, Topic.ACCESS, Topic.IDENTITY)

    async def delete_department(self, request: pb.DeleteDepartmentRequest, call: Call) -> pb.Department:
        name = DepartmentName.parse(request.name)

        async def act(session: AsyncSession) -> Change[pb.Department]:
            row = await _locked(session, name, request.etag)
            if (user := await store.department_in_use(session, row)) is not None:
                raise ResourceInUse(name=str(name), used_by=user)
            before = _message(row)
            after = _message(await change(session, row, state="DELETED", deleted_at=datetime.now(UTC)))
            return Change(resource=str(name), before=before, after=after, answer=after)

        return await self._mutations.run(call, request, pb.Department, act, Topic.ACCESS)


async def _locked(session: AsyncSession, name: DepartmentName, tag: str) -> DepartmentRow:
    row = await store.active_department(session, name)
    check_version(row, version_of(tag, str(name)), str(name))
    return row


def _parent_id(text: str) -> str | None:
    # That it is of the same tenant, the rule of the RPC has seen to.
    return DepartmentName.parse(text, "parent_department").department if text else None


def _message(row: DepartmentRow) -> pb.Department:
    names = [str(DepartmentName(row.tenant_id, department)) for department in row.path.split(".")]
    return pb.Department(
        name=names[-1],
        display_name=row.display_name,
        parent_department=names[-2] if len(names) > 1 else "",
        path=names,
        state=pb.Department.State.Value(f"STATE_{row.state}"),
        create_time=timestamp(row.created_at),
        update_time=timestamp(row.updated_at),
        delete_time=timestamp(row.deleted_at),
        etag=etag(row.version),
    )
