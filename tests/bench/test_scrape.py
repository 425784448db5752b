"""What a scrape costs when every metric has as many series as it may have, in the files of three processes.

How many departments, limits and callers there are does not come into it: the labels of what processes count are bounded
by MOST_SERIES and MOST_BUCKETS, and readings by the settings of how many are told of one by one.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from tollhouse_server.telemetry.declarations import money
from tollhouse_server.telemetry.exposition import Exposition
from tollhouse_server.telemetry.multiprocess import prepare_directory
from tollhouse_server.telemetry.readings import Reading, publish

from tests.bench.recorder import Recorder

PROCESSES = 3
ROUNDS = 15
TOLD = 1000
"""The highest value of the settings; 100 unless set."""

FILL = """
import sys
from prometheus_client import CollectorRegistry
from tollhouse_server.telemetry.families import Family
from tollhouse_server.telemetry.metrics import Metrics

from tests.bench.recorder import Recorder

metrics = Metrics(CollectorRegistry())
share = float(sys.argv[1])
for family in [one for part in (metrics, metrics.contents) for one in vars(part).values() if isinstance(one, Family)]:
    for number in range(int(family.most_series * share) + 1):
        child = family[(f"value-{number}",) * len(family.label_names)]
        say = getattr(child, "observe", None) or getattr(child, "set", None) or child.inc
        say(number + 1 if hasattr(child, "reset") else 0.0123 * number)
print("filled", flush=True)
sys.stdin.read()
"""


def filled(directory: Path, share: float) -> list[subprocess.Popen[str]]:
    """Start processes whose metrics have this share of the series that they may have."""
    environment = {**os.environ, **prepare_directory(directory), "PYTHONPATH": os.pathsep.join(sys.path)}
    started = []
    for _ in range(PROCESSES):
        process = subprocess.Popen(
            [sys.executable, "-c", FILL, str(share)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "filled\n"
        started.append(process)
    budgets: dict[tuple[str, ...], float] = {
        ("acme", f"departments/d-{number}", f"limit-{number}"): 0.1 * number for number in range(TOLD)
    }
    departments: dict[tuple[str, ...], float] = {("acme", f"d-{number}"): 0.1 * number for number in range(TOLD)}
    of_budgets = (money.BUDGET_AMOUNT, money.BUDGET_SETTLED, money.BUDGET_HELD, money.BUDGET_USED, money.BUDGET_ELAPSED)
    publish(
        directory,
        [
            *(Reading(declaration=one, values=budgets) for one in of_budgets),
            Reading(declaration=money.DEPARTMENT_COST, values=departments),
        ],
    )
    return started


def library(directory: Path) -> bytes:
    """Render as prometheus_client does."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(directory))  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def test_scrape(tmp_path: Path, recorder: Recorder) -> None:
    """CPU of a scrape, beside prometheus_client's, at a tenth of the bound, which is much in practice, and at it."""
    for share in (0.1, 1.0):
        directory = tmp_path / str(share)
        running = filled(directory, share)
        try:
            exposition = Exposition(directory)
            first = timed(exposition.render)
            body = exposition.render()
            costs = sorted(timed(exposition.render) for _ in range(ROUNDS))
            theirs = min(timed(partial(library, directory)) for _ in range(2))
        finally:
            for process in running:
                process.kill()
                process.communicate()
        series = sum(1 for line in body.splitlines() if not line.startswith(b"#"))
        key = f"scrape/{series}_series"
        recorder.record(f"{key}/cpu_ms", *(one * 1e3 for one in costs))
        found = {"mb": len(body) / 1e6, "first_cpu_ms": first * 1e3, "prometheus_client_cpu_ms": theirs * 1e3}
        recorder.record_all(key, {**found, "ratio_of_prometheus_client": theirs / costs[ROUNDS // 2]})
        assert series > 1000


def timed(work: Callable[[], object]) -> float:
    """Return the processor time of a call."""
    started_at = time.process_time()
    work()
    return time.process_time() - started_at
