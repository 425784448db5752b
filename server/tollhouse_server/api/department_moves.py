"""Moves of departments in time: whoever reads the epochs makes the moves that are due first.

So no server serves a call on knowledge of the tree that is older than its epochs, and nobody has to be on time for all
others: with one server up, a move is made; with none up, there is no call to count.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import departments_pb2 as pb

from tollhouse_server.api.call import Call
from tollhouse_server.api.values import etag, timestamp
from tollhouse_server.audit.store import record
from tollhouse_server.audit.tables import AuditEventRow
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import Topic, bump
from tollhouse_server.database.rows import run_sql
from tollhouse_server.errors import StoreUnavailable
from tollhouse_server.names import DepartmentMoveName, DepartmentName
from tollhouse_server.tenancy import merge_store, move_store
from tollhouse_server.tenancy.moves import effective_moment
from tollhouse_server.tenancy.tables import DepartmentMoveRow, DepartmentRow

_log = structlog.get_logger(__name__)

TOPICS: Final = (Topic.ACCESS, Topic.CATALOGUE, Topic.IDENTITY, Topic.LIMITS)
"""What is out of date when the tree has changed, in the order in which everyone bumps.

Limits and routing policies because a merge, which may come due ahead of any move, renames their scopes.
"""

_METHODS: Final = {
    "MOVE": ("tollhouse.admin.v1.DepartmentService.MoveDepartment", "departments.move"),
    "MERGE": ("tollhouse.admin.v1.DepartmentService.MergeDepartment", "departments.merge"),
}
# Longer than a change of the tree takes, short enough that a stuck one does not make what this server knows stale.
_PATIENCE: Final = "SET LOCAL statement_timeout = '500ms'"
_SOONEST_SECONDS: Final = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A MOVE under `parent`, None for the top, or a MERGE into it; `asked` is when, None for at once."""

    kind: str
    parent: str | None
    asked: datetime | None
    limit_policy: str = ""


async def move(
    session: AsyncSession, row: DepartmentRow, wanted: Wanted, *, now: datetime, call: Call
) -> DepartmentMoveRow:
    """Move or merge a locked department at once, or, if a moment to come was asked for, schedule it.

    Raises:
        InvalidRequest: the moment is past, or too far ahead.
        ResourceNotFound, DepartmentRing, MergeObstructed: it cannot be made.
    """
    at = effective_moment(wanted.asked, now)
    top, is_merge = row.path, wanted.kind == "MERGE"
    made = DepartmentMoveRow(
        tenant_id=row.tenant_id,
        move_id="",
        department_id=row.department_id,
        kind=wanted.kind,
        parent_id=wanted.parent,
        limit_policy=wanted.limit_policy,
        effective_at=at or now,
        state="APPLIED" if at is None else "SCHEDULED",
        path_before=top,
        path_after=top,
        department_count=0,
        project_count=0,
        limits_left=0,
        limits_joined=0,
        creator=call.principal.name,
        credential_id=call.principal.credential_id,
        ended_at=now if at is None else None,
    )
    if at is not None or is_merge:
        made.path_before, made.path_after = await move_store.foresee(session, row, wanted.parent, at or now)
    if at is not None and is_merge:
        await merge_store.require_mergeable(session, row, limit_policy=wanted.limit_policy)
    if is_merge:
        # What it concerns is counted while it is there.
        made = await move_store.add_move(session, made, top=top)
        if at is None:
            await merge_store.merge(session, row, str(wanted.parent), limit_policy=wanted.limit_policy)
        return made
    if at is None:
        await merge_store.relocate(session, row, wanted.parent)
        made.path_after = row.path
    return await move_store.add_move(session, made, top=row.path)


class DueMoves:
    """Makes the scheduled moves whose time has come by the database's clock."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._postponed: set[str] = set()

    async def carry_out(self) -> float | None:
        """Make what is due, and return in how many seconds the next move will be, None if none will be soon.

        A tenant whose rows someone locks for too long is postponed to the next time, and comes last then.

        Raises:
            StoreUnavailable: the database cannot be asked.
        """
        async with self._database.transaction() as session:
            tenants = await move_store.due_tenants(session)
        due = [tenant for tenant, seconds in tenants.items() if seconds <= 0]
        for tenant in sorted(due, key=lambda one: (one in self._postponed, one)):
            if not await self._carried_out(tenant):
                break
        return min((max(seconds, _SOONEST_SECONDS) for seconds in tenants.values() if seconds > 0), default=None)

    async def _carried_out(self, tenant: str) -> bool:
        try:
            async with self._database.transaction() as session:
                await run_sql(session, _PATIENCE)
                await move_store.begin_move(session, tenant)
                ended = await carry_out_due(session, tenant)
                for topic in TOPICS if ended else ():
                    await bump(session, topic)
        except StoreUnavailable as error:
            _log.warning("department_moves_postponed", tenant=tenant, detail=error.detail)
        except SQLAlchemyError:
            # One tenant's broken row must not end every server.
            _log.exception("department_moves_broken", tenant=tenant)
        else:
            self._postponed.discard(tenant)
            log_ended(ended)
            return True
        self._postponed.add(tenant)
        return False


async def carry_out_due(session: AsyncSession, tenant: str) -> Sequence[DepartmentMoveRow]:
    """Make a tenant's moves that are due, each with its event in the trail.

    `begin_move` came before; the caller bumps `TOPICS` afterwards.
    """
    moves = await move_store.due_moves(session, tenant)
    for move in moves:
        before = move_message(move)
        await move_store.carry_out(session, move)
        await record(session, _event(move, before))
    return moves


def log_ended(moves: Sequence[DepartmentMoveRow]) -> None:
    """Say what became of moves that were due; only after the commit."""
    for move in moves:
        say = _log.warning if move.state == "FAILED" else _log.info
        name, department = _names(move)
        say("department_move_ended", name=name, department=department, state=move.state, failure=move.failure)


def _event(move: DepartmentMoveRow, before: Message) -> AuditEventRow:
    """Return the event of a scheduled move that ended: the act of whoever scheduled it, without a request."""
    return AuditEventRow(
        tenant_id=move.tenant_id,
        actor=move.creator,
        credential_id=move.credential_id,
        method=_METHODS[move.kind][0],
        permission=_METHODS[move.kind][1],
        resource=_names(move)[0],
        before=MessageToDict(before),
        after=MessageToDict(move_message(move)),
        request_id="",
        correlation_id=move.move_id,
    )


def _names(move: DepartmentMoveRow) -> tuple[str, str]:
    name = DepartmentMoveName(move.tenant_id, move.move_id)
    return str(name), str(DepartmentName(move.tenant_id, move.department_id))


def move_message(row: DepartmentMoveRow) -> pb.DepartmentMove:
    """Return a move as callers see it."""
    name, department = _names(row)
    return pb.DepartmentMove(
        name=name,
        department=department,
        parent_department=str(DepartmentName(row.tenant_id, row.parent_id)) if row.parent_id else "",
        effective_time=timestamp(row.effective_at),
        state=pb.DepartmentMove.State.Value(f"STATE_{row.state}"),
        failure=row.failure,
        path_before=path_names(row.tenant_id, row.path_before),
        path_after=path_names(row.tenant_id, row.path_after),
        department_count=row.department_count,
        project_count=row.project_count,
        left_limit_count=row.limits_left,
        joined_limit_count=row.limits_joined,
        creator=row.creator,
        create_time=timestamp(row.created_at),
        end_time=timestamp(row.ended_at),
        etag=etag(row.version),
        kind=pb.DepartmentMove.Kind.Value(f"KIND_{row.kind}"),
        limit_policy=pb.MergedLimits.Value(f"MERGED_LIMITS_{row.limit_policy or 'UNSPECIFIED'}"),
        own_limit_count=row.own_limits,
        own_role_grant_count=row.own_grants,
    )


def path_names(tenant: str, path: str) -> list[str]:
    """Return the resource names of the departments of a path of ids joined by dots."""
    return [str(DepartmentName(tenant, department)) for department in path.split(".")]
