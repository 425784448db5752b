"""Dashboards ask only for metrics that exist, say what they ask, and what is committed is what the code makes."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from tollhouse_server.telemetry import reference
from tollhouse_server.telemetry.declarations import DECLARATIONS, Declaration, series_names

from grafana import board, panels, render, runbook
from tests.architecture.tree import ROOT

LABELS_OF_PROMETHEUS = {"le", "job", "instance", "environment"}
"""What the scrape adds; deploy/prometheus/prometheus.yml sets `environment`."""

BOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "grafana" / "rendered").glob("*.json"))}
PANELS = {
    f"{name}: {panel['title']}, {panel['type']}": panel
    for name, board in BOARDS.items()
    for panel in board["panels"]
    if panel["type"] != "row"
}


def expressions(board: dict[str, Any]) -> Iterator[str]:
    """Yield what a board asks: its panels, and what it marks."""
    for panel in board["panels"]:
        yield from (target["expr"] for target in panel.get("targets", []))
    yield from (one["expr"] for one in board["annotations"]["list"])


def all_expressions() -> list[str]:
    return [expression for board in BOARDS.values() for expression in expressions(board)]


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


def test_every_legend_names_labels_that_its_query_keeps() -> None:
    """A legend of a label that `sum by` threw away is an empty word."""
    wrong = []
    for panel in PANELS.values():
        for target in panel["targets"]:
            kept = re.search(r"by \(([^)]*)\)", target["expr"])
            metrics = re.findall(r"\btollhouse_\w+", target["expr"])
            labels = kept[1].split(", ") if kept else [label for name in metrics for label in by_series()[name].labels]
            wrong += [target for name in re.findall(r"{{(\w+)}}", target["legendFormat"]) if name not in labels]

    assert wrong == []


def test_every_query_looks_at_the_chosen_environments_only() -> None:
    """Two environments in one Prometheus are not to be added up."""
    unbound = [
        expression
        for expression in all_expressions()
        if len(re.findall(r"\btollhouse_\w+", expression)) != expression.count('environment=~"$environment"')
    ]

    assert unbound == []


@pytest.mark.parametrize("panel", PANELS.values(), ids=list(PANELS))
def test_every_panel_asks_and_says_what_its_answer_means(panel: dict[str, Any]) -> None:
    """A question, a unit, what it means, from where on it is bad, and the line of the runbook."""
    asks, means = panel["title"], panel["description"]
    [link] = panel["links"]

    assert asks.endswith("?")
    assert means.endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert link["url"].partition("#")[2] in {runbook.anchor(heading) for heading in runbook.headings()}


@pytest.mark.parametrize("name", BOARDS)
def test_every_board_can_be_narrowed_and_marks_what_happened(name: str) -> None:
    """An environment is chosen on each; deploys, rotations, breakers and closes are on each line."""
    shown = BOARDS[name]

    assert "environment" in {one["name"] for one in shown["templating"]["list"]}
    assert {"Deploys", "Rotations", "Breakers", "Closes"} <= {one["name"] for one in shown["annotations"]["list"]}


def test_finance_can_choose_tenant_and_tier() -> None:
    """On the board of costs."""
    assert {"environment", "tenant", "tier"} == {one["name"] for one in BOARDS["costs"]["templating"]["list"]}


def test_every_metric_is_on_a_dashboard() -> None:
    """A metric that nobody looks at is cost without use."""
    asked = " ".join(all_expressions())

    assert [d.name for d in DECLARATIONS if d.name not in asked] == []


def test_an_answer_that_is_worse_the_smaller_it_is_turns_red_downwards() -> None:
    """Thresholds turn round where the bad mark is the lower one."""
    served = panels.number("Served?", "Share.", "percentunit", "1", runbook="Processes die", warn=0.9, bad=0.5)
    failed = panels.number("Failed?", "Share.", "percentunit", "1", runbook="Processes die", warn=0.1, bad=0.5)

    falling, rising = (panels.panel(one).build().field_config.defaults.thresholds.steps for one in (served, failed))
    assert [(step.value, step.color) for step in falling] == [(None, "red"), (0.5, "orange"), (0.9, "green")]
    assert [(step.value, step.color) for step in rising] == [(None, "green"), (0.1, "orange"), (0.5, "red")]


def test_a_link_to_a_heading_that_is_not_there_is_refused() -> None:
    """It would lead nowhere when it is needed."""
    with pytest.raises(ValueError, match="has no heading"):
        runbook.address_of("What nobody wrote")


def test_every_heading_of_the_runbook_is_a_place_on_its_page() -> None:
    """Links lead to the line, not to the top."""
    page = runbook.page()

    assert all(f'id="{runbook.anchor(heading)}"' in page for heading in runbook.headings())


def test_rendered_dashboards_are_current() -> None:
    """What is committed is what the code makes."""
    assert render.stale() == []
    assert len({board.uid for board in render.BOARDS}) == len(render.BOARDS)
    assert board.TAG in BOARDS["overview"]["tags"]


def test_metrics_page_is_current() -> None:
    """The page is what the declarations say."""
    assert (ROOT / reference.PAGE).read_text(encoding="utf-8") == reference.page()
