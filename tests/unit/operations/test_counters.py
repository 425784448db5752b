"""Counters are read from what the processes of a server report, as the metrics port reads it."""

import os
import subprocess
import sys
from pathlib import Path

from tollhouse_server.operations.counters import counters_of
from tollhouse_server.telemetry.declarations.declaration import CALL_BUCKETS
from tollhouse_server.telemetry.exposition import Exposition
from tollhouse_server.telemetry.multiprocess import prepare_directory

REPORT = """
from prometheus_client import CollectorRegistry
from tollhouse_server.pricing.usage import Tokens, Usage
from tollhouse_server.telemetry.metrics import Metrics

metrics = Metrics(CollectorRegistry())
metrics.process_started(role="worker")
for code, seconds in (("OK", 0.002), ("OK", 0.2), ("NOT_FOUND", 1000.0)):
    metrics.call_started(rpc="GenerationService.GenerateContent")
    metrics.call_finished(rpc="GenerationService.GenerateContent", code=code, seconds=seconds)
metrics.call_started(rpc="GenerationService.CountTokens")
metrics.call_refused(reason="MODEL_UNKNOWN")
usage = Usage(prompt=Tokens(text=100), cached=Tokens(text=40), candidates=Tokens(text=7))
metrics.call_settled(tier="pro", model="gemini-x", usage=usage, cost_nanos=5)
"""


def report(directory: Path) -> Exposition:
    """Have two processes report the same."""
    environment = {**os.environ, **prepare_directory(directory), "PYTHONPATH": os.pathsep.join(sys.path)}
    for _ in range(2):
        subprocess.run([sys.executable, "-c", REPORT], env=environment, check=True)
    return Exposition(directory)


def test_counters_say_what_the_processes_were_told(tmp_path: Path) -> None:
    """Calls by RPC, their durations apart from each other, refusals by reason, tokens once, processes by role."""
    exposition = report(tmp_path / "metrics")

    found = counters_of(exposition)

    counts = found.rpcs["GenerationService.GenerateContent"]
    assert (counts.ok, counts.errors) == (4, 2)
    assert [CALL_BUCKETS[index] for index, count in enumerate(counts.durations[:-1]) if count] == [0.0025, 0.25]
    assert (sum(counts.durations), counts.durations[-1]) == (6, 2)
    assert found.reasons == {"MODEL_UNKNOWN": 2}
    assert found.tokens == 214
    assert found.processes == {"worker": 2}
    assert found.in_flight == 2


def test_a_process_that_shares_nothing_has_counted_nothing() -> None:
    """It has no part in a server."""
    found = counters_of(None)

    assert (found.rpcs, found.tokens, found.processes) == ({}, 0, {})
