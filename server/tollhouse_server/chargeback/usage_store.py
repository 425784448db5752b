"""The SQL by which a month is read for its statements: in a transaction that sees one state of the ledger."""

from collections.abc import AsyncIterator, Sequence
from datetime import date
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, Subquery, Text, cast, func, or_, select, tuple_, union_all
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.chargeback.cells import MEASURES, Cell, DayCell, Department, MoneyLimit, SkuCell
from tollhouse_server.chargeback.statement import UsageFact
from tollhouse_server.database.rows import run_sql
from tollhouse_server.names import DepartmentName, LimitName, TenantName
from tollhouse_server.reporting.facts import is_part_of_report, key_columns, sku_facts, usage_facts
from tollhouse_server.reporting.periods import Day, Period
from tollhouse_server.reporting.questions import Question, Reach
from tollhouse_server.reporting.rollup_store import read_plan
from tollhouse_server.reporting.sums import Dimension

_ROWS_AT_A_TIME: Final = 2000

_PLACE: Final = (Dimension.DEPARTMENT_PATH, Dimension.PROJECT, Dimension.TIER, Dimension.MODEL)


async def make_room_for_sums(session: AsyncSession) -> None:
    """Let the transaction add up a month in memory: sorting its parts on disk instead takes three times as long.

    It is taken as it is needed, some tens of megabytes; with less the planner does not trust its estimates. Nor are
    tables read whole: they have the days of all tenants.
    """
    settings = "SELECT set_config('work_mem', '256MB', true), set_config('enable_seqscan', 'off', true)"
    await run_sql(session, settings)


async def read_paths(session: AsyncSession, tenant: str, period: Period, department: str) -> list[tuple[str, ...]]:
    """Return the ways of everything in a period that a department is on, be it as the last one.

    Raises:
        RecordsDropped: the period takes records that were dropped after an export.
    """
    scope = DepartmentName(tenant, department)
    question = Question(scope=scope, period=period, dimensions=(Dimension.DEPARTMENT_PATH,))
    facts = union_all(*usage_facts(question, await read_plan(session, question))).subquery("facts")
    query = select(*_read([facts.c.department_path])).distinct()
    return [tuple(text.split("/")) async for (text,) in _stream(session, query)]


async def read_cells(
    session: AsyncSession, tenant: str, period: Period, days: Sequence[Day], reach: Reach | None = None
) -> tuple[list[Cell], list[DayCell]]:
    """Return the sums of a month by department, project, tier and model, and by day and department.

    Sums by all of these at once would be some hundred thousand, of which only the cost is looked at.

    Raises:
        RecordsDropped: the month takes records that were dropped after an export.
    """
    question = Question(
        scope=TenantName(tenant),
        period=period,
        dimensions=(Dimension.DAY, *_PLACE),
        days=tuple(days),
        detailed=True,
        reach=reach,
    )
    facts = union_all(*usage_facts(question, await read_plan(session, question))).subquery("facts")
    day, *place = keys = [facts.c[name] for name in key_columns(question.dimensions) if name != "department"]
    sums = [_exact(func.sum(facts.c[name])).label(name) for name in MEASURES]
    query = select(day, *_read(place), *sums).having(_is_stated(facts))
    query = query.group_by(func.grouping_sets(tuple_(*place), tuple_(day, facts.c.department_path)))
    dates, paths = [one.date for one in days], _Paths()
    daily = await _read_daily_nanos(session, facts, keys, dates)
    cells, day_cells = [], []
    async for number, path, project, tier, model, *counted in _stream(session, query):
        if number is None:
            of_days = daily[path, project, tier, model]
            cells.append(Cell(paths[path], project, tier, model, of_days, *map(int, counted)))
        else:
            day_cells.append(DayCell(dates[number - 1], paths[path], *map(int, counted)))
    return cells, day_cells


async def read_use(session: AsyncSession, tenant: str, period: Period) -> list[UsageFact]:
    """Return what each department by itself has used in a period, of the rows that `read_cells` returns: no days.

    Raises:
        RecordsDropped: the period takes records that were dropped after an export.
    """
    question = Question(scope=TenantName(tenant), period=period, dimensions=_PLACE)
    facts = union_all(*usage_facts(question, await read_plan(session, question))).subquery("facts")
    keys = [facts.c[name] for name in key_columns(_PLACE) if name != "department"]
    tokens = facts.c.input_tokens + facts.c.output_tokens
    used = {"calls": facts.c.calls, "cost_nanos": facts.c.cost_nanos, "tokens": tokens}
    sums = [func.sum(value).label(name) for name, value in used.items()]
    cells = select(*keys, *sums).group_by(*keys).having(_is_stated(facts)).subquery("cells")
    path = cells.c.department_path
    query = select(*_read([path]), *(_exact(func.sum(cells.c[name])) for name in used)).group_by(path)
    paths = _Paths()
    return [
        UsageFact(
            department_path=paths[text],
            project="",
            tier="",
            model="",
            calls=int(calls),
            cost_nanos=int(cost_nanos),
            daily_nanos={},
            tokens=int(tokens),
        )
        async for text, calls, cost_nanos, tokens in _stream(session, query)
    ]


def _is_stated(facts: Subquery) -> ColumnElement[bool]:
    """Return the condition on a group; what is in suspense is a fact of its own, without any cost."""
    return or_(is_part_of_report(facts), func.sum(facts.c.suspense_calls) > 0)


async def _read_daily_nanos(
    session: AsyncSession, facts: Subquery, keys: Sequence[ColumnElement[Any]], dates: Sequence[date]
) -> dict[tuple[str, str, str, str], dict[date, int]]:
    """Return what each place has cost by day; as one text for each, as there are thirty times as many days."""
    nanos = func.sum(facts.c.cost_nanos).label("nanos")
    daily = select(*keys, nanos).group_by(*keys).having(_is_stated(facts)).subquery("daily")
    day, *place = (daily.c[key.name] for key in keys)
    query = select(*_read(place), func.string_agg(func.concat(day, " ", daily.c.nanos), " ")).group_by(*place)
    return {
        (path, project, tier, model): _daily(text, dates)
        async for path, project, tier, model, text in _stream(session, query)
    }


def _daily(text: str, dates: Sequence[date]) -> dict[date, int]:
    """Return the costs that a text tells: for each day its number, from one on, and its nano-dollars."""
    numbers = list(map(int, text.split(" ")))
    return {dates[day - 1]: nanos for day, nanos in zip(numbers[::2], numbers[1::2], strict=True)}


async def read_sku_cells(
    session: AsyncSession, tenant: str, period: Period, reach: Reach | None = None
) -> list[SkuCell]:
    """Return the priced lines of a month, and what they leave unexplained of its cost; they add up to it."""
    question = Question(scope=TenantName(tenant), period=period, dimensions=(*_PLACE, Dimension.SKU), reach=reach)
    facts = sku_facts(question, await read_plan(session, question))
    if not facts:
        return []
    parts = union_all(*facts).subquery("parts")
    keys = [parts.c[name] for name in key_columns(question.dimensions) if name != "department"]
    calls, quantity, cost = (func.sum(parts.c[name]) for name in ("part_calls", "quantity", "part_nanos"))
    sums = [_exact(one).label(name) for name, one in (("calls", calls), ("quantity", quantity), ("cost_nanos", cost))]
    query = select(*_read(keys), *sums).group_by(*keys).having(or_(quantity != 0, cost != 0))
    paths = _Paths()
    return [
        SkuCell(paths[path], project, tier, model, sku, *map(int, counted))
        async for path, project, tier, model, sku, *counted in _stream(session, query)
    ]


class _Paths(dict[str, tuple[str, ...]]):
    """Ways to departments, as they are read; each is in memory once, however many cells have it."""

    def __missing__(self, text: str) -> tuple[str, ...]:
        path = self[text] = tuple(text.split("/")) if text else ()
        return path


def _read(keys: Sequence[ColumnElement[Any]]) -> list[ColumnElement[Any]]:
    """Return keys as they are read: an array of a hundred thousand rows costs more than all else of them."""
    return [func.array_to_string(key, "/").label(key.name) if key.name == "department_path" else key for key in keys]


def _exact(total: ColumnElement[Any]) -> ColumnElement[str]:
    """Return a sum as its digits, whatever its size: they are read in a third of the time of a numeric."""
    return cast(total, Text)


async def _stream(session: AsyncSession, query: Select[Any]) -> AsyncIterator[Any]:
    """Yield rows a few at a time, so that the worker serves others between them."""
    connection = await session.connection()
    async with connection.stream(query) as result:
        async for rows in result.partitions(_ROWS_AT_A_TIME):
            for row in rows:
                yield row


_AVOIDED = """
SELECT department_path, coalesce(sum(avoided_nanos), 0) AS nanos FROM on_device_usage
WHERE tenant_id = :tenant AND booked_at >= :start AND booked_at < :end GROUP BY department_path
"""


async def read_avoided(session: AsyncSession, tenant: str, period: Period) -> dict[tuple[str, ...], int]:
    """Return by department what on-device use would have cost upstream."""
    found = await run_sql(session, _AVOIDED, {"tenant": tenant, "start": period.start, "end": period.end})
    return {tuple(row.department_path): int(row.nanos) for row in found.all()}


async def read_money_limits(session: AsyncSession, tenant: str, *, windows: Sequence[str]) -> list[MoneyLimit]:
    """Return the limits of money with one of these windows, by name."""
    query = """
SELECT name, scope, selector, amount FROM usage_limit
WHERE tenant_id = :tenant AND metric = 'COST' AND "window" = ANY(:windows) AND state = 'ACTIVE'
    AND scope NOT LIKE '%/apiKeys/%' ORDER BY name
"""
    found = await run_sql(session, query, {"tenant": tenant, "windows": list(windows)})
    return [
        MoneyLimit(
            name=str(LimitName(tenant, row.name)), scope=row.scope, selector=row.selector, amount_nanos=int(row.amount)
        )
        for row in found.all()
    ]


async def read_departments(session: AsyncSession, tenant: str) -> dict[str, Department]:
    """Return a tenant's departments by their ids, deleted ones too: something may have been charged to them."""
    query = (
        "SELECT department_id, display_name, path::text AS path FROM department WHERE tenant_id = :tenant ORDER BY 1"
    )
    found = await run_sql(session, query, {"tenant": tenant})
    return {
        row.department_id: Department(display_name=row.display_name, path=tuple(row.path.split(".")))
        for row in found.all()
    }
