"""A full disk under the metrics of several processes ends none of them, and takes back nothing that was counted."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tollhouse_server.telemetry.multiprocess import prepare_directory

# A limit on the size of files stands for the full disk: what would be longer is refused at the same place.
_COUNTING = """
import resource, sys
from prometheus_client import CollectorRegistry
from tollhouse_server.telemetry.metrics import Metrics

soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

def full(most_bytes):
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, hard))

def free():
    full(soft)

if sys.argv[1].startswith("from the start"):
    full(0)
metrics = Metrics(CollectorRegistry())
metrics.process_started(role="worker")

def count(rpcs):
    for number in rpcs:
        metrics.call_started(rpc=f"X.Y{number}")
        metrics.call_finished(rpc=f"X.Y{number}", code="OK", seconds=0.01)
"""

_WORKER = f"""
{_COUNTING}
count(range(5))
full(1 << 16)
count(range(900))
if sys.argv[1] == "freed":
    free()
    count(range(1000))
    count(range(1000))
"""

_STARTER = f"""
{_COUNTING}
count(range(5))
if sys.argv[1] == "from the start, freed":
    free()
    count(range(10))
"""

_SUPERVISOR = """
import json, os, resource, sys
from pathlib import Path
from tollhouse_server.telemetry.declarations.calls import CALLS
from tollhouse_server.telemetry.declarations.processes import PROCESSES
from tollhouse_server.telemetry.exposition import Exposition

exposition = Exposition(Path(sys.argv[1]))

def seen():
    calls = exposition.values_of(CALLS)
    drafts = [name for name in os.listdir(sys.argv[1]) if name.endswith(".draft")]
    return [sum(calls.values()), max(calls.values(), default=0), len(exposition.values_of(PROCESSES)), drafts]

told = [seen()]
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
exposition.end(int(sys.argv[2]))
told.append(seen())
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
exposition.end(int(sys.argv[3]))
told.append(seen())
print(json.dumps([told, sorted(os.listdir(sys.argv[1]))]))
"""


def run(program: str, *arguments: object, directory: Path | None = None) -> "tuple[int, str, int]":
    """Run a program to its end; return its exit code, what it said, and its id."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    if directory is not None:
        environment |= {"PROMETHEUS_MULTIPROC_DIR": str(directory)}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        said, _ = process.communicate(timeout=60)
    return process.returncode, said, process.pid


def supervised(directory: Path, *pids: int) -> Any:
    """What a supervisor sees before, during and after a full disk, and the files that are left."""
    code, said, _ = run(_SUPERVISOR, directory, *pids)
    assert code == 0
    return json.loads(said)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    prepare_directory(tmp_path)
    return tmp_path


def test_process_outlives_a_full_disk_and_goes_on_counting(directory: Path) -> None:
    """What has a place is counted on; what has none is in memory alone."""
    code, _, pid = run(_WORKER, "none", directory=directory)

    ((before, *_), _) = supervised(directory, pid, pid)

    assert (code, before[1]) == (0, 2.0)
    assert 5 * 2 < before[0] < 5 * 2 + 895


def test_nothing_is_lost_that_was_counted_while_the_disk_was_full(directory: Path) -> None:
    """What found no place is told of with all that it has counted, when there is room."""
    code, _, pid = run(_WORKER, "freed", directory=directory)

    ((before, *_), _) = supervised(directory, pid, pid)

    assert (code, before[1]) == (0, 4.0)
    # Of the first five all, of the others with those before there was room again.
    assert before[0] == 5 * 4 + 895 * 3 + 100 * 2


@pytest.mark.parametrize(("room", "seen"), [("none", (0, 0, 0)), ("freed", (10 + 5, 2, 1))])
def test_a_process_starts_on_a_full_disk(directory: Path, room: str, seen: tuple[int, int, int]) -> None:
    """Without a file at all it counts in memory, and has counted from its start when there is room."""
    code, _, pid = run(_STARTER, f"from the start, {room}", directory=directory)

    ((before, *_), _) = supervised(directory, pid, pid)

    assert code == 0
    assert tuple(before[:3]) == seen


def test_counts_of_a_dead_process_stay_where_the_disk_is_full(directory: Path) -> None:
    """Counters never go back, gauges of the dead are gone, and once there is room its files are gone too."""
    pids = [run(_WORKER, "freed", directory=directory)[2] for _ in range(2)]

    (before, full, freed), files = supervised(directory, *pids)

    assert full[:2] == freed[:2] == before[:2]
    assert (before[2], freed[2]) == (1, 0)
    assert full[3] == []
    assert files == ["counter_0.db", "histogram_0.db"]
