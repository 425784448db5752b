"""The only SQL of reporting. Every function works in its caller's transaction and changes nothing.

Sums come as `numeric` and become Python's integers: exact whatever their size. What reads many records names the
tenant and a range of `settled_at`, so it reads only the partitions and the part of the index that it is about.
Roll-ups, when they come, take the place of the records inside `sum_usage` and `sum_skus`.
"""

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    Row,
    Select,
    String,
    and_,
    cast,
    column,
    func,
    literal,
    or_,
    select,
    true,
    tuple_,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.rows import run_sql
from tollhouse_server.database.types import INSTANT
from tollhouse_server.identity.store import key_name
from tollhouse_server.ledger.terms import RecordKind
from tollhouse_server.names import PLATFORM, DepartmentName, ProjectName, Scope
from tollhouse_server.pricing.usage import TOKEN_KINDS
from tollhouse_server.reporting.periods import Period
from tollhouse_server.reporting.questions import Position, Question, UsageSums
from tollhouse_server.reporting.records import UsageRecord, lines_of, usage_of
from tollhouse_server.reporting.sums import UNITEMISED, Dimension, Group, Keys, Line, Sums
from tollhouse_server.reporting.tables import API_KEY, PROJECT, RECORD, REQUEST_KEY, SUSPENSE

LONGEST_CALL: Final = timedelta(hours=1)
"""All attempts of one call begin within this time: far beyond any deadline that a server grants."""

_CLOCKS_APART: Final = timedelta(minutes=1)
_CALL_KINDS: Final = (RecordKind.SETTLED.value, RecordKind.SUSPENSE.value)


async def begin_snapshot(session: AsyncSession) -> None:
    """Make all that follows in the transaction see one state of the ledger; must be its first statement."""
    await run_sql(session, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")


# --- sums -------------------------------------------------------------------------------------------------------------


async def sum_usage(session: AsyncSession, question: Question, *, most: int) -> UsageSums:
    """Return the total and at most `most` groups, the dearest first, from one pass over the records.

    SKU must not be among the dimensions: a record has a part in several of them.
    """
    facts = _facts(question).subquery("facts")
    keys = [facts.c[name] for name in _key_columns(question.dimensions)]
    sums = [func.sum(facts.c[name]).label(name) for name in Sums.__slots__]
    if not keys:
        (row,) = await _rows(session, select(*sums))
        return UsageSums(total=_sums(row), groups=())
    is_total = func.grouping(*keys)
    cost = func.sum(facts.c.cost_nanos)
    query = (
        select(*keys, is_total.label("is_total"), *sums)
        .group_by(func.grouping_sets(tuple_(), tuple_(*keys)))
        # A group of nothing but refused attempts is no part of a report; one of corrections that cancel out is.
        .having(or_(is_total > 0, func.bool_or(facts.c.is_booked), cost != 0))
        .order_by(is_total.desc(), cost.desc(), *keys)
        .limit(most + 1)
    )
    total, *groups = await _rows(session, query)
    return UsageSums(
        total=_sums(total), groups=tuple(Group(keys=_keys(row, question), sums=_sums(row)) for row in groups)
    )


async def sum_skus(session: AsyncSession, question: Question, *, most: int) -> tuple[Line, ...]:
    """Return at most `most` lines by dimensions with SKU among them, the dearest first.

    Cost that the priced lines of a record do not explain is under UNITEMISED, so that the lines add up to the total.
    """
    parts = _parts(_facts(question)).subquery("parts")
    keys = [parts.c[name] for name in _key_columns(question.dimensions)]
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


def _facts(question: Question) -> Select[Any]:
    """Select of each record what it is split by and, under the names of Sums, what is added up."""
    record = RECORD.c
    by = _splits(question)
    is_open = and_(record.kind == RecordKind.SUSPENSE.value, record.attempt_id.in_(_open_suspense(question.scope)))
    return select(
        *(by[name].label(name) for name in _key_columns(question.dimensions) if name in by),
        *(record[name] for name in ("input_tokens", "output_tokens", "images", "cost_nanos", "lines")),
        *(value.label(name) for name, value in _details(question).items()),
        cast(record.kind.in_(_CALL_KINDS), Integer).label("calls"),
        cast(is_open, Integer).label("suspense_calls"),
        (cast(is_open, Integer) * record.cost_nanos).label("suspense_nanos"),
        (record.kind != RecordKind.REFUSED.value).label("is_booked"),
    ).where(*_in_scope(question.scope), *_in_period(question.period))


def _splits(question: Question) -> dict[str, ColumnElement[Any]]:
    record = RECORD.c
    instants = ARRAY(INSTANT)
    # Midnights are worked out here, with the rules that cut the limits' windows, not with the database's own.
    midnights = cast(literal([day.start for day in question.days], instants), instants)
    return {
        "department": _charged_department(),
        "project": record.project_id,
        "credential": record.credential_id,
        "tier": record.tier,
        "model": record.model,
        "day": func.width_bucket(record.settled_at, midnights),
    }


def _details(question: Question) -> dict[str, ColumnElement[Any]]:
    names = ("cached_tokens", "tool_use_tokens", "thoughts_tokens")
    if not question.detailed:
        return {name: literal(0, Integer) for name in names}
    cached, tool_use = (
        sum((_count(direction, modality) for modality in TOKEN_KINDS), literal(0, BigInteger))
        for direction in ("cached", "tool_use")
    )
    return dict(zip(names, (cached, tool_use, _count("thoughts_tokens")), strict=True))


def _count(*path: str) -> ColumnElement[int]:
    return func.coalesce(cast(RECORD.c.usage[path].as_string(), BigInteger), 0)


def _open_suspense(scope: Scope) -> Select[Any]:
    return select(SUSPENSE.c.attempt_id).where(SUSPENSE.c.tenant_id == scope.tenant, SUSPENSE.c.resolved_at.is_(None))


def _parts(facts: Select[Any]) -> Select[Any]:
    """Turn each record into its priced lines, and one more with what these leave unexplained of its cost."""
    record = facts.subquery("record")
    line = (
        func.jsonb_to_recordset(record.c.lines)
        .table_valued(column("sku", String), column("quantity", BigInteger), column("cost_nanos", BigInteger))
        .render_derived("line", with_types=True)
    )
    nanos, calls = line.c.cost_nanos.label("part_nanos"), literal(1).label("part_calls")
    itemised = select(line.c.sku, line.c.quantity, nanos, calls)
    rest_nanos = record.c.cost_nanos - func.coalesce(func.sum(line.c.cost_nanos), 0)
    rest = select(literal(UNITEMISED), literal(0), rest_nanos, record.c.calls).select_from(line).correlate(record)
    part = union_all(itemised, rest.having(rest_nanos != 0)).lateral("part")
    kept = [one for one in record.c if one.name in ("department", "project", "credential", "tier", "model", "day")]
    return select(*kept, *part.c).select_from(record.join(part, true()))


def _key_columns(dimensions: Sequence[Dimension]) -> list[str]:
    """Return the columns that make up the keys; a project's resource name takes its department too."""
    names = [name for one in dimensions for name in (("department", "project") if one is Dimension.PROJECT else (one,))]
    return [str(name) for name in dict.fromkeys(names)]


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
    """Return up to `size` records of a period that come behind `after`, by the moment of their booking."""
    record = RECORD.c
    query = select(RECORD).where(*_in_scope(scope), *_in_period(period))
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


async def _attempt(session: AsyncSession, scope: Scope, attempt_id: UUID) -> list[UsageRecord]:
    query = select(RECORD).where(*_in_scope(scope), RECORD.c.attempt_id == attempt_id).order_by(RECORD.c.settled_at)
    records = [_record(row) for row in await _rows(session, query)]
    return [] if all(record.kind is RecordKind.REFUSED for record in records) else records


async def _charged_attempt(session: AsyncSession, scope: Scope, request_id: UUID) -> UUID | None:
    """Return the attempt of a call that was not refused.

    Records have no index by request id. The call's first attempt is known, and attempt ids begin with their time, so
    the others are found in a short stretch of the primary key.
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
            *_in_scope(scope),
            record.request_id == request_id,
            record.kind.in_(_CALL_KINDS),
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


def _in_scope(scope: Scope) -> list[ColumnElement[bool]]:
    """Return the condition that a record is of the scope, by the tree as it was when the record was booked."""
    record = RECORD.c
    conditions: list[ColumnElement[bool]] = [record.tenant_id == scope.tenant]
    if isinstance(scope, ProjectName):
        # The department as well: a name that puts a project into another department names nothing.
        conditions += [record.project_id == scope.project, _charged_department() == scope.department]
    elif isinstance(scope, DepartmentName):
        conditions.append(record.department_path.contains([scope.department]))
    return conditions


def _charged_department() -> ColumnElement[str]:
    path = RECORD.c.department_path
    leaf: ColumnElement[str] = path[func.cardinality(path)]
    return leaf


def _in_period(period: Period) -> list[ColumnElement[bool]]:
    return [RECORD.c.settled_at >= period.start, RECORD.c.settled_at < period.end]


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
