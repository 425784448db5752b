"""The only SQL of reporting. Every function works in its caller's transaction and changes nothing.

Sums come as `numeric` and become Python's integers: exact whatever their size. What reads many records names the
tenant and a range of `settled_at`, so it reads only the partitions and the part of the index that it is about.
Days that are over are read from their roll-ups instead (`rollup_store.py`); which, `read_plan` says.
"""

from collections.abc import Collection, Sequence
from datetime import timedelta
from itertools import groupby
from operator import attrgetter
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    and_,
    func,
    or_,
    select,
    tuple_,
    union_all,
)
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.rows import SNAPSHOT, run_sql
from tollhouse_server.identity.store import key_name
from tollhouse_server.ledger.terms import RecordKind
from tollhouse_server.names import PLATFORM, DepartmentName, ProjectName, Scope
from tollhouse_server.reporting.facts import (
    CALL_KINDS,
    in_period,
    in_scope,
    is_part_of_report,
    key_columns,
    sku_facts,
    usage_facts,
)
from tollhouse_server.reporting.periods import Period
from tollhouse_server.reporting.questions import Position, Question, UsageSums
from tollhouse_server.reporting.records import UsageRecord, lines_of, usage_of
from tollhouse_server.reporting.rollup_store import keep_records, read_plan, require_records
from tollhouse_server.reporting.sums import Dimension, Group, Keys, Line, Sums
from tollhouse_server.reporting.tables import API_KEY, PROJECT, RECORD, REQUEST_KEY

LONGEST_CALL: Final = timedelta(hours=1)
"""All attempts of one call begin within this time: far beyond any deadline that a server grants."""

_CLOCKS_APART: Final = timedelta(minutes=1)


async def begin_snapshot(session: AsyncSession, *, snapshot: str = "") -> None:
    """Make all that follows in the transaction see one state of the ledger; must be its first statement.

    With `snapshot`, the id of one that another transaction has exported, it is the state that this one sees.
    """
    await run_sql(session, SNAPSHOT)
    if snapshot:
        await run_sql(session, f"SET TRANSACTION SNAPSHOT '{snapshot}'")
    # Before the snapshot is taken, which the next statement does.
    await keep_records(session)


# --- sums -------------------------------------------------------------------------------------------------------------


async def sum_usage(session: AsyncSession, question: Question, *, most: int) -> UsageSums:
    """Return the total and at most `most` groups, the dearest first: from roll-ups where they are, else from records.

    SKU must not be among the dimensions: a record has a part in several of them.

    Raises:
        RecordsDropped: the answer takes records that were dropped after an export.
    """
    plan = await read_plan(session, question)
    facts = union_all(*usage_facts(question, plan)).subquery("facts")
    keys = [facts.c[name] for name in key_columns(question.dimensions)]
    sums = [func.sum(facts.c[name]).label(name) for name in Sums.__slots__]
    if not keys:
        (row,) = await _rows(session, select(*sums))
        return UsageSums(total=_sums(row), groups=())
    is_total = func.grouping(*keys)
    query = (
        select(*keys, is_total.label("is_total"), *sums)
        .group_by(func.grouping_sets(tuple_(), tuple_(*keys)))
        .having(or_(is_total > 0, is_part_of_report(facts)))
        .order_by(is_total.desc(), func.sum(facts.c.cost_nanos).desc(), *keys)
        .limit(most + 1)
    )
    total, *groups = await _rows(session, query)
    return UsageSums(
        total=_sums(total), groups=tuple(Group(keys=_keys(row, question), sums=_sums(row)) for row in groups)
    )


async def sum_skus(session: AsyncSession, question: Question, *, most: int) -> tuple[Line, ...]:
    """Return at most `most` lines by dimensions with SKU among them, the dearest first.

    Cost that the priced lines of a record do not explain is under UNITEMISED, so that the lines add up to the total.

    Raises:
        RecordsDropped: as `sum_usage`.
    """
    facts = sku_facts(question, await read_plan(session, question))
    if not facts:
        # The period is no time at all.
        return ()
    parts = union_all(*facts).subquery("parts")
    keys = [parts.c[name] for name in key_columns(question.dimensions)]
    cost, quantity = func.sum(parts.c.part_nanos), func.sum(parts.c.quantity)
    query = (
        select(*keys, quantity.label("quantity"), func.sum(parts.c.part_calls).label("calls"), cost.label("cost_nanos"))
        .group_by(*keys)
        .having(or_(quantity != 0, cost != 0))
        .order_by(cost.desc(), *keys)
        .limit(most)
    )
    return tuple(
        Line(
            keys=_keys(row, question),
            calls=int(row.calls),
            cost_nanos=int(row.cost_nanos),
            quantity=int(row.quantity),
        )
        for row in await _rows(session, query)
    )


def _keys(row: Row[Any], question: Question) -> Keys:
    return {dimension: _key(row, dimension, question) for dimension in question.dimensions}


def _key(row: Row[Any], dimension: Dimension, question: Question) -> Any:
    tenant = question.scope.tenant
    match dimension:
        case Dimension.DEPARTMENT:
            return str(DepartmentName(tenant, row.department))
        case Dimension.PROJECT:
            return str(ProjectName(tenant, row.department, row.project))
        case Dimension.DAY:
            return question.days[row.day - 1].date
        case _:
            return getattr(row, dimension.value)


def _sums(row: Row[Any]) -> Sums:
    # Of no records there is no sum: NULL.
    return Sums(**{name: int(getattr(row, name) or 0) for name in Sums.__slots__})


# --- records ----------------------------------------------------------------------------------------------------------


async def list_records(
    session: AsyncSession,
    scope: Scope,
    period: Period,
    *,
    after: Position | None,
    newest_first: bool,
    kind: RecordKind | None = None,
    size: int,
) -> list[UsageRecord]:
    """Return up to `size` records of a period that come behind `after`, by the moment of their booking.

    Raises:
        RecordsDropped: some of the period's records were dropped after an export.
    """
    await require_records(session, scope.tenant, [period])
    record = RECORD.c
    query = select(RECORD).where(*in_scope(RECORD, scope), *in_period(period))
    if kind is not None:
        query = query.where(record.kind == kind.value)
    if after is not None:
        query = query.where(*_behind(after, newest_first=newest_first))
    order = [record.settled_at, record.attempt_id]
    query = query.order_by(*(one.desc() if newest_first else one for one in order)).limit(size)
    return [_record(row) for row in await _rows(session, query)]


async def find_attempt(session: AsyncSession, scope: Scope, call_id: UUID) -> list[UsageRecord]:
    """Return all records, the oldest first, of the attempt that was charged for a call; empty if there is none.

    `call_id` is the id of the attempt itself, or the request id of a call of the last day.
    """
    charged = await _attempt(session, scope, call_id)
    if charged:
        return charged
    attempt_id = await _charged_attempt(session, scope, call_id)
    return [] if attempt_id is None else await _attempt(session, scope, attempt_id)


async def find_attempts(
    session: AsyncSession, scope: Scope, attempt_ids: Collection[UUID]
) -> dict[UUID, list[UsageRecord]]:
    """Return all records of each of many attempts, the oldest first; those that are not of the scope are left out."""
    attempt, moment = RECORD.c.attempt_id, RECORD.c.settled_at
    query = select(RECORD).where(*in_scope(RECORD, scope), attempt.in_(attempt_ids)).order_by(attempt, moment)
    records = map(_record, await _rows(session, query))
    return {attempt_id: list(group) for attempt_id, group in groupby(records, key=attrgetter("attempt_id"))}


async def _attempt(session: AsyncSession, scope: Scope, attempt_id: UUID) -> list[UsageRecord]:
    query = (
        select(RECORD).where(*in_scope(RECORD, scope), RECORD.c.attempt_id == attempt_id).order_by(RECORD.c.settled_at)
    )
    records = [_record(row) for row in await _rows(session, query)]
    return [] if all(record.kind is RecordKind.REFUSED for record in records) else records


async def _charged_attempt(session: AsyncSession, scope: Scope, request_id: UUID) -> UUID | None:
    """Return the attempt of a call that was not refused.

    Records have no index by request id. The call's latest attempt is known, the one that served it if any did; attempt
    ids begin with their time, so it is found in a short stretch of the primary key.
    """
    key = REQUEST_KEY.c
    claims = await _rows(
        session,
        select(key.attempt_id, key.created_at).where(key.tenant_id == scope.tenant, key.request_id == request_id),
    )
    if not claims:
        return None
    first, claimed_at = claims[0].attempt_id, claims[0].created_at
    record = RECORD.c
    query = (
        select(record.attempt_id)
        .where(
            *in_scope(RECORD, scope),
            record.request_id == request_id,
            record.kind.in_(CALL_KINDS),
            record.settled_at >= claimed_at - _CLOCKS_APART,
            record.attempt_id >= _moved(first, -_CLOCKS_APART),
            record.attempt_id <= _moved(first, LONGEST_CALL),
        )
        .order_by(record.attempt_id)
        .limit(1)
    )
    found = await _rows(session, query)
    return found[0].attempt_id if found else None


def _moved(attempt_id: UUID, by: timedelta) -> UUID:
    """Return an id as a UUIDv7 made `by` later would be: its first 48 bits count milliseconds."""
    return UUID(int=max(0, min(attempt_id.int + (by // timedelta(milliseconds=1) << 80), 2**128 - 1)))


async def credential_names(session: AsyncSession, tenant: str, credential_ids: Collection[str]) -> dict[str, str]:
    """Return the resource names of the API keys behind credential ids, revoked ones too."""
    key, project = API_KEY.c, PROJECT.c
    at_home = and_(project.tenant_id == key.tenant_id, project.project_id == key.project_id)
    query = (
        select(key.tenant_id, key.key_id, key.project_id, project.department_id)
        .select_from(API_KEY.outerjoin(PROJECT, at_home))
        # The platform's own administrators may call too.
        .where(key.tenant_id.in_([tenant, PLATFORM]), key.key_id.in_(sorted(credential_ids)))
    )
    return {
        row.key_id: str(key_name(row.tenant_id, row.key_id, row.project_id, row.department_id))
        for row in await _rows(session, query)
    }


def _behind(after: Position, *, newest_first: bool) -> list[ColumnElement[bool]]:
    moment, attempt = RECORD.c.settled_at, RECORD.c.attempt_id
    # The first condition alone says no more than the second, but it is the one that narrows the index and partitions.
    if newest_first:
        return [moment <= after.settled_at, or_(moment < after.settled_at, attempt < after.attempt_id)]
    return [moment >= after.settled_at, or_(moment > after.settled_at, attempt > after.attempt_id)]


def _record(row: Row[Any]) -> UsageRecord:
    values = dict(row._mapping)
    return UsageRecord(
        **values
        | {
            "kind": RecordKind(row.kind),
            "department_path": tuple(row.department_path),
            "usage": usage_of(row.usage),
            "lines": lines_of(row.lines),
        }
    )


async def _rows(session: AsyncSession, query: Select[Any]) -> Sequence[Row[Any]]:
    connection = await session.connection()
    rows: Sequence[Row[Any]] = (await connection.execute(query)).all()
    return rows
