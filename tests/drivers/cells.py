"""Cells as tests build them: each is of one day."""

from collections.abc import Iterable
from datetime import date
from typing import Any

from tollhouse_server.chargeback.cells import MEASURES, Cell, DayCell


def cell_of(day: date, path: tuple[str, ...], project: str, tier: str, model: str, *sums: int) -> Cell:
    """Return what a place has used on one day; `sums` are in the order of MEASURES."""
    return Cell(path, project, tier, model, {day: sums[MEASURES.index("cost_nanos")]}, *sums)


def days_of(cells: Iterable[Cell]) -> list[DayCell]:
    """Return the same use by day and department."""
    return [_day(cell.daily_nanos, cell.department_path, cell[-len(MEASURES) :]) for cell in cells]


def _day(daily: Iterable[date], path: tuple[str, ...], sums: tuple[Any, ...]) -> DayCell:
    (day,) = daily
    return DayCell(day, path, *sums)
