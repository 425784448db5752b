"""DepartmentService: the tree to which cost is charged."""

from datetime import UTC, datetime
from typing import TypeAlias

from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import departments_pb2 as pb

from tollhouse_server.access.authorizer import Authorizer
from tollhouse_server.access.granting import Granting
from tollhouse_server.api import department_moves
from tollhouse_server.api.call import Call
from tollhouse_server.api.department_moves import TOPICS, carry_out_due, log_ended, move_message, path_names
from tollhouse_server.api.masks import changed_fields
from tollhouse_server.api.mutation import Change, Mutations
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
from tollhouse_server.api.values import etag, moment_of, timestamp, version_of
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import Topic
from tollhouse_server.database.rows import change, check_version
from tollhouse_server.errors import ResourceInUse, WrongState
from tollhouse_server.names import DepartmentMoveName, DepartmentName, TenantName
from tollhouse_server.tenancy import move_store, store
from tollhouse_server.tenancy.tables import DepartmentMoveRow, DepartmentRow

_MoveRequest: TypeAlias = pb.MoveDepartmentRequest | pb.MergeDepartmentRequest


class DepartmentService:
    """Creates, reads, changes, moves, merges and deletes departments."""

    def __init__(self, database: Database, mutations: Mutations, pages: PageTokens, authorizer: Authorizer) -> None:
        self._database = database
        self._mutations = mutations
        self._pages = pages
        self._granting = Granting(authorizer)

    async def create_department(self, request: pb.CreateDepartmentRequest, call: Call) -> pb.Department:
        row = new_department(request)

        async def act(session: AsyncSession) -> Change[pb.Department]:
            after = department_message(await store.create_department(session, row))
            return Change(resource=after.name, before=None, after=after, answer=after)

        return await self._mutations.run(call, request, pb.Department, act, Topic.ACCESS)

    async def get_department(self, request: pb.GetDepartmentRequest, call: Call) -> pb.Department:
        async with self._database.within(call.domain) as session:
            return department_message(await store.get_department(session, DepartmentName.parse(request.name)))

    async def list_departments(self, request: pb.ListDepartmentsRequest, call: Call) -> pb.ListDepartmentsResponse:
        async with self._database.within(call.domain) as session:
            rows = await store.list_departments(
                session,
                TenantName.parse(request.parent, "parent").tenant,
                root=DepartmentName.parse(request.root, "root") if request.root else None,
                after=self._pages.after(request),
                size=self._pages.size(request) + 1,
                to=narrowing(request, pb.Department.State.Name(request.state)),
            )
        page, last = self._pages.split(request, rows)
        token = self._pages.next(request, last.department_id) if last else ""
        return pb.ListDepartmentsResponse(departments=map(department_message, page), next_page_token=token)

    async def update_department(self, request: pb.UpdateDepartmentRequest, call: Call) -> pb.Department:
        fields = changed_fields(request.department, request.update_mask, OWNED_FIELDS)
        name = DepartmentName.parse(request.department.name, "department.name")
        values = owned_values(request.department, fields, name.tenant, "department")

        async def act(session: AsyncSession) -> Change[pb.Department]:
            row = await _locked(session, name, request.department.etag)
            await store.require_owner(session, name.tenant, new_owner(values))
            before = department_message(row)
            after = department_message(await change(session, row, **values))
            return Change(resource=str(name), before=before, after=after, answer=after)

        return await self._mutations.run(call, request, pb.Department, act)

    async def move_department(self, request: pb.MoveDepartmentRequest, call: Call) -> pb.Department:
        name = DepartmentName.parse(request.name)
        asked = moment_of(request.effective_time, "effective_time") if request.HasField("effective_time") else None
        wanted = department_moves.Wanted(kind="MOVE", parent=_parent_id(request.parent_department), asked=asked)
        return await self._move(call, request, name, wanted)

    async def _move(
        self, call: Call, request: _MoveRequest, name: DepartmentName, wanted: department_moves.Wanted
    ) -> pb.Department:
        ended: list[DepartmentMoveRow] = []

        async def act(session: AsyncSession) -> Change[pb.Department]:
            await move_store.begin_move(session, name.tenant)
            # What was to happen before this happens before this, also when nobody has come to it yet.
            ended.extend(await carry_out_due(session, name.tenant))
            row = await _locked(session, name, request.etag)
            before = department_message(row)
            now = (await store.read_clock(session, name.tenant)).now
            move = await department_moves.move(session, row, wanted, now=now, call=call)
            # Who has a role above the new place will have it on what moves: nobody gives more than he has.
            await self._granting.check_move(session, call.principal, name, move.path_before, move.path_after)
            after = department_message(row)
            after.move.CopyFrom(move_message(move))
            return Change(resource=str(name), before=before, after=after, answer=after)

        answer = await self._mutations.run(call, request, pb.Department, act, *TOPICS)
        if not request.validate_only:
            log_ended(ended)
        return answer

    async def merge_department(self, request: pb.MergeDepartmentRequest, call: Call) -> pb.Department:
        name = DepartmentName.parse(request.name)
        into = DepartmentName.parse(request.into_department, "into_department").department
        asked = moment_of(request.effective_time, "effective_time") if request.HasField("effective_time") else None
        policy = pb.MergedLimits.Name(request.limit_policy).removeprefix("MERGED_LIMITS_").replace("UNSPECIFIED", "")
        wanted = department_moves.Wanted(kind="MERGE", parent=into, limit_policy=policy, asked=asked)
        return await self._move(call, request, name, wanted)

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
            before = department_message(row)
            after = department_message(await change(session, row, state="DELETED", deleted_at=datetime.now(UTC)))
            return Change(resource=str(name), before=before, after=after, answer=after)

        return await self._mutations.run(call, request, pb.Department, act, Topic.ACCESS)


async def _locked(session: AsyncSession, name: DepartmentName, tag: str) -> DepartmentRow:
    row = await store.active_department(session, name)
    check_version(row, version_of(tag, str(name)), str(name))
    return row


def _position(text: str) -> tuple[datetime, str] | None:
    moment, _, move = text.partition(" ")
    return (datetime.fromisoformat(moment), move) if text else None


def _parent_id(text: str, field: str = "parent_department") -> str | None:
    # That it is of the same tenant, the rule of the RPC has seen to.
    return DepartmentName.parse(text, field).department if text else None


def new_department(request: pb.CreateDepartmentRequest) -> DepartmentRow:
    """Return the department that a request asks for; its path is still to be found.

    Raises:
        InvalidRequest: a field may not be written so.
    """
    wanted = request.department
    name = DepartmentName.parse(f"{request.parent}/departments/{request.department_id}", "department_id")
    return DepartmentRow(
        tenant_id=name.tenant,
        department_id=name.department,
        parent_id=_parent_id(wanted.parent_department),
        path="",
        display_name=wanted.display_name,
        cost_centre=checked_cost_centre(wanted.cost_centre, "department.cost_centre"),
        owner_id=owner_of(wanted.owner, name.tenant, "department.owner"),
    )


def department_message(row: DepartmentRow) -> pb.Department:
    """Return a department as callers see it."""
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
        cost_centre=row.cost_centre,
        owner=owner_name(row.tenant_id, row.owner_id),
        merged_into=str(DepartmentName(row.tenant_id, row.merged_into)) if row.merged_into else "",
        etag=etag(row.version),
    )
