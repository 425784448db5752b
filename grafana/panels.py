"""The kinds of panel, made from questions: a title that asks, what the answer means, from where on it is bad."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from grafana_foundation_sdk.builders import bargauge, prometheus, stat, timeseries
from grafana_foundation_sdk.builders.common import GraphThresholdsStyleConfig, ReduceDataOptions, VizLegendOptions
from grafana_foundation_sdk.builders.dashboard import DashboardLink, ThresholdsConfig
from grafana_foundation_sdk.models.common import (
    BarGaugeDisplayMode,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import DashboardLinkType, DataSourceRef, Threshold, ThresholdsMode

from grafana.runbook import address_of

SOURCE: Final = DataSourceRef(type_val="prometheus", uid="prometheus")
FULL_HEIGHT, NUMBER_HEIGHT = 8, 4
_FINE, _WARN, _BAD = "green", "orange", "red"


class Look(StrEnum):
    """How the answer is drawn."""

    NUMBER = "number"
    """One figure of now."""

    LINES = "lines"
    """Over time."""

    BARS = "bars"
    """The series of now, one bar each, the longest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A panel. `queries` map legends to PromQL; `runbook` is the heading of the runbook to read when the answer is bad.

    From `warn` and `bad` on the answer is orange and red; where `bad` is the smaller one, downwards. `unit` is one of
    Grafana's ids; `width` counts of 24.
    """

    asks: str
    means: str
    unit: str
    queries: Mapping[str, str]
    runbook: str
    look: Look = Look.LINES
    warn: float | None = None
    bad: float | None = None
    width: int = 8


def number(
    asks: str,
    means: str,
    unit: str,
    query: str,
    *,
    runbook: str,
    warn: float | None = None,
    bad: float | None = None,
    width: int = 4,
) -> Question:
    """Ask for one figure of now."""
    return Question(
        asks=asks,
        means=means,
        unit=unit,
        queries={asks: query},
        runbook=runbook,
        look=Look.NUMBER,
        warn=warn,
        bad=bad,
        width=width,
    )


def panel(question: Question) -> Any:
    """Build the panel of a question."""
    built = _LOOKS[question.look](question)
    built = (
        built.title(question.asks)
        .description(question.means)
        .unit(question.unit)
        .span(question.width)
        .height(NUMBER_HEIGHT if question.look is Look.NUMBER else FULL_HEIGHT)
        .datasource(SOURCE)
        .thresholds(_thresholds(question))
        .links([_runbook(question.runbook)])
    )
    for place, (legend, expression) in enumerate(question.queries.items()):
        built = built.with_target(_query(chr(ord("A") + place), legend, expression, question.look))
    return built


def _lines(question: Question) -> timeseries.Panel:
    legend = (
        VizLegendOptions()
        .display_mode(LegendDisplayMode.LIST)
        .placement(LegendPlacement.BOTTOM)
        .show_legend(show_legend=True)
    )
    built = timeseries.Panel().min(0).legend(legend)
    if question.warn is None and question.bad is None:
        return built
    return built.thresholds_style(GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED))


def _bars(_: Question) -> bargauge.Panel:
    now = ReduceDataOptions().calcs(["lastNotNull"])
    return (
        bargauge.Panel()
        .min(0)
        .orientation(VizOrientation.HORIZONTAL)
        .display_mode(BarGaugeDisplayMode.BASIC)
        .reduce_options(now)
    )


def _number(_: Question) -> stat.Panel:
    return stat.Panel().reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))


_LOOKS: Final[Mapping[Look, Callable[[Question], Any]]] = {
    Look.LINES: _lines,
    Look.BARS: _bars,
    Look.NUMBER: _number,
}


def _query(ref_id: str, legend: str, expression: str, look: Look) -> prometheus.Dataquery:
    query = prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(ref_id)
    return query if look is Look.LINES else query.instant()


def _thresholds(question: Question) -> ThresholdsConfig:
    warn, bad = question.warn, question.bad
    falls = warn is not None and bad is not None and bad < warn
    marks = [(bad, _BAD), (warn, _WARN)] if falls else [(warn, _WARN), (bad, _BAD)]
    return ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(_falling(marks) if falls else _rising(marks))


def _rising(marks: list[tuple[float | None, str]]) -> list[Threshold]:
    """Return the steps of an answer that is worse the larger it is."""
    return [Threshold(color=_FINE), *(Threshold(value=at, color=color) for at, color in marks if at is not None)]


def _falling(marks: list[tuple[float | None, str]]) -> list[Threshold]:
    """Return the steps of an answer that is worse the smaller it is."""
    (bad, _), (warn, _) = marks
    return [Threshold(color=_BAD), Threshold(value=bad, color=_WARN), Threshold(value=warn, color=_FINE)]


def _runbook(heading: str) -> DashboardLink:
    link = DashboardLink(f"Runbook: {heading}")
    return link.type(DashboardLinkType.LINK).url(address_of(heading)).target_blank(target_blank=True)
