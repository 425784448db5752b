"""The questions that boards and rules ask, and when each of them has an answer."""

import json
import math
import re
from dataclasses import dataclass, field

import yaml

from tests.drivers.sources import ROOT
from tests.drivers.troubles import settings_are_made
from tests.drivers.watched import RULES, Watched, mixed_load

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

SEEN_AFTER_CALLS = (
    "sum(rate(tollhouse_images_total[1m])) > 0",
    "sum(rate(tollhouse_contents_total[1m]))",
    "sum(rate(tollhouse_data_found_total[1m]))",
    "sum(rate(tollhouse_audit_refusals_total[1m]))",
    "tollhouse_audit_anchored_timestamp_seconds",
    # The last of its group: with it the others are there too.
    "tollhouse:calls_slowed:ratio_rate3d",
)
"""What is there after the second round of calls: by then everybody has heard of the policies, and has written."""

EMPTY_WHEN_HEALTHY = {
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
    "increase(tollhouse_periods_closed_total": "month_is_closed",
    "tollhouse_ledger_findings": "books_are_verified",
    "tollhouse_ledger_verified_timestamp_seconds": "books_are_verified",
}
"""Parts of queries that have no answer as long as all is well, and the trouble in which they have one."""


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
        """Tell whether a query was answered when it should be."""
        condition = self.first.get(query)
        if condition is None:
            return False
        return condition == HEALTHY or any(part in query for part in EMPTY_WHEN_HEALTHY)

    def ask(self, condition: str) -> None:
        """Ask everything that had no answer yet."""
        for query in sorted(self.open):
            if any(not math.isnan(sample.value) for sample in self.watched.prometheus.query(query)):
                self.first[query] = condition
        self.open -= self.first.keys()
        self.fired.setdefault(condition, set()).update(self.watched.prometheus.alerts())


def asked_while_healthy(company: Watched) -> Answers:
    """Put a company under a mixed load, and ask every question of boards and rules."""
    boards, rules = queries_of_boards(), queries_of_rules()
    found = Answers(company, {query for queries in (*boards.values(), *rules.values()) for query in queries})
    settings_are_made(company)
    mixed_load(company)
    for expression in SEEN_SOON:
        company.until(expression)
    mixed_load(company)
    for expression in SEEN_AFTER_CALLS:
        company.until(expression)
    found.ask(HEALTHY)
    return found
