"""Tables of a statement for spreadsheets: what stands in which column, without how it is written."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from datetime import date
from enum import Enum, auto
from typing import TypeAlias

from tollhouse_server.chargeback.statement import Amounts, BudgetUse, Entry, Part, Statement, UsageLine
from tollhouse_server.documents.language import Language
from tollhouse_server.documents.names_for_people import department_title, last_part, part_title, scope_title
from tollhouse_server.money import nanos_to_dollars
from tollhouse_server.reporting.sums import Dimension


class ColumnKind(Enum):
    """How a column is written."""

    TEXT = auto()
    LONG_TEXT = auto()
    NUMBER = auto()
    DAY = auto()
    DOLLARS = auto()
    """Nano-dollars, written as a number of dollars."""

    EXACT = auto()
    """Nano-dollars, written as text with every digit."""

    PERCENT = auto()


Cell: TypeAlias = str | int | date | None
"""Money in nano-dollars; a share as (part * 10^6) // whole; None is an empty cell."""


@dataclass(frozen=True, slots=True)
class SheetColumn:
    """A column's label and kind."""

    label: str
    kind: ColumnKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """A table with its last row, the total, where it has one.

    `bars` is the column with a bar in each cell, `printed` the last one that is printed; None means none, and all.
    """

    title: str
    columns: tuple[SheetColumn, ...]
    rows: tuple[tuple[Cell, ...], ...]
    total: tuple[Cell, ...] = ()
    bars: int | None = None
    printed: int | None = None


_AMOUNTS = (
    ("calls", "calls", ColumnKind.NUMBER),
    ("input_tokens", "input_tokens", ColumnKind.NUMBER),
    ("cached_tokens", "cached_tokens", ColumnKind.NUMBER),
    ("output_tokens", "output_tokens", ColumnKind.NUMBER),
    ("thoughts_tokens", "thoughts_tokens", ColumnKind.NUMBER),
    ("images", "images", ColumnKind.NUMBER),
    ("cost_nanos", "cost_usd", ColumnKind.DOLLARS),
    ("charge_nanos", "charge_usd", ColumnKind.DOLLARS),
    ("cost_nanos", "cost_exact", ColumnKind.EXACT),
    ("charge_nanos", "charge_exact", ColumnKind.EXACT),
)


def sheets(statement: Statement, language: Language) -> Iterator[Sheet]:
    """Yield the tables behind the summary, in their order."""
    yield _breakdown(statement, language, Dimension.DEPARTMENT, "sheet_departments")
    yield _breakdown(statement, language, Dimension.MODEL, "sheet_models")
    yield _breakdown(statement, language, Dimension.DAY, "sheet_days")
    yield _lines(statement, language)
    yield _entries(statement, language)
    yield _budgets(statement, language)


def exact(nanos: int) -> str:
    """Return nano-dollars as text with every digit, all nine behind the point."""
    return nanos_to_dollars(nanos, min_decimals=9)


def _breakdown(statement: Statement, language: Language, dimension: Dimension, title: str) -> Sheet:
    # What belongs to none of them comes last.
    parts = sorted(statement.breakdowns.get(dimension, ()), key=lambda part: not part.key)
    is_day = dimension is Dimension.DAY
    names = _columns(language, [(dimension.value, ColumnKind.DAY if is_day else ColumnKind.TEXT)])
    ids = () if is_day else _columns(language, [("resource", ColumnKind.TEXT)])
    return Sheet(
        title=language.say(title),
        columns=names + _columns(language, [(label, kind) for _, label, kind in _AMOUNTS]) + ids,
        rows=tuple(_part_row(statement, language, dimension, part) for part in parts),
        total=(language.say("total"), *_amount_cells(_sum(parts)), *(() if is_day else (None,))) if parts else (),
        bars=8,
        printed=8,
    )


def _part_row(statement: Statement, language: Language, dimension: Dimension, part: Part) -> tuple[Cell, ...]:
    if dimension is Dimension.DAY:
        # What belongs to no day, such as a fee for the month, is in a part without a key.
        day = date.fromisoformat(part.key) if part.key else language.say("none")
        return (day, *_amount_cells(part.amounts))
    title = part_title(statement, dimension.value, part.key, language)
    return (title, *_amount_cells(part.amounts), part.key)


def _amount_cells(amounts: Amounts) -> tuple[int, ...]:
    return tuple(getattr(amounts, field) for field, _, _ in _AMOUNTS)


def _lines(statement: Statement, language: Language) -> Sheet:
    text, number = ColumnKind.TEXT, ColumnKind.NUMBER
    labels = [("department", text), ("project", text), ("tier", text), ("model", text), ("sku", text), ("unit", text)]
    labels += [("quantity", number), ("calls", number)]
    labels += [("cost_usd", ColumnKind.DOLLARS), ("cost_exact", ColumnKind.EXACT)]
    cost_nanos = sum(line.cost_nanos for line in statement.lines)
    return Sheet(
        title=language.say("sheet_lines"),
        columns=_columns(language, labels),
        rows=tuple(_line_row(statement, line) for line in statement.lines),
        # Calls are not added up: one call has a part in several lines.
        total=(language.say("total"), *(None,) * 7, cost_nanos, cost_nanos) if statement.lines else (),
        printed=8,
    )


def _line_row(statement: Statement, line: UsageLine) -> tuple[Cell, ...]:
    return (
        department_title(statement, line.department),
        last_part(line.project),
        line.tier,
        line.model,
        line.sku,
        line.unit,
        line.quantity,
        line.calls,
        line.cost_nanos,
        line.cost_nanos,
    )


def _entries(statement: Statement, language: Language) -> Sheet:
    text, dollars = ColumnKind.TEXT, ColumnKind.DOLLARS
    labels = [("entry_kind", text), ("department", text), ("project", text), ("tier", text), ("model", text)]
    labels += [("reason", ColumnKind.LONG_TEXT), ("basis_usd", dollars), ("amount_usd", dollars)]
    labels += [("amount_exact", ColumnKind.EXACT), ("for_month", text), ("rule", ColumnKind.LONG_TEXT)]
    rows = tuple(_entry_row(statement, language, entry) for entry in statement.entries)
    added = sum(entry.amount_nanos for entry in statement.entries)
    return Sheet(
        title=language.say("sheet_entries"),
        columns=_columns(language, labels),
        rows=rows,
        total=(language.say("entries_total"), *(None,) * 6, added, added, None, None) if rows else (),
    )


def _entry_row(statement: Statement, language: Language, entry: Entry) -> tuple[Cell, ...]:
    return (
        language.say(f"kind_{entry.kind.value.lower()}"),
        department_title(statement, entry.department) if entry.department else None,
        last_part(entry.project) or None,
        entry.tier or None,
        entry.model or None,
        entry.reason,
        entry.basis_nanos,
        entry.amount_nanos,
        entry.amount_nanos,
        entry.for_month or None,
        entry.rule,
    )


def _budgets(statement: Statement, language: Language) -> Sheet:
    text, dollars = ColumnKind.TEXT, ColumnKind.DOLLARS
    labels = [("budget", text), ("applies_to", text), ("budget_usd", dollars), ("used_usd", dollars)]
    labels += [("remaining_usd", dollars), ("used_percent", ColumnKind.PERCENT), ("limit", ColumnKind.LONG_TEXT)]
    return Sheet(
        title=language.say("sheet_budgets"),
        columns=_columns(language, labels),
        rows=tuple(_budget_row(statement, budget) for budget in statement.budgets),
        bars=5,
    )


def _budget_row(statement: Statement, budget: BudgetUse) -> tuple[Cell, ...]:
    return (
        budget.display_name or last_part(budget.limit),
        scope_title(statement, budget.scope),
        budget.amount_nanos,
        budget.used_nanos,
        budget.amount_nanos - budget.used_nanos,
        budget.used_nanos * 1_000_000 // budget.amount_nanos if budget.amount_nanos else None,
        budget.limit,
    )


def _columns(language: Language, labels: Iterable[tuple[str, ColumnKind]]) -> tuple[SheetColumn, ...]:
    return tuple(SheetColumn(language.say(label), kind) for label, kind in labels)


def _sum(parts: Iterable[Part]) -> Amounts:
    several = tuple(part.amounts for part in parts)
    return Amounts(**{field.name: sum(getattr(each, field.name) for each in several) for field in fields(Amounts)})
