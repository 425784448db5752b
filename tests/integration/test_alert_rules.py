"""Prometheus' own tool on our rules: they parse, fire under their faults, end after them, and are loaded."""

import shutil
from pathlib import Path

import pytest

from tests.drivers.prometheus import promtool
from tests.drivers.sources import ROOT

ALERTS = ROOT / "grafana" / "alerts"
RULES = sorted(ALERTS.glob("*.yaml"))
TRIALS = sorted((ALERTS / "tests").glob("*.yaml"))


def test_the_rules_are_valid() -> None:
    """What Prometheus refuses, it starts without."""
    checked = promtool("check", "rules", *RULES)

    assert RULES
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("trial", TRIALS, ids=lambda path: path.stem)
def test_each_alert_fires_under_its_fault_and_ends_after_it(trial: Path) -> None:
    """With the texts that people read; tests/architecture/test_alerts.py sees that no alert is left out."""
    tried = promtool("test", "rules", trial)

    assert tried.returncode == 0, tried.stdout + tried.stderr


def test_the_configuration_of_the_trial_loads_every_rule(tmp_path: Path) -> None:
    """With the rules where compose.yaml mounts them."""
    shutil.copy(ROOT / "deploy" / "prometheus" / "prometheus.yml", tmp_path)
    shutil.copytree(ALERTS, tmp_path / "rules")

    checked = promtool("check", "config", tmp_path / "prometheus.yml")

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.count("rules found") == len(RULES)
