"""A whole board as one SVG: its head, and its panels where Grafana puts them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from grafana.drawing import charts
from grafana.drawing.asking import Answer, Series
from grafana.drawing.svg import (
    BRAND,
    CARD,
    INK,
    NAMED,
    PAGE,
    RULE,
    Box,
    document,
    group,
    line,
    rect,
    text,
    width_of,
    wrapped,
)

COLUMNS: Final = 24
_WIDTH, _MARGIN, _GAP = 1280, 20, 8
_UNIT: Final = 33
_HEAD_HEIGHT, _FOOT_HEIGHT = 92, 34
_NOTE: Final = (
    "Drawn from the board's own queries, as a real Prometheus answered them under the simulator's load; "
    "not by Grafana. Times in UTC."
)


def picture(board: Mapping[str, Any], answer: Answer) -> str:
    """Return the SVG of a rendered board and what it was told."""
    units = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
    height = _HEAD_HEIGHT + units * _UNIT + _FOOT_HEIGHT
    parts = [rect(Box(0, 0, _WIDTH, height), PAGE), *_head(board, answer)]
    marks = sorted((at, color) for name, color in _mark_colors(board).items() for at in answer.marks.get(name, ()))
    for panel, series in zip(board["panels"], answer.panels, strict=True):
        box = _place(panel["gridPos"])
        if panel["type"] == "row":
            parts.append(text(box.x, box.bottom - 6, panel["title"], size=16, fill=BRAND, bold=True))
        else:
            parts.append(group(_panel(panel, list(series), box, answer, marks), panel["description"]))
    parts.append(text(_MARGIN, height - 14, _NOTE, size=12))
    return document(_WIDTH, height, parts, title=board["title"], means=board["description"])


def _place(grid: Mapping[str, int]) -> Box:
    column = (_WIDTH - 2 * _MARGIN + _GAP) / COLUMNS
    x, y = _MARGIN + grid["x"] * column, _HEAD_HEIGHT + grid["y"] * _UNIT
    return Box(x, y, grid["w"] * column - _GAP, grid["h"] * _UNIT - _GAP)


def _mark_colors(board: Mapping[str, Any]) -> dict[str, str]:
    return {one["name"]: NAMED[one["iconColor"]] for one in board["annotations"]["list"]}


def _head(board: Mapping[str, Any], answer: Answer) -> list[str]:
    begin, end = (datetime.fromtimestamp(at, UTC) for at in (answer.window.start, answer.window.end))
    when = f"{begin:%Y-%m-%d %H:%M} to {end:%H:%M} UTC"
    parts = [
        text(_MARGIN, 36, board["title"], size=24, fill=INK, bold=True),
        text(_MARGIN, 58, board["description"], size=14),
        text(_WIDTH - _MARGIN, 36, when, size=13, anchor="end"),
    ]
    x = float(_MARGIN)
    for one in board["templating"]["list"]:
        said = f"{one['label']}: all"
        parts.append(text(x, 80, said, size=12, fill=BRAND, bold=True))
        x += width_of(said, 12, bold=True) + 22
    return parts + _mark_legend(_mark_colors(board))


def _mark_legend(colors: Mapping[str, str]) -> list[str]:
    parts: list[str] = []
    right = float(_WIDTH - _MARGIN)
    for name, color in reversed(list(colors.items())):
        parts.append(text(right, 80, name, size=12, anchor="end"))
        right -= width_of(name, 12) + 8
        parts.append(line(right, 69, right, 82, color, dashes="2 3", width=2))
        right -= 16
    return parts


def _panel(
    panel: Mapping[str, Any], series: list[Series], box: Box, answer: Answer, marks: list[tuple[float, str]]
) -> list[str]:
    defaults = panel["fieldConfig"]["defaults"]
    titles = wrapped(panel["title"], 13, box.width - 20)
    parts = [rect(box, CARD, stroke=RULE, rounding=6)]
    parts += [
        text(box.x + 10, box.y + 21 + place * 17, one, size=13, fill=INK, bold=True) for place, one in enumerate(titles)
    ]
    room = box.inside(left=10, top=14 + len(titles) * 17, right=10, bottom=8)
    if panel["type"] == "stat":
        return parts + charts.figure(series, defaults, room)
    if panel["type"] == "bargauge":
        return parts + charts.bars(series, defaults, room.inside(top=4))
    return parts + charts.lines(series, defaults, room, answer.window, marks)
