"""What the metrics of one governed call cost the worker that serves it, in files that other processes read."""

import os
import subprocess
import sys
from pathlib import Path

from tollhouse_server.telemetry.multiprocess import prepare_directory

from tests.bench.recorder import Recorder

MEASURE = """
import time
from dataclasses import dataclass
from prometheus_client import CollectorRegistry
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.telemetry.multiprocess import shared_with_other_processes
from tollhouse_server.telemetry.steps import CallNotes, UPSTREAM
from tollhouse_server.telemetry.tracecontext import trace_context

from tests.bench.recorder import Recorder

assert shared_with_other_processes()
metrics = Metrics(CollectorRegistry())
RPC, TIMES, ROUNDS = "GenerationService.GenerateContent", 20_000, 7

@dataclass
class Count:
    total: int

@dataclass
class Usage:
    prompt, cached, tool_use, candidates = Count(900), Count(0), Count(0), Count(120)
    thoughts_tokens, images, grounding_queries = 300, 0, 0

usage, notes = Usage(), CallNotes(RPC, trace_context({}), "x")
for name in ("authenticate", "reserve", UPSTREAM, "settle"):
    with notes.step(name, {}):
        pass
notes.finish("OK")

def traced():
    metrics.call_finished(rpc=RPC, code="OK", seconds=0.07, trace_id="a" * 32)

def added():
    if (upstream := notes.upstream_seconds) is not None:
        metrics.latency_added(seconds=max(0.0, notes.seconds - upstream))

parts = {
    "arrival": lambda: metrics.call_started(rpc=RPC),
    "end": lambda: metrics.call_finished(rpc=RPC, code="OK", seconds=0.07),
    "end, traced": traced,
    "added latency, reckoned and noted": added,
    "upstream attempt": lambda: metrics.upstream_attempt_finished(
        target="gemini_api", model="gemini-3.5-flash", outcome="SERVED", seconds=0.06),
    "usage and cost": lambda: metrics.call_settled(
        tier="flash", model="gemini-3.5-flash", usage=usage, cost_nanos=123456),
}

def micros(work):
    found = []
    for _ in range(ROUNDS):
        started_at = time.process_time()
        for _ in range(TIMES):
            work()
        found.append((time.process_time() - started_at) / TIMES * 1e6)
    return min(found)

costs = {name: micros(work) for name, work in parts.items()}
for name, cost in costs.items():
    print(f"{name}={cost}")
before = sum(costs[name] for name in ("arrival", "end", "upstream attempt", "usage and cost"))
print(f"a call without added latency={before}")
print(f"a call, traced={sum(costs.values()) - costs['end']}")
"""


def test_metrics_of_a_call(tmp_path: Path, recorder: Recorder) -> None:
    """The parts of a served call; metrics, log and trace together have 25 us in 8-performance."""
    environment = {**os.environ, **prepare_directory(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}

    done = subprocess.run(
        [sys.executable, "-c", MEASURE], env=environment, capture_output=True, text=True, timeout=300, check=True
    )

    for name, _, cost in (line.partition("=") for line in done.stdout.splitlines()):
        recorder.record(f"call_metrics/{name.replace(',', '').replace(' ', '_')}/cpu_us", float(cost))
    assert "a call, traced" in done.stdout
