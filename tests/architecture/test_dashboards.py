"""Dashboards ask only for metrics that exist, and what is committed is what the code makes."""

import json
import re
from collections.abc import Iterator
from typing import Any

from tollhouse_server.telemetry import reference
from tollhouse_server.telemetry.declarations import DECLARATIONS, Declaration, series_names

from grafana import render
from tests.architecture.tree import ROOT

LABELS_OF_PROMETHEUS = {"le", "job", "instance"}


def expressions(board: dict[str, Any]) -> Iterator[str]:
    for panel in board["panels"]:
        yield from (target["expr"] for target in panel.get("targets", []))
        yield from expressions({"panels": panel.get("panels", [])})


def all_expressions() -> list[str]:
    boards = [json.loads(path.read_text()) for path in sorted((ROOT / "grafana" / "rendered").glob("*.json"))]
    return [expression for board in boards for expression in expressions(board)]


def by_series() -> dict[str, Declaration]:
    return {name: declaration for declaration in DECLARATIONS for name in series_names(declaration)}


def test_every_query_asks_for_a_declared_metric() -> None:
    """A panel on a metric that was renamed shows nothing, for ever, and nobody notices."""
    asked = {name for expression in all_expressions() for name in re.findall(r"\btollhouse_\w+", expression)}

    assert asked
    assert asked - by_series().keys() == set()


def test_every_query_groups_and_filters_by_labels_that_its_metric_has() -> None:
    """`sum by (tenant)` over a metric without tenants is one line that looks right."""
    wrong = {}
    for expression in all_expressions():
        used = {
            label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")
        } | set(re.findall(r"[{,]\s*(\w+)(?:=~|!~|!=|=)", expression))
        metrics = re.findall(r"\btollhouse_\w+", expression)
        known = {label for name in metrics for label in by_series()[name].labels} | LABELS_OF_PROMETHEUS
        if used - known:
            wrong[expression] = used - known

    assert wrong == {}


def test_every_metric_is_on_a_dashboard() -> None:
    """A metric that nobody looks at is cost without use."""
    asked = " ".join(all_expressions())

    assert [d.name for d in DECLARATIONS if d.name not in asked and d.name not in OFF_THE_DASHBOARD] == []


# Read by those who plan capacity, not by those who watch.
OFF_THE_DASHBOARD = {
    "tollhouse_images_total",
    "tollhouse_grounding_queries_total",
    "tollhouse_upstream_key_age_seconds",
}


def test_rendered_dashboards_are_current() -> None:
    """What is committed is what the code makes."""
    assert render.stale() == []


def test_metrics_page_is_current() -> None:
    """The page is what the declarations say."""
    assert (ROOT / reference.PAGE).read_text(encoding="utf-8") == reference.page()
