"""Reads cost by label, and quantities by the price that they had: from what days keep, else from the records."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.rows import run_sql, stream_sql
from tollhouse_server.reporting.coverage import ReadingPlan, plan_reading
from tollhouse_server.reporting.kept_detail_store import LABEL_DETAIL, PRICE_DETAIL, Detail
from tollhouse_server.reporting.periods import Period
from tollhouse_server.reporting.questions import Reach
from tollhouse_server.reporting.rollup_store import dropped_months, overlap


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelCost:
    """What calls with one label cost in one department."""

    department_path: tuple[str, ...]
    label: str
    value: str
    calls: int
    cost_nanos: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedQuantity:
    """Units of a SKU at one price of one version, by the service tier that the answers reported (or empty)."""

    department_path: tuple[str, ...]
    model: str
    service_tier: str
    price_version: int
    sku: str
    nanos_per_million: int
    quantity: int
    cost_nanos: int


async def read_label_costs(
    session: AsyncSession, tenant: str, period: Period, reach: Reach | None = None
) -> list[LabelCost]:
    """Return the costs by label of a period, without the part whose records were dropped before details were kept."""
    return [
        LabelCost(department_path=path, label=label, value=value, calls=int(calls), cost_nanos=int(cost_nanos))
        async for path, label, value, calls, cost_nanos in _read(session, tenant, period, LABEL_DETAIL, reach)
    ]


async def read_priced_quantities(
    session: AsyncSession, tenant: str, period: Period, reach: Reach | None = None
) -> list[PricedQuantity]:
    """Return quantities by price of a period, without the part whose records were dropped before details were kept."""
    return [
        PricedQuantity(
            department_path=path,
            model=model,
            service_tier=service_tier,
            price_version=price_version,
            sku=sku,
            nanos_per_million=nanos_per_million,
            quantity=int(quantity),
            cost_nanos=int(cost_nanos),
        )
        async for path, model, service_tier, price_version, sku, nanos_per_million, quantity, cost_nanos in _read(
            session, tenant, period, PRICE_DETAIL, reach
        )
    ]


async def _read(
    session: AsyncSession, tenant: str, period: Period, detail: Detail, reach: Reach | None
) -> AsyncIterator[Any]:
    """Yield the sums of a period, each with the way to its department, by key and sums as digits."""
    plan = await _plan(session, tenant, period)
    within, reached = _within(detail, reach)
    values = {"tenant": tenant, **reached}
    sources = []
    for number, stretch in enumerate(plan.rolled_up):
        values |= {f"day{number}": stretch.start, f"days{number}": stretch.end}
        days = f"day_start >= :day{number} AND day_start < :days{number}"
        kept = f"{detail.table} WHERE tenant_id = :tenant AND {days} AND {within}"
        sources.append(f"SELECT {detail.columns} FROM {kept}")  # noqa: S608 - names of this module
    for number, stretch in enumerate(plan.records):
        values |= {f"start{number}": stretch.start, f"end{number}": stretch.end}
        fresh = detail.rows.replace(":start", f":start{number}").replace(":end", f":end{number}")
        sources.append(f"SELECT {detail.columns} FROM ({fresh}) AS fresh{number} WHERE {within}")  # noqa: S608
    if not sources:
        return
    # A thousand departments have some hundred thousand of them: an array or a numeric in each costs more than all else.
    others = ", ".join(detail.key_columns[1:])
    digits = ", ".join(f"{name}::text" for name in detail.sums)
    added_up = detail.added_up(" UNION ALL ".join(sources))
    query = f"SELECT array_to_string(department_path, '/'), {others}, {digits} FROM ({added_up}) AS sums"  # noqa: S608
    paths: dict[str, tuple[str, ...]] = {}
    async for text, *others_and_sums in stream_sql(session, query, values):
        if (path := paths.get(text)) is None:
            path = paths[text] = tuple(text.split("/")) if text else ()
        yield path, *others_and_sums


def _within(detail: Detail, reach: Reach | None) -> tuple[str, dict[str, object]]:
    """Return the condition that a row is within reach, and its values."""
    if reach is None:
        return "true", {}
    is_of_department, departments = "department_path && CAST(:departments AS text[])", list(reach.departments)
    if "label" not in detail.key_columns:
        return is_of_department, {"departments": departments}
    has_label = "label || '=' || value = ANY (CAST(:labels AS text[]))"
    return f"({is_of_department} OR {has_label})", {"departments": departments, "labels": list(reach.labels)}


async def _plan(session: AsyncSession, tenant: str, period: Period) -> ReadingPlan:
    query = """
SELECT day_start, day_end FROM usage_rollup_day
WHERE tenant_id = :tenant AND has_details AND day_start >= :start AND day_end <= :end ORDER BY day_start
"""
    days = await run_sql(session, query, {"tenant": tenant, "start": period.start, "end": period.end})
    plan = plan_reading(period, [Period(start=row.day_start, end=row.day_end) for row in days.all()])
    dropped = await dropped_months(session)
    kept = tuple(one for one in plan.records if not any(overlap(one, month) for month in dropped))
    return ReadingPlan(rolled_up=plan.rolled_up, records=kept)
