"""What one row tells a report, as queries that others run: of a record, of a roll-up, of a call still in suspense.

The three have the same columns, so that a report adds them up without asking where each comes from. Roll-ups are made
with the same expressions, so that they cannot mean something else.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeAlias

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    Select,
    String,
    TableClause,
    and_,
    cast,
    column,
    false,
    func,
    literal,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql.elements import Grouping

from tollhouse_server.database.types import INSTANT
from tollhouse_server.ledger.terms import RecordKind
from tollhouse_server.names import DepartmentName, ProjectName, Scope
from tollhouse_server.pricing.usage import TOKEN_KINDS
from tollhouse_server.reporting.coverage import ReadingPlan
from tollhouse_server.reporting.periods import Period
from tollhouse_server.reporting.questions import Question
from tollhouse_server.reporting.sums import UNITEMISED, Dimension
from tollhouse_server.reporting.tables import RECORD, ROLLUP, ROLLUP_SKU, SUSPENSE

Splits: TypeAlias = Mapping[str, ColumnElement[Any]]
"""What rows are grouped by, under the names that the groups have."""

CALL_KINDS: Final = (RecordKind.SETTLED.value, RecordKind.SUSPENSE.value)

_COUNTED: Final = ("input_tokens", "output_tokens", "images", "cost_nanos")
_DETAILED: Final = ("cached_tokens", "tool_use_tokens", "thoughts_tokens")
_PART: Final = ("sku", "quantity", "part_nanos", "part_calls")


def usage_facts(question: Question, plan: ReadingPlan) -> list[Select[Any]]:
    """Return queries that together tell each thing once; their columns are the question's keys, and those of Sums."""
    records = [
        _record_facts(_splits(RECORD, question), detailed=question.detailed).where(
            *_asked(RECORD, question), *_within(RECORD.c.settled_at, stretch)
        )
        for stretch in plan.records
    ]
    rollups = [_rollup_facts(question, stretch) for stretch in plan.rolled_up]
    return [*records, *rollups, _open_suspense_facts(question)]


def sku_facts(question: Question, plan: ReadingPlan) -> list[Select[Any]]:
    """Return queries for the priced lines of everything: the question's keys, `quantity`, `part_nanos`, `part_calls`.

    Cost that the priced lines of a record do not explain is under UNITEMISED, so that all lines add up to the total.
    """
    splits = {name: value for name, value in _splits(RECORD, question).items() if name != "sku"}
    records = [
        record_parts(splits, [*_asked(RECORD, question), *_within(RECORD.c.settled_at, stretch)])
        for stretch in plan.records
    ]
    return [*records, *(_rollup_parts(question, stretch) for stretch in plan.rolled_up)]


def _record_facts(splits: Splits, *, detailed: bool) -> Select[Any]:
    record = RECORD.c
    details: Splits = _details() if detailed else {name: literal(0, Integer) for name in _DETAILED}
    return select(
        *(value.label(name) for name, value in splits.items()),
        *(record[name] for name in _COUNTED),
        *(value.label(name) for name, value in details.items()),
        cast(record.kind.in_(CALL_KINDS), Integer).label("calls"),
        literal(0, Integer).label("suspense_calls"),
        literal(0, BigInteger).label("suspense_nanos"),
        (record.kind != RecordKind.REFUSED.value).label("is_booked"),
    )


def _rollup_facts(question: Question, stretch: Period) -> Select[Any]:
    rollup = ROLLUP.c
    details = {name: rollup[name] if question.detailed else literal(0, Integer) for name in _DETAILED}
    return select(
        *(value.label(name) for name, value in _splits(ROLLUP, question).items()),
        *(rollup[name] for name in _COUNTED),
        *(value.label(name) for name, value in details.items()),
        rollup.calls,
        literal(0, Integer).label("suspense_calls"),
        literal(0, BigInteger).label("suspense_nanos"),
        rollup.is_booked,
    ).where(*_asked(ROLLUP, question), *_within(rollup.day_start, stretch))


def _open_suspense_facts(question: Question) -> Select[Any]:
    """Select what is still unknown of the period: it changes while records and roll-ups stay, so it is read anew."""
    record, suspense = RECORD.c, SUSPENSE.c
    is_open = and_(
        suspense.tenant_id == record.tenant_id,
        suspense.attempt_id == record.attempt_id,
        suspense.tenant_id == question.scope.tenant,
        suspense.resolved_at.is_(None),
    )
    return (
        select(
            *(value.label(name) for name, value in _splits(RECORD, question).items()),
            *(literal(0, BigInteger).label(name) for name in (*_COUNTED, *_DETAILED)),
            literal(0, Integer).label("calls"),
            literal(1, Integer).label("suspense_calls"),
            record.cost_nanos.label("suspense_nanos"),
            false().label("is_booked"),
        )
        .select_from(SUSPENSE.join(RECORD, is_open))
        .where(
            record.kind == RecordKind.SUSPENSE.value,
            *_asked(RECORD, question),
            *_within(record.settled_at, question.period),
        )
    )


def record_parts(splits: Splits, conditions: Sequence[ColumnElement[bool]]) -> Select[Any]:
    """Turn each record into its priced lines, and one more with what these leave unexplained of its cost."""
    facts = select(
        *(value.label(name) for name, value in splits.items()),
        RECORD.c.cost_nanos.label("record_nanos"),
        RECORD.c.lines.label("record_lines"),
        cast(RECORD.c.kind.in_(CALL_KINDS), Integer).label("record_calls"),
    ).where(*conditions)
    record = facts.subquery("record")
    line = (
        func.jsonb_to_recordset(record.c.record_lines)
        .table_valued(column("sku", String), column("quantity", BigInteger), column("cost_nanos", BigInteger))
        .render_derived("line", with_types=True)
    )
    nanos, calls = line.c.cost_nanos.label("part_nanos"), literal(1).label("part_calls")
    itemised = select(line.c.sku, line.c.quantity, nanos, calls)
    rest_nanos = record.c.record_nanos - func.coalesce(func.sum(line.c.cost_nanos), 0)
    rest = select(literal(UNITEMISED), literal(0), rest_nanos, record.c.record_calls)
    rest = rest.select_from(line).correlate(record).having(rest_nanos != 0)
    part = union_all(itemised, rest).lateral("part")
    return select(*(record.c[name] for name in splits), *(part.c[name] for name in _PART)).select_from(
        record.join(part, true())
    )


def _rollup_parts(question: Question, stretch: Period) -> Select[Any]:
    rollup = ROLLUP_SKU.c
    return select(
        *(value.label(name) for name, value in _splits(ROLLUP_SKU, question).items() if name != "sku"),
        rollup.sku,
        rollup.quantity,
        rollup.cost_nanos.label("part_nanos"),
        rollup.calls.label("part_calls"),
    ).where(*_asked(ROLLUP_SKU, question), *_within(rollup.day_start, stretch))


# --- roll-ups as they are made ----------------------------------------------------------------------------------------


def rollup_rows(tenant: str, days: Sequence[Period]) -> Select[Any]:
    """Return what the rows of ROLLUP must be for days that follow upon each other, in the order of its columns."""
    facts = _record_facts(_key_of_rollups(days), detailed=True).where(*_of_days(tenant, days)).subquery("facts")
    fact = facts.c
    return select(
        literal(tenant, String).label("tenant_id"),
        *(fact[name] for name in ROLLUP_KEY),
        func.count().label("record_count"),
        func.bool_or(fact.is_booked).label("is_booked"),
        *(func.sum(fact[name]).label(name) for name in ("calls", *_COUNTED, *_DETAILED)),
    ).group_by(*(fact[name] for name in ROLLUP_KEY))


def rollup_sku_rows(tenant: str, days: Sequence[Period]) -> Select[Any]:
    """Return what the rows of ROLLUP_SKU must be for days that follow upon each other, in the order of its columns."""
    parts = record_parts(_key_of_rollups(days), _of_days(tenant, days)).subquery("parts")
    part = parts.c
    return select(
        literal(tenant, String).label("tenant_id"),
        *(part[name] for name in (*ROLLUP_KEY, "sku")),
        func.sum(part.part_calls).label("calls"),
        func.sum(part.quantity).label("quantity"),
        func.sum(part.part_nanos).label("cost_nanos"),
    ).group_by(*(part[name] for name in (*ROLLUP_KEY, "sku")))


ROLLUP_KEY: Final = ("day_start", "department_path", "project_id", "credential_id", "tier", "model")
"""What the rows of roll-ups of one tenant are told apart by."""


def _key_of_rollups(days: Sequence[Period]) -> Splits:
    starts = instants(day.start for day in days)
    # Without the parentheses, which SQLAlchemy leaves out, PostgreSQL takes no index behind a cast.
    moment = Grouping(starts)[func.width_bucket(RECORD.c.settled_at, starts)]
    return {name: moment if name == "day_start" else RECORD.c[name] for name in ROLLUP_KEY}


def _of_days(tenant: str, days: Sequence[Period]) -> list[ColumnElement[bool]]:
    whole = Period(start=days[0].start, end=days[-1].end)
    return [RECORD.c.tenant_id == tenant, *_within(RECORD.c.settled_at, whole)]


# --- keys and conditions ----------------------------------------------------------------------------------------------


def key_columns(dimensions: Sequence[Dimension]) -> list[str]:
    """Return the columns that make up the keys; a project's resource name takes its department too."""
    names = [name for one in dimensions for name in (("department", "project") if one is Dimension.PROJECT else (one,))]
    return [str(name) for name in dict.fromkeys(names)]


def _splits(table: TableClause, question: Question) -> Splits:
    row = table.c
    moment = row.settled_at if table is RECORD else row.day_start
    # Midnights are worked out here, with the rules that cut the limits' windows, not with the database's own.
    by: Splits = {
        "department": _charged_department(table),
        "department_path": row.department_path,
        "project": row.project_id,
        "credential": row.credential_id,
        "tier": row.tier,
        "model": row.model,
        "day": func.width_bucket(moment, instants(day.start for day in question.days)),
    }
    return {name: by[name] for name in key_columns(question.dimensions) if name in by}


def instants(moments: Iterable[datetime]) -> ColumnElement[Any]:
    """Return moments as an array."""
    kind = ARRAY(INSTANT)
    return cast(literal(list(moments), kind), kind)


def _details() -> Splits:
    cached, tool_use = (
        sum((_count(direction, modality) for modality in TOKEN_KINDS), literal(0, BigInteger))
        for direction in ("cached", "tool_use")
    )
    return dict(zip(_DETAILED, (cached, tool_use, _count("thoughts_tokens")), strict=True))


def _count(*path: str) -> ColumnElement[int]:
    return func.coalesce(cast(RECORD.c.usage[path].as_string(), BigInteger), 0)


def _asked(table: TableClause, question: Question) -> list[ColumnElement[bool]]:
    conditions = in_scope(table, question.scope)
    if question.reach is not None:
        row, reach = table.c, question.reach
        conditions.append(
            or_(row.department_path.overlap(list(reach.departments)), row.project_id.in_(list(reach.projects)))
        )
    return conditions


def in_scope(table: TableClause, scope: Scope) -> list[ColumnElement[bool]]:
    """Return the condition that a row is of the scope, by the tree as it was when the record was booked."""
    row = table.c
    conditions: list[ColumnElement[bool]] = [row.tenant_id == scope.tenant]
    if isinstance(scope, ProjectName):
        # The department as well: a name that puts a project into another department names nothing.
        conditions += [row.project_id == scope.project, _charged_department(table) == scope.department]
    elif isinstance(scope, DepartmentName):
        conditions.append(row.department_path.contains([scope.department]))
    return conditions


def in_period(period: Period) -> list[ColumnElement[bool]]:
    """Return the condition that a record was booked in the period."""
    return _within(RECORD.c.settled_at, period)


def _within(moment: ColumnElement[datetime], period: Period) -> list[ColumnElement[bool]]:
    return [moment >= period.start, moment < period.end]


def _charged_department(table: TableClause) -> ColumnElement[str]:
    path = table.c.department_path
    leaf: ColumnElement[str] = path[func.cardinality(path)]
    return leaf


def is_part_of_report(facts: Any) -> ColumnElement[bool]:
    """Return the condition on a group: one of nothing but refused attempts is no part, one that cancels out is."""
    return or_(func.bool_or(facts.c.is_booked), func.sum(facts.c.cost_nanos) != 0)
