"""The kinds of panel as SVG: one figure, lines over time, bars of now."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from grafana.drawing.asking import Series, Window
from grafana.drawing.svg import (
    INK,
    LINES,
    NAMED,
    QUIET,
    RULE,
    TRACK,
    Box,
    cut,
    line,
    number,
    rect,
    text,
    width_of,
)
from grafana.drawing.units import axis, written

_SMALL: Final = 11.5
_LARGE: Final = 30.0
_NOTHING: Final = "No data"
_TIME_STEPS: Final = (5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)
_BAR_HEIGHT: Final = 30.0
_MOST_LEGEND_LINES: Final = 3
_NO_LINE: Final = -1

Defaults = Mapping[str, Any]
"""`fieldConfig.defaults` of a panel: unit, thresholds, least value."""


def color_at(defaults: Defaults, value: float) -> str:
    """Return the colour of a value by the panel's thresholds."""
    steps = defaults["thresholds"]["steps"]
    reached = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
    return NAMED[reached[-1]]


def figure(series: Sequence[Series], defaults: Defaults, box: Box) -> list[str]:
    """Draw the value of now, in the colour of its threshold."""
    # From below, so that figures beside each other stand on one line however long their titles are.
    middle, baseline = box.x + box.width / 2, box.bottom - 22
    if not series or not series[0].points:
        return [text(middle, baseline, _NOTHING, size=20, anchor="middle")]
    value = series[0].points[-1][1]
    said = written(value, defaults["unit"])
    size = min(_LARGE, _LARGE * box.width / width_of(said, _LARGE, bold=True))
    return [text(middle, baseline, said, size=size, fill=color_at(defaults, value), anchor="middle", bold=True)]


def bars(series: Sequence[Series], defaults: Defaults, box: Box) -> list[str]:
    """Draw a bar for each value of now; those that have no room are counted."""
    values = [(one.legend, one.points[-1][1]) for one in series if one.points]
    if not values:
        return _nothing(box)
    longest = _longest([value for _, value in values], defaults["unit"])
    room = int(box.height // _BAR_HEIGHT)
    shown = values if len(values) <= room else values[: room - 1]
    parts: list[str] = []
    for place, (legend, value) in enumerate(shown):
        row = Box(box.x, box.y + place * _BAR_HEIGHT, box.width, _BAR_HEIGHT)
        parts += _bar(legend, value, longest, defaults, row)
    if len(shown) < len(values):
        row_y = box.y + len(shown) * _BAR_HEIGHT + 16
        parts.append(text(box.x, row_y, f"and {len(values) - len(shown)} more", size=_SMALL))
    return parts


def _longest(values: Sequence[float], unit: str) -> float:
    """Return the value of a whole bar: of shares 100 %."""
    return max(*values, 1.0 if unit == "percentunit" else 0.0, 1e-12)


def _bar(legend: str, value: float, longest: float, defaults: Defaults, row: Box) -> list[str]:
    said = written(value, defaults["unit"])
    fill = color_at(defaults, value)
    track = Box(row.x, row.y + 17, row.width, 8)
    filled = Box(track.x, track.y, max(2.0, track.width * min(1.0, max(0.0, value / longest))), track.height)
    room = row.width - width_of(said, _SMALL) - 12
    return [
        text(row.x, row.y + 12, cut(legend or "all", _SMALL, room), size=_SMALL, fill=INK),
        text(row.right, row.y + 12, said, size=_SMALL, fill=fill, anchor="end", bold=True),
        rect(track, TRACK, rounding=3),
        rect(filled, fill, rounding=3),
    ]


def lines(
    series: Sequence[Series], defaults: Defaults, box: Box, window: Window, marks: Sequence[tuple[float, str]]
) -> list[str]:
    """Draw lines over time, with axes, thresholds, legend, and the marks (time, colour) of what happened."""
    told = [one for one in series if one.points]
    if not told:
        return _nothing(box)
    legend, legend_height = _legend(told, box)
    values = [value for one in told for _, value in one.points if math.isfinite(value)]
    ticks = axis(defaults.get("min", min(values, default=0.0)), max(values, default=1.0), defaults["unit"])
    labels = [written(tick, defaults["unit"]) for tick in ticks]
    margin = max(width_of(label, _SMALL) for label in labels) + 8
    plot = box.inside(left=margin, top=6, right=6, bottom=legend_height + 22)
    scale = _Scale(plot, window, ticks[0], ticks[-1])
    parts = [*_value_axis(ticks, labels, scale), *_time_axis(scale)]
    parts += [line(scale.x(at), plot.y, scale.x(at), plot.bottom, color, dashes="2 3") for at, color in marks]
    parts += _threshold_lines(defaults, scale)
    parts += [shape for place, one in enumerate(told) for shape in _line(one, scale, LINES[place % len(LINES)])]
    return parts + legend


class _Scale:
    """From times and values to places in a plot."""

    def __init__(self, plot: Box, window: Window, low: float, high: float) -> None:
        self.plot, self.window, self.low, self.high = plot, window, low, high

    def x(self, at: float) -> float:
        """Return where a time is."""
        return self.plot.x + self.plot.width * (at - self.window.start) / (self.window.end - self.window.start)

    def y(self, value: float) -> float:
        """Return where a value is; what is beyond the axis is at its end."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.plot.bottom - self.plot.height * share


def _value_axis(ticks: Sequence[float], labels: Sequence[str], scale: _Scale) -> list[str]:
    plot = scale.plot
    parts = []
    for tick, label in zip(ticks, labels, strict=True):
        y = scale.y(tick)
        parts.append(line(plot.x, y, plot.right, y, RULE))
        parts.append(text(plot.x - 6, y + 4, label, size=_SMALL, anchor="end"))
    return parts


def _time_axis(scale: _Scale) -> list[str]:
    plot, window = scale.plot, scale.window
    most = max(2, int(plot.width // 50))
    step = next((s for s in _TIME_STEPS if (window.end - window.start) / s <= most), _TIME_STEPS[-1])
    shape = "%H:%M" if step >= 60 else "%H:%M:%S"
    parts = []
    for place in range(math.ceil(window.start / step), math.floor(window.end / step) + 1):
        x = scale.x(place * step)
        label = datetime.fromtimestamp(place * step, UTC).strftime(shape)
        half = width_of(label, _SMALL) / 2
        parts.append(line(x, plot.bottom, x, plot.bottom + 4, RULE))
        parts.append(text(min(x, plot.right + 6 - half), plot.bottom + 17, label, size=_SMALL, anchor="middle"))
    return parts


def _threshold_lines(defaults: Defaults, scale: _Scale) -> list[str]:
    if not defaults.get("custom", {}).get("thresholdsStyle"):
        return []
    plot = scale.plot
    steps = [step for step in defaults["thresholds"]["steps"] if step["value"] is not None]
    inside = [step for step in steps if scale.low <= step["value"] <= scale.high]
    return [
        line(plot.x, scale.y(one["value"]), plot.right, scale.y(one["value"]), NAMED[one["color"]], dashes="7 5")
        for one in inside
    ]


def _line(series: Series, scale: _Scale, color: str) -> list[str]:
    """Draw a line, broken where there was no answer; a value that stands alone is a dot."""
    parts, strokes = [], []
    for run in _runs(series.points, 1.5 * scale.window.step_seconds):
        places = _without_flat_middles([(scale.x(at), scale.y(value)) for at, value in run])
        if len(places) == 1:
            (x, y) = places[0]
            parts.append(f'<circle cx="{number(x)}" cy="{number(y)}" r="2.2" fill="{color}"/>')
        else:
            strokes.append("M" + "L".join(f"{number(x)} {number(y)}" for x, y in places))
    if strokes:
        style = f'fill="none" stroke="{color}" stroke-width="1.8" stroke-linejoin="round"'
        parts.append(f'<path d="{"".join(strokes)}" {style}/>')
    return parts


def _runs(points: Sequence[tuple[float, float]], gap_seconds: float) -> list[list[tuple[float, float]]]:
    runs: list[list[tuple[float, float]]] = []
    for at, value in points:
        if runs and at - runs[-1][-1][0] <= gap_seconds:
            runs[-1].append((at, value))
        else:
            runs.append([(at, value)])
    return runs


def _without_flat_middles(places: list[tuple[float, float]]) -> list[tuple[float, float]]:
    last = len(places) - 1
    return [
        (x, y)
        for i, (x, y) in enumerate(places)
        if i in {0, last} or not (abs(places[i - 1][1] - y) < 0.05 and abs(places[i + 1][1] - y) < 0.05)
    ]


def _legend(told: Sequence[Series], box: Box) -> tuple[list[str], float]:
    """Return the legend at the foot of a box, and how high it is; if not all have room, the largest come first."""
    names = [one.legend for one in told]
    by_size = sorted(range(len(told)), key=lambda place: -max(value for _, value in told[place].points))
    rows = _legend_rows(list(enumerate(names)), box.width)
    if len(rows) > _MOST_LEGEND_LINES:
        rows = _legend_rows([(place, names[place]) for place in by_size], box.width)[:_MOST_LEGEND_LINES]
        left_out = len(names) - sum(len(row) for row in rows) + 1
        _, x, _ = rows[-1][-1]
        rows[-1][-1] = (_NO_LINE, x, f"and {left_out} more")
    top = box.bottom - len(rows) * 16 + 4
    parts: list[str] = []
    for row_number, row in enumerate(rows):
        y = top + row_number * 16
        for place, x, name in row:
            if place != _NO_LINE:
                parts.append(rect(Box(box.x + x, y, 14, 4), LINES[place % len(LINES)], rounding=2))
            parts.append(text(box.x + x + (0 if place == _NO_LINE else 19), y + 6, name, size=_SMALL, fill=INK))
    return parts, len(rows) * 16 + 4


def _legend_rows(names: Sequence[tuple[int, str]], width: float) -> list[list[tuple[int, float, str]]]:
    """Return (which line, how far from the left, its name), by row."""
    rows: list[list[tuple[int, float, str]]] = [[]]
    x = 0.0
    for place, whole in names:
        name = cut(whole or "all", _SMALL, width - 24)
        needed = 19 + width_of(name, _SMALL) + 14
        if rows[-1] and x + needed - 14 > width:
            rows.append([])
            x = 0.0
        rows[-1].append((place, x, name))
        x += needed
    return rows


def _nothing(box: Box) -> list[str]:
    return [text(box.x + box.width / 2, box.y + box.height / 2, _NOTHING, size=14, fill=QUIET, anchor="middle")]
