"""Conservation: the sum of the roll-ups is the sum of the records, or somebody is told where it is not."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any, Final, Protocol

from sqlalchemy import (
    ColumnElement,
    Integer,
    Row,
    Select,
    TableClause,
    and_,
    case,
    cast,
    func,
    literal,
    or_,
    select,
    union_all,
)
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.reporting.detail_conservation_store import unequal_details
from tollhouse_server.reporting.facts import ROLLUP_KEY, rollup_rows, rollup_sku_rows
from tollhouse_server.reporting.kept_detail_store import LABEL_DETAIL, PRICE_DETAIL
from tollhouse_server.reporting.periods import Period
from tollhouse_server.reporting.rollup_store import (
    RolledDay,
    column_names,
    dropped_months,
    fetch_rows,
    keep_records,
    overlap,
    rolled_days,
)
from tollhouse_server.reporting.tables import ROLLUP, ROLLUP_DAY, ROLLUP_SKU

_DAYS_COMPARED_AT_ONCE: Final = 31
_DETAILS: Final = {"label": LABEL_DETAIL, "price": PRICE_DETAIL}


@dataclass(frozen=True, slots=True, kw_only=True)
class RollupDifference:
    """A value of a rolled-up day that is not what the records say.

    `part` is `usage`, `sku`, `label` or `price` for sums of one group, which `key` names in words, and `day` for the
    sums of the whole day: there `records` is what the day was when it was made, and `rollups` what its groups add up to
    now.
    """

    tenant_id: str
    day: Period
    part: str
    key: str
    field: str
    records: int
    rollups: int


async def compare_rollups(
    session: AsyncSession, tenant: str | None = None, *, since: datetime | None = None, until: datetime | None = None
) -> AsyncIterator[RollupDifference]:
    """Yield every value in which rolled-up days differ from the records, of one tenant or of all, day by day.

    `since` and `until` bound the days by their starts and ends. Nothing yielded means that the sum of the roll-ups is
    the sum of the records, group by group, field by field, and of days with details by label and price as well. Days
    whose records were dropped are only held against their own sums. Reads each record of the days four times, once for
    each part. As neither ever changes, any isolation does.
    """
    await keep_records(session)
    dropped = await dropped_months(session)
    for one in [tenant] if tenant is not None else await _rolled_tenants(session):
        days = [day for day in await rolled_days(session, one) if _is_between(day.period, since, until)]
        for difference in await _own_differences(session, one, days):
            yield difference
        present = [day for day in days if not any(overlap(day.period, month) for month in dropped)]
        for stretch in _stretches([day.period for day in present]):
            for part in (
                _Part(name="usage", table=ROLLUP, made=rollup_rows(one, stretch)),
                _Part(name="sku", table=ROLLUP_SKU, made=rollup_sku_rows(one, stretch)),
            ):
                for difference in await _group_differences(session, one, stretch, part):
                    yield difference
        for stretch in _stretches([day.period for day in present if day.has_details]):
            for name, detail in _DETAILS.items():
                for row in await unequal_details(session, one, stretch, detail):
                    for difference in _differences_of(row, tenant=one, stretch=stretch, part=name, grouped=detail):
                        yield difference


def _is_between(day: Period, since: datetime | None, until: datetime | None) -> bool:
    return (since is None or day.start >= since) and (until is None or day.end <= until)


def _stretches(days: Sequence[Period]) -> list[list[Period]]:
    """Return the days in runs that follow upon each other, each of a bounded length."""
    runs: list[list[Period]] = []
    for day in days:
        if not runs or runs[-1][-1].end != day.start or len(runs[-1]) >= _DAYS_COMPARED_AT_ONCE:
            runs.append([])
        runs[-1].append(day)
    return runs


async def _rolled_tenants(session: AsyncSession) -> list[str]:
    query = select(ROLLUP_DAY.c.tenant_id).distinct().order_by(ROLLUP_DAY.c.tenant_id)
    return [row.tenant_id for row in await fetch_rows(session, query)]


async def _own_differences(session: AsyncSession, tenant: str, days: Sequence[RolledDay]) -> list[RollupDifference]:
    """Hold the sums of whole days against those of their groups, and look for gaps between days."""
    if not days:
        return []
    sums = {
        table: {row.day_start: row for row in await fetch_rows(session, _day_sums(table, tenant, days))}
        for table in (ROLLUP, ROLLUP_SKU)
    }
    found = []
    for day in days:
        usage, skus = (sums[table].get(day.period.start) for table in (ROLLUP, ROLLUP_SKU))
        told = [
            ("record_count", day.record_count, int(usage.record_count) if usage else 0),
            ("cost_nanos", day.cost_nanos, int(usage.cost_nanos) if usage else 0),
            ("cost_nanos by SKU", day.cost_nanos, int(skus.cost_nanos) if skus else 0),
        ]
        found += [_of_day(day, field, is_now, was) for field, was, is_now in told if was != is_now]
    gaps = [(one, int((other.period.start - one.period.end).total_seconds())) for one, other in pairwise(days)]
    return found + [_of_day(day, "seconds up to the next day", seconds, 0) for day, seconds in gaps if seconds]


def _of_day(day: RolledDay, field: str, rollups: int, records: int) -> RollupDifference:
    return RollupDifference(
        tenant_id=day.tenant_id, day=day.period, part="day", key="", field=field, records=records, rollups=rollups
    )


def _day_sums(table: TableClause, tenant: str, days: Sequence[RolledDay]) -> Select[Any]:
    row = table.c
    counted = [func.sum(row[name]).label(name) for name in ("record_count", "cost_nanos") if name in row]
    return (
        select(row.day_start, *counted)
        .where(row.tenant_id == tenant, row.day_start >= days[0].period.start, row.day_start < days[-1].period.end)
        .group_by(row.day_start)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A table of roll-ups, and what its rows must be."""

    name: str
    table: TableClause
    made: Select[Any]

    @property
    def key_columns(self) -> list[str]:
        return [name for name in column_names(self.table) if name in (*ROLLUP_KEY, "sku")]

    @property
    def sums(self) -> list[str]:
        return [name for name in column_names(self.table) if name not in (*self.key_columns, "tenant_id")]


async def _group_differences(
    session: AsyncSession, tenant: str, stretch: Sequence[Period], part: _Part
) -> list[RollupDifference]:
    return [
        difference
        for row in await fetch_rows(session, _unequal_groups(tenant, stretch, part))
        for difference in _differences_of(row, tenant=tenant, stretch=stretch, part=part.name, grouped=part)
    ]


class _Grouped(Protocol):
    """What tells groups apart, and what is added up of them."""

    @property
    def key_columns(self) -> Sequence[str]: ...

    @property
    def sums(self) -> Sequence[str]: ...


def _differences_of(
    row: Row[Any], *, tenant: str, stretch: Sequence[Period], part: str, grouped: _Grouped
) -> list[RollupDifference]:
    """Return a difference for each sum that a group has otherwise than its records."""
    days = {day.start: day for day in stretch}
    return [
        RollupDifference(
            tenant_id=tenant,
            day=days.get(row.day_start, Period(start=row.day_start, end=row.day_start)),
            part=part,
            key=" ".join(_word(getattr(row, column)) for column in grouped.key_columns if column != "day_start"),
            field=name,
            records=int(getattr(row, f"{name}_made")),
            rollups=int(getattr(row, f"{name}_stored")),
        )
        for name in grouped.sums
        if getattr(row, f"{name}_made") != getattr(row, f"{name}_stored")
    ]


def _unequal_groups(tenant: str, stretch: Sequence[Period], part: _Part) -> Select[Any]:
    """Add up both sides of each group, and keep those groups in which they differ or one is missing."""
    stored, whole = part.table.c, Period(start=stretch[0].start, end=stretch[-1].end)
    of_stretch = and_(stored.tenant_id == tenant, stored.day_start >= whole.start, stored.day_start < whole.end)
    both = union_all(
        select(literal("made").label("side"), *_comparable(part.made.subquery("made").c, part)),
        select(literal("stored").label("side"), *_comparable(stored, part)).where(of_stretch),
    ).subquery("both")
    sums = {
        (name, side): func.coalesce(func.sum(case((both.c.side == side, both.c[name]), else_=0)), 0)
        for name in part.sums
        for side in ("made", "stored")
    }
    key = [both.c[name] for name in part.key_columns]
    query = select(*key, *(value.label(f"{name}_{side}") for (name, side), value in sums.items())).group_by(*key)
    return query.having(or_(*(sums[name, "made"] != sums[name, "stored"] for name in part.sums)))


def _comparable(columns: Any, part: _Part) -> list[ColumnElement[Any]]:
    values = {name: cast(columns[name], Integer) if name == "is_booked" else columns[name] for name in part.sums}
    return [*(columns[name] for name in part.key_columns), *(value.label(name) for name, value in values.items())]


def _word(value: Any) -> str:
    return ">".join(value) if isinstance(value, list) else str(value)
