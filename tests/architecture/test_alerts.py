"""Alerts ask only for what exists, lead to their line of the runbook, and each is tried."""

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from grafana.runbook import anchor
from tests.architecture.test_dashboards import LABELS_OF_PROMETHEUS, by_series
from tests.architecture.tree import ROOT

ALERTS = ROOT / "grafana" / "alerts"
RUNBOOK = (ROOT / "deploy" / "runbook.md").read_text(encoding="utf-8")
RUNBOOK_PAGE = '{{ or $externalLabels.tollhouse_runbook "deploy/runbook.md" }}'
"""Where people read it, Prometheus is told; a path in the repository is no link."""
SEVERITIES = {"page", "ticket", "info"}
# Their value is a state: 0, 1 or 2 says no more than that they fire; a verification that never was has no age.
WITHOUT_FIGURE = {
    "TollhouseAbsent",
    "TollhouseBreakerOpen",
    "TollhouseDatabaseUnreachable",
    "TollhouseLedgerVerificationLate",
    "TollhouseTargetDown",
    "TollhouseVaultUnreachable",
}
PROMETHEUS_OWN = {"up"}


def rules() -> list[dict[str, Any]]:
    """Return every rule of every file."""
    files = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(ALERTS.glob("*.yaml"))]
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    """Return the rules that alert."""
    return [rule for rule in rules() if "alert" in rule]


def tried() -> dict[str, list[tuple[int, int]]]:
    """Return the trials of each alert: per test the minute, and how many alerts are expected then."""
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for path in sorted((ALERTS / "tests").glob("*.yaml")):
        for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]:
            for trial in test["alert_rule_test"]:
                moment = int(trial["eval_time"].removesuffix("m"))
                found[trial["alertname"]].append((moment, len(trial.get("exp_alerts", []))))
    return found


def sections() -> dict[str, str]:
    """Return the runbook's text by the fragment of its heading."""
    parts = re.split(r"^#{2,3} (.+)$", RUNBOOK, flags=re.MULTILINE)
    return {anchor(heading): text for heading, text in zip(parts[1::2], parts[2::2], strict=True)}


def test_there_are_alerts_with_names_of_their_own() -> None:
    """Two rules of one name are one in every list."""
    names = [alert["alert"] for alert in alerts()]

    assert names
    assert len(set(names)) == len(names)


def test_every_rule_asks_for_metrics_that_are_declared_or_recorded() -> None:
    """An alert on a metric that was renamed never fires again."""
    known = by_series().keys() | {rule["record"] for rule in rules() if "record" in rule} | PROMETHEUS_OWN
    asked = {name for rule in rules() for name in re.findall(r"\b(?:tollhouse[_:][\w:]+|up)\b", rule["expr"])}

    assert asked - known == set()


def test_every_rule_filters_and_groups_by_labels_that_its_metrics_have() -> None:
    """A filter on a label that does not exist finds nothing, for ever."""
    recorded = {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}
    wrong = {}
    for rule in rules():
        expression = rule["expr"]
        # What a recorded series has is what it is grouped by.
        origins = expression + " ".join(text for name, text in recorded.items() if name in expression)
        metrics = re.findall(r"\btollhouse_\w+", origins)
        has = {label for name in metrics for label in by_series()[name].labels} | LABELS_OF_PROMETHEUS
        grouped = re.findall(r"\b(?:by|on) \(([^)]*)\)", expression)
        used = {label.strip() for group in grouped for label in group.split(",")}
        used |= set(re.findall(r"[{,]\s*(\w+)(?:=~|!~|!=|=)", expression))
        if used - has:
            wrong[rule.get("alert", rule.get("record"))] = used - has

    assert wrong == {}


def test_every_alert_says_how_bad_it_is_and_what_is_the_case() -> None:
    """Severity, summary, and a description with the figure."""
    wrong = [
        alert["alert"]
        for alert in alerts()
        if alert["labels"]["severity"] not in SEVERITIES
        or not alert["annotations"]["summary"]
        or ("{{ $value" in alert["annotations"]["description"]) == (alert["alert"] in WITHOUT_FIGURE)
    ]

    assert wrong == []


def test_every_label_in_a_text_is_one_that_the_alert_has() -> None:
    """`of account ` and then nothing helps nobody at night."""
    wrong = []
    for alert in alerts():
        grouped = re.findall(r"\bby \(([^)]*)\)", alert["expr"])
        metrics = re.findall(r"\btollhouse_\w+", alert["expr"])
        named = {label for metric in metrics for label in by_series()[metric].labels} | LABELS_OF_PROMETHEUS
        kept = {label.strip() for group in grouped for label in group.split(",")} if grouped else named
        kept |= {"tenant", "scope", "limit"} if "tollhouse:budget_burn" in alert["expr"] else set()
        used = set(re.findall(r"\$labels\.(\w+)", " ".join(alert["annotations"].values())))
        wrong += [(alert["alert"], label) for label in used - kept]

    assert wrong == []


def test_every_alert_leads_to_a_heading_of_the_runbook_that_names_it() -> None:
    """Who is woken is told what to look at and what to type."""
    there = sections()
    wrong = []
    for alert in alerts():
        page, _, fragment = alert["annotations"]["runbook_url"].partition("#")
        if page != RUNBOOK_PAGE or f"`{alert['alert']}`" not in there.get(fragment, ""):
            wrong.append(alert["alert"])

    assert wrong == []


def test_the_runbook_names_no_alert_that_does_not_exist() -> None:
    """What was renamed in the rules was renamed here too."""
    named = set(re.findall(r"`(Tollhouse[A-Z]\w+)`", RUNBOOK))

    assert named - {alert["alert"] for alert in alerts()} == set()


def test_the_runbook_names_no_metric_that_does_not_exist() -> None:
    """A query that is typed at night works."""
    named = set(re.findall(r"\btollhouse_[a-z_]+", RUNBOOK))
    roles = {"tollhouse_runbook", "tollhouse_app", "tollhouse_control", "tollhouse_ledger", "tollhouse_owner"}

    assert named - by_series().keys() - {d.name for d in by_series().values()} - roles == set()


def commands() -> Iterator[tuple[str, ...]]:
    """Yield the commands that the runbook tells to type, as words."""
    for text in re.findall(r"`(tollhouse [^`]+)`", RUNBOOK):
        yield tuple(text.split())


def test_every_command_of_the_runbook_is_one_of_the_command_line() -> None:
    """So do its commands, with their options."""
    parts = re.split(r"^#+ `?(tollhouse[\w -]*)`?$", (ROOT / "docs" / "cli.md").read_text(), flags=re.MULTILINE)
    reference = dict(zip((name.strip() for name in parts[1::2]), parts[2::2], strict=True))
    wrong = []
    for words in commands():
        plain = [word for word in words if re.fullmatch(r"[a-z][a-z-]*", word)]
        known = [" ".join(plain[:end]) for end in range(len(plain), 1, -1) if " ".join(plain[:end]) in reference]
        options = [word for word in words if word.startswith("--")]
        if not known or any(option not in reference[known[0]] for option in options):
            wrong.append(" ".join(words))

    assert wrong == []


@pytest.mark.parametrize("name", [alert["alert"] for alert in alerts()])
def test_every_alert_is_tried_before_under_and_after_its_fault(name: str) -> None:
    """Quiet while all is well, firing under the fault, quiet again: otherwise nobody has seen it work."""
    trials = sorted(tried()[name])

    counts = [count for _, count in trials]
    assert counts[0] == 0
    assert counts[-1] == 0
    assert max(counts) > 0


def test_no_trial_is_of_an_alert_that_does_not_exist() -> None:
    """promtool passes a trial that expects nothing of a name that nobody has."""
    assert tried().keys() - {alert["alert"] for alert in alerts()} == set()
