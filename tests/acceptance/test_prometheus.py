"""A real Prometheus scrapes real servers under a mixed load: every query of boards and rules has an answer there."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import pytest
import yaml

from tests.drivers.forks import Forks
from tests.drivers.places import servers_place
from tests.drivers.prometheus import program
from tests.drivers.sources import ROOT
from tests.drivers.troubles import TROUBLES, settings_are_made
from tests.drivers.watched import RULES, Watched, mixed_load, watched

BOARDS = sorted((ROOT / "grafana" / "rendered").glob("*.json"))
VARIABLES = {
    "$__rate_interval": "1m",
    "$__interval": "15s",
    "$__range": "1h",
    "$environment": "test",
}
"""What Grafana puts in; of all others everything is chosen."""

SELECTOR = r"\b(?:tollhouse[_:][\w:]+|up)(?:\{[^}]*\})?"

HEALTHY = "healthy"

SEEN_SOON = (
    "count(up == 1) == 2",
    "tollhouse_tls_certificate_expiry_seconds > 0",
    "tollhouse_budget_used_ratio",
    "tollhouse_audit_refusals_total",
    "tollhouse:budget_burn:ratio_rate1h",
    "increase(tollhouse_unusual_key_use_total[1d])",
)
"""What is there after two rounds of readings at most; what is unusual is so in the light of a past put there before."""

EMPTY_WHEN_HEALTHY = {
    "tollhouse_limit_alerts_total": "finance_has_work",
    "LIMIT_EXCEEDED": "finance_has_work",
    "tollhouse_breaker_state": "breaker_is_open",
    "tollhouse_breaker_changes_total": "breaker_is_open",
    "TARGETS_UNHEALTHY": "breaker_is_open",
    'code=~"INTERNAL|UNAVAILABLE': "breaker_is_open",
    "tollhouse:calls_failed:": "breaker_is_open",
    'outcome!~"SERVED': "upstream_fails",
    "tollhouse_account_cooling_seconds": "upstream_fails",
    "tollhouse_settled_above_hold_total": "upstream_fails",
    "tollhouse_usage_missing_total": "upstream_fails",
    "tollhouse_shed_calls_total": "queue_is_full",
    "tollhouse_call_wait_seconds_bucket": "queue_is_full",
    "IDENTITY_PROVIDER_UNAVAILABLE": "credentials_are_tried",
    "PERMISSION_DENIED": "credentials_are_tried",
    "wrong_secret": "credentials_are_tried",
    'code=~"INTERNAL|UNKNOWN"': "table_is_away",
    "tollhouse_reconciliation_": "finance_has_work",
    "tollhouse_start_timestamp_seconds": "server_is_replaced",
    "tollhouse_tls_certificate_reloads_total": "certificate_is_spoilt",
    "tollhouse_audit_failures_total": "vault_is_away, trail_is_changed",
    'outcome=~"dropped|refused"': "vault_is_away",
    "tollhouse_tick_failures_total": "database_is_away",
    "tollhouse_upstream_key_promotions_total": "keys_are_changed",
    "tollhouse_upstream_key_refusals_total": "keys_are_changed",
    "NO_UPSTREAM_KEY": "keys_are_changed",
}
"""Parts of queries that have no answer as long as all is well, and the trouble in which they have one."""

NIGHTLY = {
    "increase(tollhouse_periods_closed_total": "a month is closed once its days are rolled up, a round of five minutes",
    "tollhouse_ledger_findings": "first said five minutes after a start: tests/integration/ledger tests it",
    "tollhouse_ledger_verified_timestamp_seconds": "the same",
}

FIRE = {
    "breaker_is_open": {"TollhouseBreakerOpen"},
    "table_is_away": {"TollhouseUnusualKeyUse", "TollhouseCertificateExpiresSoon", "TollhouseCallsFailFast"},
    "vault_is_away": {"TollhouseVaultUnreachable", "TollhouseCertificateRefused", "TollhouseReconciliationVariance"},
    "database_is_away": {"TollhouseDatabaseUnreachable", "TollhouseContentLost", "TollhouseAuditFails"},
}
"""Alerts that have to fire in a trouble, there or left from one before it."""


def expanded(expression: str) -> str:
    """Return a query as Grafana sends it."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return re.sub(r"\$\{?\w+\}?", ".*", expression)


def queries_of_boards() -> dict[str, set[str]]:
    """Return every query of every board, by the board's name."""
    found: dict[str, set[str]] = {}
    for path in BOARDS:
        board = json.loads(path.read_text(encoding="utf-8"))
        asked = {target["expr"] for panel in board["panels"] for target in panel.get("targets", [])}
        found[path.stem] = {expanded(one) for one in asked | {mark["expr"] for mark in board["annotations"]["list"]}}
    return found


def queries_of_rules() -> dict[str, set[str]]:
    """Return what rules ask for, by the file's name: what is recorded as a whole, of alerts each selector.

    An alert as a whole is empty as long as its condition is not met; that it fires, `promtool test rules` sees.
    """
    found: dict[str, set[str]] = {}
    for path in RULES:
        file = yaml.safe_load(path.read_text(encoding="utf-8"))
        rules = [rule for group in file["groups"] for rule in group["rules"]]
        recorded = {rule["expr"] for rule in rules if "record" in rule}
        alerts = [rule["expr"] for rule in rules if "alert" in rule]
        selected = {one for text in alerts for one in re.findall(SELECTOR, text)}
        found[path.stem] = recorded | selected
    return found


@dataclass(slots=True)
class Answers:
    """Which query had its first answer in which condition, and which alerts fired in which."""

    watched: Watched
    open: set[str]
    first: dict[str, str] = field(default_factory=dict)
    fired: dict[str, set[str]] = field(default_factory=dict)

    def explains(self, query: str) -> bool:
        """Tell whether a query was answered when it should be, or is known to have nothing to say so soon."""
        condition = self.first.get(query)
        if condition is None:
            return any(part in query for part in NIGHTLY)
        return condition == HEALTHY or any(part in query for part in EMPTY_WHEN_HEALTHY)

    def ask(self, condition: str) -> None:
        """Ask everything that had no answer yet."""
        for query in sorted(self.open):
            if any(not math.isnan(sample.value) for sample in self.watched.prometheus.query(query)):
                self.first[query] = condition
        self.open -= self.first.keys()
        self.fired.setdefault(condition, set()).update(self.watched.prometheus.alerts())


@pytest.fixture(scope="module")
def answers(server_forks: Forks, tollhouse_forks: Forks) -> Iterator[Answers]:
    """What a company under a mixed load answered, healthy at first and then in every trouble."""
    program("prometheus")
    boards, rules = queries_of_boards(), queries_of_rules()
    asked = {query for queries in (*boards.values(), *rules.values()) for query in queries}
    with servers_place("watched") as directory, watched(directory, server_forks, tollhouse_forks) as company:
        found = Answers(company, asked)
        settings_are_made(company)
        mixed_load(company)
        for expression in SEEN_SOON:
            company.until(expression)
        mixed_load(company)
        company.until("sum(rate(tollhouse_images_total[1m])) > 0")
        # The last of its group: with it the others are there too.
        company.until("tollhouse:calls_slowed:ratio_rate3d")
        found.ask(HEALTHY)
        for trouble in TROUBLES:
            trouble(company, partial(found.ask, trouble.__name__))
        yield found


@pytest.mark.parametrize("board", sorted(queries_of_boards()))
def test_every_query_of_a_board_has_an_answer(answers: Answers, board: str) -> None:
    """While all is well, or in the trouble that it is there for."""
    assert {query for query in queries_of_boards()[board] if not answers.explains(query)} == set()


@pytest.mark.parametrize("rules", sorted(queries_of_rules()))
def test_every_series_that_rules_ask_for_exists(answers: Answers, rules: str) -> None:
    """With its filters: a label that has another value is a rule that never fires."""
    assert {query for query in queries_of_rules()[rules] if not answers.explains(query)} == set()


def test_what_is_said_to_be_empty_while_all_is_well_was_empty(answers: Answers) -> None:
    """A list of exceptions that outlive their reason hides the next mistake."""
    empty = answers.open | {query for query, condition in answers.first.items() if condition != HEALTHY}

    assert [part for part in (*EMPTY_WHEN_HEALTHY, *NIGHTLY) if not any(part in query for query in empty)] == []


def test_every_rule_is_evaluated_without_an_error(answers: Answers) -> None:
    """promtool sees that they parse, and only a real Prometheus what they meet."""
    failed = [
        (rule["name"], rule.get("lastError")) for rule in answers.watched.prometheus.rules() if rule["health"] != "ok"
    ]

    assert failed == []


def test_alerts_fire_in_the_troubles_that_they_are_for(answers: Answers) -> None:
    """On real series of real servers; breaker, Vault and database also ended before their trouble was called over."""
    missed = {trouble: alerts - answers.fired[trouble] for trouble, alerts in FIRE.items()}

    assert {trouble: alerts for trouble, alerts in missed.items() if alerts} == {}
