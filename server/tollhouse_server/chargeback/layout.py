"""A month's books laid out by department: the statement of each is made from what is its own, however many there are.

What is of a department is of all departments above it too, and of the tenant, whose place is the empty id.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias, TypeVar

from tollhouse_server.chargeback.cells import Cell, DayCell, MoneyLimit, MonthBooks, RefusedPart, Saved, SkuCell
from tollhouse_server.chargeback.returns import Alternative, Work, in_force, subject_of_label, subject_of_project
from tollhouse_server.chargeback.statement import Entry
from tollhouse_server.money import spread
from tollhouse_server.reporting.detail_store import LabelCost

TENANT: Final = ""

Path: TypeAlias = tuple[str, ...]
Row = TypeVar("Row")


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """What of a month is one department's, with everything below it, or the tenant's."""

    cells: Sequence[Cell]
    days: Sequence[DayCell]
    skus: Sequence[SkuCell]
    labels: Sequence[LabelCost]
    saved: Sequence[Saved]
    avoided_nanos: Sequence[int]
    refused: Sequence[RefusedPart]
    price_versions: Collection[int]
    entries: Sequence[Entry]
    limits: Sequence[MoneyLimit]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The books with what is each department's own.

    `cells` are also those of departments that limits are on; `work` and `labels` those that `alternatives` are about.
    """

    books: MonthBooks
    own: Mapping[str, Own]
    cells: Mapping[str, Sequence[Cell]]
    alternatives: Sequence[Alternative]
    work: Sequence[Work]
    labels: Sequence[LabelCost]


def lay_out(books: MonthBooks, departments: Collection[str]) -> Layout:
    """Lay out what is of some departments (ids; empty for the tenant), reading the books once."""
    of_limits = [place_of(limit)[0] for limit in books.limits]
    cells = _sorted(books.cells, _path, {*departments, *of_limits})
    days = _sorted(books.days, _path, departments)
    skus = _sorted(books.skus, _path, departments)
    labels = _sorted(books.labels, _path, departments)
    saved = _sorted(books.saved, _path, departments)
    refused = _sorted(books.refused, _path, departments)
    avoided = _sorted(books.avoided_nanos.items(), _first, departments)
    versions = _sorted(books.price_versions.items(), _first, departments)
    entries = _entries(books, departments)
    limits = _sorted(books.limits, lambda limit: _path_now(books, place_of(limit)[0]), departments)
    own = {
        one: Own(
            cells=cells[one],
            days=days[one],
            skus=skus[one],
            labels=labels[one],
            saved=saved[one],
            avoided_nanos=[nanos for _, nanos in avoided[one]],
            refused=refused[one],
            price_versions=frozenset[int]().union(*(found for _, found in versions[one])),
            entries=entries[one],
            limits=limits[one],
        )
        for one in departments
    }
    alternatives = in_force(books.alternatives, books.month.last_day) if books.alternatives else []
    subjects = {one.subject for one in alternatives}
    return Layout(
        books=books,
        own=own,
        cells=cells,
        alternatives=alternatives,
        work=[_work(cell) for cell in books.cells if subject_of_project(cell.project) in subjects] if subjects else [],
        labels=[one for one in books.labels if subject_of_label(one) in subjects] if subjects else [],
    )


def place_of(limit: MoneyLimit) -> tuple[str, str]:
    """Return the ids of the department and project that a limit is on; empty where it is on none."""
    ids = dict(zip(limit.scope.split("/")[::2], limit.scope.split("/")[1::2], strict=False))
    return ids.get("departments", ""), ids.get("projects", "")


def _sorted(
    rows: Iterable[Row], path_of: Callable[[Row], Path], departments: Collection[str]
) -> Mapping[str, Sequence[Row]]:
    """Return for each of some departments, in their order, the rows on whose way it is; for the tenant, all."""
    rows = list(rows)
    found: dict[str, list[Row]] = {one: [] for one in departments}
    if found.keys() - {TENANT}:
        for row in rows:
            for one in path_of(row):
                if one in found:
                    found[one].append(row)
    if TENANT in found:
        found[TENANT] = rows
    return found


def _path(row: Cell | DayCell | SkuCell | LabelCost | Saved | RefusedPart) -> Path:
    return row.department_path


def _first(row: tuple[Path, object]) -> Path:
    return row[0]


def _path_now(books: MonthBooks, department: str) -> Path:
    now = books.departments.get(department)
    return now.path if now is not None else (department,)


def _work(cell: Cell) -> Work:
    return Work(
        department_path=cell.department_path, project=cell.project, calls=cell.calls, cost_nanos=cell.cost_nanos
    )


# --- entries ----------------------------------------------------------------------------------------------------------


def _entries(books: MonthBooks, departments: Collection[str]) -> Mapping[str, Sequence[Entry]]:
    """Return the entries that stand in the statements of departments; in the tenant's, all.

    A department that was moved in the month was below two others: its entries are theirs by what it cost below each.
    """
    found: dict[str, list[Entry]] = {one: [] for one in departments}
    weights = _weights_of_paths(books) if books.entries and found.keys() - {TENANT} else {}
    for entry in books.entries if found.keys() - {TENANT} else ():
        charged = entry.department.rpartition("/")[2]
        for department, amount in _parts(books, weights, charged, entry.amount_nanos) if charged else ():
            if department in found:
                mine = entry if amount == entry.amount_nanos else replace(entry, amount_nanos=amount)
                found[department].append(mine)
    if TENANT in found:
        found[TENANT] = list(books.entries)
    return found


def _weights_of_paths(books: MonthBooks) -> Mapping[str, Mapping[Path, int]]:
    """Return for each department the ways by which it was below others in the month, with what it cost there."""
    costs: dict[Path, int] = defaultdict(int)
    for cell in books.cells:
        costs[cell.department_path] += cell.cost_nanos
    weights: dict[str, dict[Path, int]] = defaultdict(lambda: defaultdict(int))
    for path in sorted(costs):
        for depth, one in enumerate(path, start=1):
            weights[one][path[:depth]] += costs[path]
    return weights


def _parts(
    books: MonthBooks, weights: Mapping[str, Mapping[Path, int]], charged: str, amount: int
) -> Iterator[tuple[str, int]]:
    """Yield what of an amount of the department `charged` is of each department that it was below, and of itself."""
    paths = weights.get(charged) or {_path_now(books, charged): 1}
    parts = spread(amount, paths)
    below: dict[str, int] = {}
    for path in paths:
        for department in path:
            below[department] = below.get(department, 0) + parts[path]
    yield from below.items()
