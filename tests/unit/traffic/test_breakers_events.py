"""What a breaker's changes leave in the metrics and in the log."""

from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import structlog
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.traffic.breaker_events import breaker_events
from tollhouse_server.traffic.breaker_reports import breakers_of, section_of
from tollhouse_server.traffic.breakers import BreakerKey, BreakerPolicy, Breakers, Forced
from tollhouse_server.traffic.verdicts import Verdict

KEY = BreakerKey("east", "", "flash")


@pytest.fixture
def log() -> Iterator[list[MutableMapping[str, Any]]]:
    """What is logged."""
    structlog.reset_defaults()
    with capture_logs() as lines:
        yield lines


def call(breakers: Breakers, verdict: Verdict, *, times: int = 1) -> None:
    for _ in range(times):
        breakers.begin(KEY)
        breakers.record(KEY, verdict, 0.0)


def test_every_change_is_logged_and_counted_and_the_state_is_a_gauge(log: list[MutableMapping[str, Any]]) -> None:
    """Opening, probing, closing, and an order."""
    registry, now = CollectorRegistry(), [100.0]
    policy = BreakerPolicy(jitter=0.0)
    breakers = Breakers(policy=policy, on_change=breaker_events(Metrics(registry)), clock=lambda: now[0])

    def gauge(name: str) -> float | None:
        return registry.get_sample_value(name, {"account": "east", "region": "none", "model": "flash"})

    states = []
    call(breakers, Verdict.SUCCESS)
    states.append(gauge("tollhouse_breaker_state"))
    call(breakers, Verdict.FAILURE, times=5)
    states.append(gauge("tollhouse_breaker_state"))
    now[0] += policy.delay_seconds
    call(breakers, Verdict.SUCCESS)
    states.append(gauge("tollhouse_breaker_state"))
    call(breakers, Verdict.SUCCESS)
    states.append(gauge("tollhouse_breaker_state"))
    breakers.order({KEY: Forced.OPEN})
    states.append(gauge("tollhouse_breaker_state"))

    assert states == [0, 2, 1, 0, 2]
    assert gauge("tollhouse_breaker_forced") == 1
    assert [(line["state"], line["cause"], line["log_level"]) for line in log] == [
        ("open", "failures_in_a_row", "warning"),
        ("half_open", "delay_over", "info"),
        ("closed", "probes_succeeded", "info"),
        ("open", "order", "warning"),
    ]
    assert log[0]["retry_in_seconds"] == policy.delay_seconds
    labels = {"account": "east", "region": "none", "model": "flash", "state": "open"}
    assert registry.get_sample_value("tollhouse_breaker_changes_total", labels) == 2


def test_the_first_change_is_a_rise_of_the_count(log: list[MutableMapping[str, Any]]) -> None:
    """Prometheus sees no rise in a series that begins at 1."""
    registry = CollectorRegistry()
    breakers = Breakers(on_change=breaker_events(Metrics(registry)))

    def changes(state: str) -> float | None:
        labels = {"account": "east", "region": "none", "model": "flash", "state": state}
        return registry.get_sample_value("tollhouse_breaker_changes_total", labels)

    call(breakers, Verdict.SUCCESS)
    called = [changes(state) for state in ("open", "half_open", "closed")]
    call(breakers, Verdict.FAILURE, times=5)
    opened = [changes(state) for state in ("open", "half_open", "closed")]

    assert called == [0, None, None]
    assert opened == [1, 0, 0]
    assert len(log) == 1


def test_a_report_says_what_the_breakers_are() -> None:
    """What is written is what is read."""
    breakers = Breakers(clock=lambda: 100.0, chance=lambda: 0.0)
    call(breakers, Verdict.FAILURE, times=5)
    breakers.order({BreakerKey("east", "", ""): Forced.CLOSED})

    assert breakers_of(section_of(breakers.snapshot())) == breakers.snapshot()
