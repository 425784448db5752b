"""DepartmentService: the tree to which cost is charged."""

from datetime import UTC, datetime

from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import departments_pb2 as pb

from tollhouse_server.api.call import Call
from tollhouse_server.api.department_moves import TOPICS, carry_out_due, log_ended, move_message, path_names
from tollhouse_server.api.masks import changed_fields
from tollhouse_server.api.mutation import Change, Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.values import etag, moment_of, timestamp, version_of
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import Topic
from tollhouse_server.database.rows import change, check_version
from tollhouse_server.errors import ResourceInUse, WrongState
from tollhouse_server.names import DepartmentMoveName, DepartmentName, TenantName
from tollhouse_server.tenancy import move_store, store
from tollhouse_server.tenancy.moves import effective_moment
from tollhouse_server.tenancy.tables import DepartmentMoveRow, DepartmentRow


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
        async with self._database.within(call.domain) as session:
            return _message(await store.get_department(session, DepartmentName.parse(request.name)))

    async def list_departments(self, request: pb.ListDepartmentsRequest, call: Call) -> pb.ListDepartmentsResponse:
        async with self._database.within(call.domain) as session:
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
        asked = moment_of(request.effective_time, "effective_time") if request.HasField("effective_time") else None
        ended: list[DepartmentMoveRow] = []

        async def act(session: AsyncSession) -> Change[pb.Department]:
            await move_store.begin_move(session, name.tenant)
            # What was to happen before this happens before this, also when nobody has come to it yet.
            ended.extend(await carry_out_due(session, name.tenant))
            row = await _locked(session, name, request.etag)
            before = _message(row)
            now = (await store.read_clock(session, name.tenant)).now
            at = effective_moment(asked, now)
            move = await _move(session, row, _parent_id(request.parent_department), at=at, now=now, call=call)
            after = _message(row)
            after.move.CopyFrom(move_message(move))
            return Change(resource=str(name), before=before, after=after, answer=after)

        answer = await self._mutations.run(call, request, pb.Department, act, *TOPICS)
        if not request.validate_only:
            log_ended(ended)
        return answer

    async def get_department_move(self, request: pb.GetDepartmentMoveRequest, call: Call) -> pb.DepartmentMove:
        async with self._database.within(call.domain) as session:
            return move_message(await move_store.get_move(session, DepartmentMoveName.parse(request.name)))

    async def list_department_moves(
        self, request: pb.ListDepartmentMovesRequest, call: Call
    ) -> pb.ListDepartmentMovesResponse:
        state = pb.DepartmentMove.State.Name(request.state).removeprefix("STATE_") if request.state else None
        async with self._database.within(call.domain) as session:
            rows = await move_store.list_moves(
                session,
                TenantName.parse(request.parent, "parent").tenant,
                department=_parent_id(request.department, "department"),
                state=state,
                before=_position(self._pages.after(request)),
                size=self._pages.size(request) + 1,
            )
        page, last = self._pages.split(request, rows)
        token = self._pages.next(request, f"{last.effective_at.isoformat()} {last.move_id}") if last else ""
        return pb.ListDepartmentMovesResponse(department_moves=map(move_message, page), next_page_token=token)

    async def cancel_department_move(self, request: pb.CancelDepartmentMoveRequest, call: Call) -> pb.DepartmentMove:
        name = DepartmentMoveName.parse(request.name)

        async def act(session: AsyncSession) -> Change[pb.DepartmentMove]:
            await move_store.begin_move(session, name.tenant)
            row = await move_store.get_move(session, name, lock=True)
            check_version(row, version_of(request.etag, str(name)), str(name))
            now = (await store.read_clock(session, name.tenant)).now
            if row.state != "SCHEDULED" or row.effective_at <= now:
                state = "due" if row.state == "SCHEDULED" else row.state
                raise WrongState(name=str(name), state=state, needed="SCHEDULED for a time to come")
            before = move_message(row)
            after = move_message(await change(session, row, state="CANCELLED", ended_at=now))
            return Change(resource=str(name), before=before, after=after, answer=after)

        return await self._mutations.run(call, request, pb.DepartmentMove, act)

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


async def _move(
    session: AsyncSession, row: DepartmentRow, parent: str | None, *, at: datetime | None, now: datetime, call: Call
) -> DepartmentMoveRow:
    """Move a locked department at once, or, if `at` is a moment to come, schedule it."""
    before = after = row.path
    if at is None:
        await move_store.relocate(session, row, parent)
        after = row.path
    else:
        before, after = await move_store.foresee(session, row, parent, at)
    move = DepartmentMoveRow(
        tenant_id=row.tenant_id,
        move_id="",
        department_id=row.department_id,
        parent_id=parent,
        effective_at=at or now,
        state="APPLIED" if at is None else "SCHEDULED",
        path_before=before,
        path_after=after,
        department_count=0,
        project_count=0,
        limits_left=0,
        limits_joined=0,
        creator=call.principal.name,
        credential_id=call.principal.credential_id,
        ended_at=now if at is None else None,
    )
    return await move_store.add_move(session, move, top=row.path)


def _position(text: str) -> tuple[datetime, str] | None:
    moment, _, move = text.partition(" ")
    return (datetime.fromisoformat(moment), move) if text else None


def _parent_id(text: str, field: str = "parent_department") -> str | None:
    # That it is of the same tenant, the rule of the RPC has seen to.
    return DepartmentName.parse(text, field).department if text else None


def _message(row: DepartmentRow) -> pb.Department:
    names = path_names(row.tenant_id, row.path)
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
