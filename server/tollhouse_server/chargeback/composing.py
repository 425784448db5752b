"""From the books of a month to the statement of the tenant, or of a department with all below it. Nothing is read."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date
from functools import cache
from operator import attrgetter
from typing import Final, TypeAlias, TypeVar, cast

from tollhouse_server.chargeback.cells import MEASURES, Cell, DayCell, MoneyLimit, MonthBooks, SkuCell
from tollhouse_server.chargeback.forecast import ForecastTerms, Outlook
from tollhouse_server.chargeback.layout import TENANT, Layout, Own, lay_out, place_of
from tollhouse_server.chargeback.looking_ahead import outlook_of
from tollhouse_server.chargeback.refusals import refusals_of
from tollhouse_server.chargeback.returns import returns_of
from tollhouse_server.chargeback.statement import (
    Amounts,
    BudgetUse,
    Entry,
    Part,
    PeriodState,
    Savings,
    Statement,
    UsageLine,
)
from tollhouse_server.money import spread
from tollhouse_server.names import DepartmentName, ProjectName, Scope
from tollhouse_server.pricing.skus import RELAY_SURCHARGE, SKUS, Unit
from tollhouse_server.reporting.detail_store import LabelCost
from tollhouse_server.reporting.sums import Dimension

MOST_LABELS: Final = 1_000
"""Labels in a statement, the dearest; a label with a value for every call would be a list of calls."""

BROKEN_DOWN: Final = (Dimension.DEPARTMENT, Dimension.PROJECT, Dimension.TIER, Dimension.MODEL, Dimension.DAY)

_MEASURED: Final = tuple((name, attrgetter(name)) for name in MEASURES)

Subject: TypeAlias = tuple[str, str, str, str]
"""Ids of the department, project, tier and model that an entry is about; empty where it is about all of them."""

Key: TypeAlias = str | tuple[str, str]
KeyOf: TypeAlias = Callable[[Cell], Key]
CostsOf: TypeAlias = Callable[[Cell], Iterable[tuple[Key | date, int]]]
NameOf: TypeAlias = Callable[[Key], str]
Row = TypeVar("Row")
Group = TypeVar("Group")


def compose(books: MonthBooks, scope: Scope, state: PeriodState) -> Statement:
    """Return the statement of a scope, a tenant or department, as the books say it."""
    return compose_from(lay_out(books, {_department_of(scope)}), scope, state)


def compose_from(layout: Layout, scope: Scope, state: PeriodState) -> Statement:
    """Return the statement of one of the scopes that a month was laid out for."""
    books, department = layout.books, _department_of(scope)
    own = layout.own[department]
    entries = tuple(own.entries)
    totals = _added_up(own.cells, charged=sum(entry.amount_nanos for entry in entries))
    breakdowns = {one: tuple(_parts(books.tenant, own, one)) for one in BROKEN_DOWN}
    return Statement(
        scope=scope,
        display_name=_display_name(books, department),
        month=books.month.name,
        period=books.month.period,
        time_zone=books.month.time_zone,
        is_fiscal=books.month.is_fiscal,
        state=state,
        generated_at=books.read_at,
        totals=totals,
        lines=tuple(_lines(books.tenant, own.skus)),
        entries=entries,
        breakdowns=breakdowns,
        labels=_labels(own.labels),
        savings=_savings(own),
        budgets=tuple(_budgets(layout, own.limits)),
        returns=tuple(returns_of(layout.alternatives, layout.work, layout.labels, department)),
        refusals=refusals_of(own.refused, department),
        forecast=_outlook(books, own, department, ForecastTerms()).forecast,
        currency=books.currency,
        price_versions=tuple(sorted(own.price_versions)),
        department_names=_names(books, breakdowns[Dimension.DEPARTMENT]),
    )


def _department_of(scope: Scope) -> str:
    return scope.department if isinstance(scope, DepartmentName) else TENANT


# --- sums and breakdowns ----------------------------------------------------------------------------------------------


def _added_up(cells: Collection[Cell | DayCell], *, charged: int = 0) -> Amounts:
    sums = {name: sum(map(of, cells)) for name, of in _MEASURED}
    return Amounts(**sums, charge_nanos=sums["cost_nanos"] + charged)


def _parts(tenant: str, own: Own, dimension: Dimension) -> Iterator[Part]:
    """Yield the parts by one dimension, in the order of their keys."""
    groups: Mapping[str, Collection[Cell | DayCell]]
    if dimension is Dimension.DAY:
        by_day = _grouped(own.days, _day_of)
        groups = by_day
        charged = _charged(own, dimension, lambda cell: cell.daily_nanos.items())
    else:
        key_of, name_of = _key_of(dimension), _name_of(tenant, dimension)
        groups = {name_of(key): group for key, group in _grouped(own.cells, key_of).items()}
        charged = _charged(own, dimension, lambda cell: [(key_of(cell), cell.cost_nanos)])
    for key in sorted(groups.keys() | charged.keys()):
        yield Part(key=key, amounts=_added_up(groups.get(key, ()), charged=charged.get(key, 0)))


def _grouped(rows: Iterable[Row], key_of: Callable[[Row], Group]) -> Mapping[Group, list[Row]]:
    found: dict[Group, list[Row]] = defaultdict(list)
    for row in rows:
        found[key_of(row)].append(row)
    return found


def _key_of(dimension: Dimension) -> KeyOf:
    """Return what tells cells apart by a dimension; names are made once for each key, of which there are few."""
    match dimension:
        case Dimension.DEPARTMENT:
            return lambda cell: cell.department_path[-1]
        case Dimension.PROJECT:
            return lambda cell: (cell.department_path[-1], cell.project)
        case Dimension.TIER:
            return lambda cell: cell.tier
        case _:
            return lambda cell: cell.model


def _day_of(cell: DayCell) -> str:
    return str(cell.day)


def _name_of(tenant: str, dimension: Dimension) -> NameOf:
    match dimension:
        case Dimension.DEPARTMENT:
            return lambda key: str(DepartmentName(tenant, str(key)))
        case Dimension.PROJECT:
            return lambda key: str(ProjectName(tenant, *cast(tuple[str, str], key)))
        case _:
            return str


def _charged(own: Own, dimension: Dimension, costs_of: CostsOf) -> Mapping[str, int]:
    """Return what entries add to each part.

    What an entry says itself holds; what belongs to no department or project stays under the empty key. By tier, model
    and day an entry is spread over what it is about, in proportion to the cost: the parts add up to it exactly.
    """
    charged: dict[str, int] = defaultdict(int)
    is_said = dimension in (Dimension.DEPARTMENT, Dimension.PROJECT)
    costs = {} if is_said else _costs_by_subject(own.cells, own.entries, costs_of)
    for entry in own.entries:
        said = _own_key(entry, dimension)
        weights = costs.get(_subject(entry)) if not said else None
        for key, nanos in (spread(entry.amount_nanos, weights) if weights else {said: entry.amount_nanos}).items():
            charged[key] += nanos
    return charged


def _own_key(entry: Entry, dimension: Dimension) -> str:
    if dimension is Dimension.DEPARTMENT:
        return entry.department
    if dimension is Dimension.PROJECT:
        return entry.project
    if dimension is Dimension.TIER:
        return entry.tier
    return entry.model if dimension is Dimension.MODEL else ""


def _subject(entry: Entry) -> Subject:
    return _id(entry.department), _id(entry.project), entry.tier, entry.model


def _costs_by_subject(
    cells: Sequence[Cell], entries: Sequence[Entry], costs_of: CostsOf
) -> Mapping[Subject, Mapping[str, int]]:
    """Return for everything that entries are about what it cost by the keys of a dimension, in their order."""
    of_department: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells if entries else ():
        for one in ("", *cell.department_path):
            of_department[one].append(cell)
    found: dict[Subject, dict[str, int]] = {}
    for entry in entries:
        subject = _subject(entry)
        if subject in found:
            continue
        department, project, tier, model = subject
        costs: dict[Key | date, int] = defaultdict(int)
        for cell in of_department.get(department, ()):
            if project in ("", cell.project) and tier in ("", cell.tier) and model in ("", cell.model):
                for key, nanos in costs_of(cell):
                    costs[key] += nanos
        found[subject] = dict(sorted((str(key), nanos) for key, nanos in costs.items()))
    return found


def _id(name: str) -> str:
    """Return the last id of a resource name; an id is itself."""
    return name.rpartition("/")[2]


# --- the rest ---------------------------------------------------------------------------------------------------------


def _lines(tenant: str, skus: Iterable[SkuCell]) -> Iterator[UsageLine]:
    """Yield the lines in the order of their names; a department that was moved has one line all the same."""
    merged: dict[str, dict[tuple[str, str, str, str], list[int]]] = defaultdict(dict)
    for cell in skus:
        key = (cell.project, cell.tier, cell.model, cell.sku)
        sums = merged[cell.department_path[-1]].setdefault(key, [0, 0, 0])
        for place, value in enumerate((cell.quantity, cell.calls, cell.cost_nanos)):
            sums[place] += value
    # Department by department: to put some hundred thousand in order at once lets nobody else have the processor.
    for leaf in sorted(merged):
        yield from _lines_of(tenant, leaf, merged[leaf])


def _lines_of(tenant: str, leaf: str, sums: Mapping[tuple[str, str, str, str], Sequence[int]]) -> Iterator[UsageLine]:
    department = str(DepartmentName(tenant, leaf))
    project_name_of = cache(lambda project: str(ProjectName(tenant, leaf, project)))
    for (project, tier, model, sku), (quantity, calls, cost_nanos) in sorted(sums.items()):
        yield UsageLine(
            department=department,
            project=project_name_of(project),
            tier=tier,
            model=model,
            sku=sku,
            unit=_unit(sku),
            quantity=quantity,
            calls=calls,
            cost_nanos=cost_nanos,
        )


def _unit(sku: str) -> str:
    if sku == RELAY_SURCHARGE:
        return Unit.NANOS.value
    return SKUS[sku].unit.value if sku in SKUS else ""


def _labels(costs: Iterable[LabelCost]) -> tuple[Part, ...]:
    sums: dict[str, list[int]] = {}
    for one in costs:
        found = sums.setdefault(f"{one.label}={one.value}", [0, 0])
        found[0] += one.calls
        found[1] += one.cost_nanos
    dearest = sorted(sums, key=lambda key: (-sums[key][1], key))[:MOST_LABELS]
    return tuple(
        Part(key=key, amounts=Amounts(calls=sums[key][0], cost_nanos=sums[key][1], charge_nanos=sums[key][1]))
        for key in sorted(dearest)
    )


def _savings(own: Own) -> Savings:
    return Savings(
        cache_nanos=sum(one.cache_nanos for one in own.saved),
        batch_nanos=sum(one.batch_nanos for one in own.saved),
        on_device_nanos=sum(own.avoided_nanos),
    )


def _budgets(layout: Layout, limits: Iterable[MoneyLimit]) -> Iterator[BudgetUse]:
    """Yield money limits, with what the month cost of what each counts."""
    for limit in limits:
        department, project = place_of(limit)
        used = (
            cell.cost_nanos
            for cell in layout.cells[department]
            if project in ("", cell.project) and limit.selector in ("", f"tiers/{cell.tier}", f"models/{cell.model}")
        )
        yield BudgetUse(
            limit=limit.name,
            scope=limit.scope,
            display_name=_id(limit.name),
            amount_nanos=limit.amount_nanos,
            used_nanos=sum(used),
        )


def forecast_of(books: MonthBooks, department: str, terms: ForecastTerms) -> Outlook:
    """Return what the month will have cost and charged to a department, or the tenant where that is empty."""
    return _outlook(books, lay_out(books, {department}).own[department], department, terms)


def _outlook(books: MonthBooks, own: Own, department: str, terms: ForecastTerms) -> Outlook:
    return outlook_of(
        books.month,
        now=books.read_at,
        cells=own.cells,
        entries=own.entries,
        daily=books.daily,
        department=department,
        terms=terms,
    )


def _display_name(books: MonthBooks, department: str) -> str:
    if not department:
        return books.display_name
    found = books.departments.get(department)
    return (found.display_name if found is not None else "") or department


def _names(books: MonthBooks, parts: Iterable[Part]) -> Mapping[str, str]:
    found = {part.key: books.departments.get(_id(part.key)) for part in parts if part.key}
    return {key: department.display_name for key, department in found.items() if department is not None}
