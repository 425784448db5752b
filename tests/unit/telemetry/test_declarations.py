"""The rules that every declared metric keeps."""

import re
from types import ModuleType

import pytest
from prometheus_client import CollectorRegistry
from tollhouse_server.telemetry import declarations, reference
from tollhouse_server.telemetry.declarations import DECLARATIONS, Declaration, Kind, Source, ledger, series_names
from tollhouse_server.telemetry.metrics import Metrics

UNITS = (
    "_total",
    "_seconds",
    "_works",
    "_calls",
    "_attempts",
    "_targets",
    "_keys",
    "_processes",
    "_up",
    "_findings",
    "_tenants",
    "_differences",
    "_amount",
    "_state",
    "_forced",
    "_rotations",
    "_failing",
    "_overdue",
    "_dollars",
    "_ratio",
    "_bytes",
    "_days",
    "_connections",
    "_limit",
    "_files",
    "_info",
)
BOUNDED_LABELS = {
    "rpc",
    "fault",
    "details",
    "detector",
    "direction",
    "action",
    "code",
    "reason",
    "tier",
    "model",
    "kind",
    "target",
    "outcome",
    "cause",
    "state",
    "role",
    "part",
    "priority",
    "metric",
    "account",
    "region",
    "step",
    "threshold",
    "verdict",
    "version",
}
# Of these there may be any number: only readings have them, which are the highest few and the sum of the others.
LABELS_OF_READINGS = {"tenant", "scope", "limit", "department"}


@pytest.mark.parametrize("declaration", DECLARATIONS, ids=lambda declaration: declaration.name)
def test_metric_name_ends_with_its_unit_and_counters_with_total(declaration: Declaration) -> None:
    """A reader of a query knows the unit without looking it up."""
    name = declaration.name

    assert re.fullmatch(r"tollhouse_[a-z_]+", name)
    assert name.endswith(UNITS)
    assert name.endswith("_total") == (declaration.kind is Kind.COUNTER)
    assert declaration.meaning.endswith(".")


@pytest.mark.parametrize("declaration", DECLARATIONS, ids=lambda declaration: declaration.name)
def test_metric_labels_are_from_the_bounded_set(declaration: Declaration) -> None:
    """No tenant, caller or key can become a label without this list being changed."""
    allowed = BOUNDED_LABELS | (LABELS_OF_READINGS if declaration.source is Source.LEADER else set())

    assert set(declaration.labels) <= allowed


def test_every_declaration_in_the_module_is_listed_and_built() -> None:
    """A metric that is declared and not listed would be missing from the documentation and the dashboards' check."""
    topics = [value for value in vars(declarations).values() if isinstance(value, ModuleType)]
    declared = {value for topic in topics for value in vars(topic).values() if isinstance(value, Declaration)}
    registry = CollectorRegistry()

    # The only one that waits for its first value: most servers have no certificate.
    Metrics(registry).certificate_seen(expires_in_seconds=1.0)

    built = {f"{family.name}_total" if family.type == "counter" else family.name for family in registry.collect()}
    assert declared == set(DECLARATIONS)
    assert built == {one.name for one in DECLARATIONS if one.source is Source.PROCESSES}


def test_histograms_are_stored_under_three_names() -> None:
    """Queries use the stored names, so the dashboards' check needs them."""
    assert series_names(ledger.TICK_DURATION) == (
        "tollhouse_tick_duration_seconds_bucket",
        "tollhouse_tick_duration_seconds_count",
        "tollhouse_tick_duration_seconds_sum",
    )


def test_reference_page_has_a_row_for_every_metric() -> None:
    """The page is generated, so that it cannot fall behind."""
    rows = [line for line in reference.page().splitlines() if line.startswith("| `tollhouse_")]

    assert len(rows) == len(DECLARATIONS)
