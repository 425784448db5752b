"""What Prometheus answers the queries of a board, as Grafana would ask them, and as JSON to draw from again."""

import json
import math
import re
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

_TIMEOUT_SECONDS: Final = 30
# A rate needs some scrapes, one a second, and what is read from the database comes every 15 s.
_PUT_IN: Final = {"$__rate_interval": "20s", "$__interval": "15s", "$__range": "1h"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The time that is drawn, as Unix seconds."""

    start: float
    end: float
    step_seconds: float


@dataclass(frozen=True, slots=True)
class Series:
    """A line, or one value: its legend, and its (time, value) without those that are not numbers."""

    legend: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a board was told: the series of each of its panels, in their order, and the times of its marks by name."""

    window: Window
    panels: Sequence[Sequence[Series]]
    marks: Mapping[str, Sequence[float]]


def ask(url: str, board: Mapping[str, Any], window: Window) -> Answer:
    """Ask the Prometheus at a URL everything that a board asks."""
    panels = [_panel(url, panel, board, window) for panel in board["panels"]]
    marks = {
        one["name"]: _begins(_series(url, expanded(one["expr"], board), "", window), window)
        for one in board["annotations"]["list"]
    }
    return Answer(window=window, panels=panels, marks=marks)


def expanded(expression: str, board: Mapping[str, Any]) -> str:
    """Return a query with its variables as they are at first: of what a reader may choose, all is chosen."""
    chosen = {f"${one['name']}": one["allValue"] for one in board["templating"]["list"]}
    for name, value in {**_PUT_IN, **chosen}.items():
        expression = expression.replace(name, value)
    return expression


def to_json(answers: Mapping[str, Answer]) -> str:
    """Return the answers of boards by their uid."""
    return json.dumps({uid: asdict(answer) for uid, answer in answers.items()})


def from_json(text: str) -> dict[str, Answer]:
    """Return what `to_json` wrote down."""
    return {
        uid: Answer(
            window=Window(**kept["window"]),
            panels=[[Series(one["legend"], [tuple(p) for p in one["points"]]) for one in p] for p in kept["panels"]],
            marks=kept["marks"],
        )
        for uid, kept in json.loads(text).items()
    }


def _panel(url: str, panel: Mapping[str, Any], board: Mapping[str, Any], window: Window) -> list[Series]:
    found: list[Series] = []
    for target in panel.get("targets", []):
        expression, legend = expanded(target["expr"], board), target["legendFormat"]
        if target.get("instant"):
            found += _values(url, expression, legend, window)
        else:
            found += _series(url, expression, legend, window)
    return found


def _series(url: str, expression: str, legend: str, window: Window) -> list[Series]:
    span = {"start": window.start, "end": window.end, "step": window.step_seconds}
    return [
        Series(_named(legend, one["metric"]), _numbers(one["values"]))
        for one in _told(url, "query_range", {"query": expression, **span})["result"]
    ]


def _values(url: str, expression: str, legend: str, window: Window) -> list[Series]:
    told = _told(url, "query", {"query": expression, "time": window.end})
    if told["resultType"] == "scalar":
        return [Series(legend, _numbers([told["result"]]))]
    return [Series(_named(legend, one["metric"]), _numbers([one["value"]])) for one in told["result"]]


def _told(url: str, what: str, asked: Mapping[str, str | float]) -> Any:
    body = urllib.parse.urlencode(asked).encode()
    request = urllib.request.Request(f"{url}/api/v1/{what}", data=body)  # noqa: S310 - a Prometheus of our own
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310 - the same
        return json.loads(answer.read())["data"]


def _named(legend: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), legend).strip()


def _numbers(pairs: Sequence[tuple[float, str]]) -> list[tuple[float, float]]:
    return [(at, float(text)) for at, text in pairs if not math.isnan(float(text))]


def _begins(marked: Sequence[Series], window: Window) -> list[float]:
    """Return when each series came to be there: what is marked is there for a while after it happened."""
    found = set()
    for one in marked:
        before = -math.inf
        for at, _ in one.points:
            if at - before > 1.5 * window.step_seconds:
                found.add(at)
            before = at
    return sorted(found)
