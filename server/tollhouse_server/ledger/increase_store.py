"""Temporary increases of limits: asked for by one, decided by another, over at their expiry."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlmodel import and_, col, func, or_, select, tuple_
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.decisions import APPROVE, EXPIRED, REQUESTED, REVOKE, Decision, require_step
from tollhouse_server.database.integrity import constraints
from tollhouse_server.database.rows import change, check_version, find, insert
from tollhouse_server.errors import ResourceExists, ResourceNotFound, SecondPersonNeeded
from tollhouse_server.ledger.limit_store import announce_change, require_unkept
from tollhouse_server.ledger.tables import LimitIncreaseRow, LimitRow
from tollhouse_server.names import LimitIncreaseName, LimitName

_MAY_EXPIRE: Final = (REQUESTED, "APPROVED")


@dataclass(frozen=True, slots=True, kw_only=True)
class IncreaseView:
    """An increase with its limit, and the state that it has at the moment of the question."""

    row: LimitIncreaseRow
    limit: LimitRow
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowed:
    """Which increases are listed: of limits on exactly this scope, of one limit, in one state; empty means all."""

    scope: str = ""
    limit: str = ""
    state: str = ""


async def create_increase(session: AsyncSession, row: LimitIncreaseRow, limit: LimitRow) -> IncreaseView:
    """Insert a request for an increase of an active limit.

    Raises:
        ResourceExists: the id is taken in this tenant.
        ResourceInUse: the limit is kept by something else: a wallet has what was paid, and no more.
    """
    require_unkept(limit)
    name = LimitIncreaseName(row.tenant_id, row.increase_id)
    with constraints({"limit_increase_pkey": ResourceExists(name=str(name))}):
        await insert(session, row)
    return IncreaseView(row=row, limit=limit, state=row.state)


async def view_increase(session: AsyncSession, name: LimitIncreaseName, *, scope: str = "") -> IncreaseView:
    """Return an increase; with `scope` only if its limit is on exactly that one.

    Raises:
        ResourceNotFound: there is none, or not there.
    """
    return await _view(session, name, await find(session, _query(name), name), scope)


async def lock_increase(session: AsyncSession, name: LimitIncreaseName, *, scope: str = "") -> IncreaseView:
    """Return an increase as `view_increase` does, and keep others from deciding on it until the transaction ends.

    The row is locked before its state is looked at: of two who decide at once, the second meets what the first did.

    Raises:
        ResourceNotFound: there is none, or not there.
    """
    return await _view(session, name, await find(session, _query(name), name, lock=True), scope)


async def decide(session: AsyncSession, increase: IncreaseView, decision: Decision) -> IncreaseView:
    """Take a step with a locked increase.

    Raises:
        EtagMismatch: it is not at `decision.expected_version`.
        WrongState: the step does not lead on from the state that it is in.
        SecondPersonNeeded: it would be approved by who asked for it.
        RequesterOnly: it would be withdrawn by somebody else.
        ResourceNotFound: the limit that it would raise is deleted.
    """
    row = increase.row
    name = LimitIncreaseName(row.tenant_id, row.increase_id)
    check_version(row, decision.expected_version, str(name))
    require_step(str(name), decision, state=increase.state, requester=row.requested_by)
    if decision.step is APPROVE and increase.limit.state != "ACTIVE":
        raise ResourceNotFound(name=str(LimitName(row.tenant_id, increase.limit.name)))
    with constraints({"limit_increase_second_person": SecondPersonNeeded(name=str(name))}):
        await change(session, row, **decision.taken_at(await _now(session)))
    if decision.step in (APPROVE, REVOKE):
        await announce_change(session, row.tenant_id, row.limit_id)
    return IncreaseView(row=row, limit=increase.limit, state=decision.step.leads_to)


async def list_increases(
    session: AsyncSession, tenant: str, narrowed: Narrowed, *, after: tuple[datetime, str] | None, size: int
) -> list[IncreaseView]:
    """Return up to `size` increases, the newest first, after the one that was made at a moment under an id."""
    place = tuple_(col(LimitIncreaseRow.created_at), col(LimitIncreaseRow.increase_id))
    query = (
        select(LimitIncreaseRow, LimitRow, func.now())
        .join(LimitRow, _is_its_limit())
        .where(col(LimitIncreaseRow.tenant_id) == tenant, *_conditions(narrowed))
        .order_by(col(LimitIncreaseRow.created_at).desc(), col(LimitIncreaseRow.increase_id).desc())
        .limit(size)
    )
    if after is not None:
        query = query.where(place < tuple_(*after))
    rows = (await session.exec(query)).all()
    return [IncreaseView(row=row, limit=limit, state=_state(row, now)) for row, limit, now in rows]


def _query(name: LimitIncreaseName) -> Any:
    return select(LimitIncreaseRow).where(
        LimitIncreaseRow.tenant_id == name.tenant, LimitIncreaseRow.increase_id == name.limit_increase
    )


async def _view(session: AsyncSession, name: LimitIncreaseName, row: LimitIncreaseRow, scope: str) -> IncreaseView:
    query = select(LimitRow).where(LimitRow.tenant_id == row.tenant_id, LimitRow.limit_id == row.limit_id)
    limit = (await session.exec(query)).one()
    if scope and limit.scope != scope:
        raise ResourceNotFound(name=str(name))
    return IncreaseView(row=row, limit=limit, state=_state(row, await _now(session)))


async def _now(session: AsyncSession) -> datetime:
    """Return the database's time: not the transaction's, which may have waited for a lock since."""
    now: datetime = (await session.exec(select(func.clock_timestamp()))).one()
    return now


def _state(row: LimitIncreaseRow, now: datetime) -> str:
    return EXPIRED if row.state in _MAY_EXPIRE and row.expires_at <= now else row.state


def _is_its_limit() -> Any:
    return and_(
        col(LimitRow.tenant_id) == col(LimitIncreaseRow.tenant_id),
        col(LimitRow.limit_id) == col(LimitIncreaseRow.limit_id),
    )


def _conditions(narrowed: Narrowed) -> Sequence[Any]:
    conditions: list[Any] = []
    if narrowed.scope:
        conditions.append(col(LimitRow.scope) == narrowed.scope)
    if narrowed.limit:
        conditions.append(col(LimitRow.name) == narrowed.limit)
    if narrowed.state:
        conditions.append(_is_in(narrowed.state))
    return conditions


def _is_in(state: str) -> Any:
    """Return the condition that `_state` is `state`."""
    stored, is_over = col(LimitIncreaseRow.state), col(LimitIncreaseRow.expires_at) <= func.now()
    if state == EXPIRED:
        return and_(stored.in_(_MAY_EXPIRE), is_over)
    return and_(stored == state, or_(stored.not_in(_MAY_EXPIRE), ~is_over))
