"""Counters are read from the samples that the metrics port shows."""

from datetime import UTC, datetime

from prometheus_client import CollectorRegistry
from tollhouse_server.operations.counters import counters_of
from tollhouse_server.telemetry.declarations.declaration import CALL_BUCKETS
from tollhouse_server.telemetry.metrics import Metrics


def test_counters_say_what_the_metrics_were_told() -> None:
    """Calls by RPC, their durations apart from each other, refusals by reason, processes by role."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.process_started(role="worker")
    for code, seconds in (("OK", 0.002), ("OK", 0.2), ("NOT_FOUND", 1000.0)):
        metrics.call_started(rpc="GenerationService.GenerateContent")
        metrics.call_finished(rpc="GenerationService.GenerateContent", code=code, seconds=seconds)
    metrics.call_refused(reason="MODEL_UNKNOWN")

    samples = [sample for metric in registry.collect() for sample in metric.samples]
    found = counters_of(samples, server_id="here/1", read_at=datetime.now(UTC))

    counts = found.rpcs["GenerationService.GenerateContent"]
    assert (counts.ok, counts.errors) == (2, 1)
    assert sum(counts.durations) == 3
    assert [CALL_BUCKETS[index] for index, count in enumerate(counts.durations[:-1]) if count] == [0.0025, 0.25]
    assert counts.durations[-1] == 1
    assert found.reasons == {"MODEL_UNKNOWN": 1}
    assert found.processes == {"worker": 1}
    assert found.in_flight == 0
