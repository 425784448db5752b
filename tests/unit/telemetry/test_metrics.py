"""What the rooms report arrives in the exposition, bounded and cheap."""

import time
from dataclasses import dataclass, field

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from tollhouse_server.telemetry.families import MOST_SERIES
from tollhouse_server.telemetry.metrics import Metrics


@dataclass(frozen=True)
class Count:
    """Tokens of one kind."""

    total: int = 0


@dataclass(frozen=True)
class Usage:
    """A usage report with the shape of pricing's."""

    prompt: Count = field(default_factory=Count)
    cached: Count = field(default_factory=Count)
    tool_use: Count = field(default_factory=Count)
    candidates: Count = field(default_factory=Count)
    thoughts_tokens: int = 0
    images: int = 0
    grounding_queries: int = 0


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    return Metrics(registry)


def test_settled_call_counts_tokens_by_kind_and_cost_in_dollars(registry: CollectorRegistry, metrics: Metrics) -> None:
    """Tokens keep their kinds apart, and a nano-dollar amount becomes dollars."""
    usage = Usage(prompt=Count(100), cached=Count(40), candidates=Count(7), thoughts_tokens=3, images=1)

    metrics.call_settled(tier="pro", model="gemini-x", usage=usage, cost_nanos=2_500_000_000)

    labels = {"tier": "pro", "model": "gemini-x"}
    tokens = {
        kind: registry.get_sample_value("tollhouse_tokens_total", {**labels, "kind": kind})
        for kind in ("prompt", "cached", "candidates", "thoughts", "tool_use")
    }
    assert tokens == {"prompt": 100, "cached": 40, "candidates": 7, "thoughts": 3, "tool_use": None}
    assert registry.get_sample_value("tollhouse_cost_dollars_total", labels) == 2.5
    assert registry.get_sample_value("tollhouse_images_total", labels) == 1


def test_missing_usage_is_counted_as_missing_and_not_as_zero_tokens(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    """None is not zero: an answer without a report shows up by itself."""
    metrics.call_settled(tier="pro", model="gemini-x", usage=None, cost_nanos=5)

    labels = {"tier": "pro", "model": "gemini-x"}
    assert registry.get_sample_value("tollhouse_usage_missing_total", labels) == 1
    assert registry.get_sample_value("tollhouse_tokens_total", {**labels, "kind": "prompt"}) is None


def test_call_in_flight_is_counted_until_it_ends(registry: CollectorRegistry, metrics: Metrics) -> None:
    """A hanging call can be seen while it hangs."""
    rpc = "/tollhouse.v1.GenerationService/GenerateContent"

    metrics.call_started(rpc=rpc)
    during = registry.get_sample_value("tollhouse_in_flight_calls", {"rpc": rpc})
    metrics.call_finished(rpc=rpc, code="OK", seconds=0.2)

    assert during == 1
    assert registry.get_sample_value("tollhouse_in_flight_calls", {"rpc": rpc}) == 0
    assert registry.get_sample_value("tollhouse_calls_total", {"rpc": rpc, "code": "OK"}) == 1


@pytest.mark.parametrize("value", ["tenants/acme/projects/x", "connection refused: 10.0.0.1", "", "x" * 101])
def test_label_that_is_no_name_is_counted_as_other(registry: CollectorRegistry, metrics: Metrics, value: str) -> None:
    """Resource names and sentences would make a new series each."""
    metrics.call_refused(reason=value)

    assert registry.get_sample_value("tollhouse_refusals_total", {"reason": "other"}) == 1


def test_series_beyond_the_bound_are_counted_as_other(registry: CollectorRegistry, metrics: Metrics) -> None:
    """A caller who makes up model names cannot fill the memory."""
    for number in range(MOST_SERIES + 50):
        metrics.settled_above_hold(model=f"model-{number}")

    assert registry.get_sample_value("tollhouse_settled_above_hold_total", {"model": "other"}) == 50


def test_reporting_a_call_and_a_scrape_are_cheap(registry: CollectorRegistry, metrics: Metrics) -> None:
    """A call's metrics cost some microseconds; the bound is loose enough for a busy machine."""
    usage = Usage(prompt=Count(100), candidates=Count(7))
    rounds = 2000

    started_at = time.process_time()
    for _ in range(rounds):
        metrics.call_started(rpc="GenerationService.GenerateContent")
        metrics.call_settled(tier="pro", model="gemini-x", usage=usage, cost_nanos=5)
        metrics.call_finished(rpc="GenerationService.GenerateContent", code="OK", seconds=0.1)
    each_seconds = (time.process_time() - started_at) / rounds
    started_at = time.process_time()
    generate_latest(registry)
    scrape_seconds = time.process_time() - started_at

    assert each_seconds < 0.000_2
    assert scrape_seconds < 0.1
