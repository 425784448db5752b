"""The few kinds of panel that the dashboards are made of, all on the one Prometheus of `provisioning/`."""

from collections.abc import Mapping

from grafana_foundation_sdk.builders import prometheus, stat, timeseries
from grafana_foundation_sdk.builders.common import VizLegendOptions
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import DataSourceRef

SOURCE = DataSourceRef(type_val="prometheus", uid="prometheus")
HEIGHT = 8


def _queries(queries: Mapping[str, str]) -> list[prometheus.Dataquery]:
    """Build queries from legend -> PromQL."""
    return [
        prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(chr(ord("A") + number))
        for number, (legend, expression) in enumerate(queries.items())
    ]


def lines(title: str, description: str, unit: str, queries: Mapping[str, str], *, span: int = 8) -> timeseries.Panel:
    """Build a panel of lines over time; `queries` maps legends to PromQL."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .min(0)
        .span(span)
        .height(HEIGHT)
        .datasource(SOURCE)
        .legend(
            VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(show_legend=True)
        )
    )
    for query in _queries(queries):
        panel = panel.with_target(query)
    return panel


def number(title: str, description: str, unit: str, query: str, *, span: int = 4) -> stat.Panel:
    """Build a panel that shows one figure of now."""
    return (
        stat.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .span(span)
        .height(HEIGHT // 2)
        .datasource(SOURCE)
        .with_target(_queries({title: query})[0])
    )
