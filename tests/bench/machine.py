"""What a bench runs on, and which cores whom it measures has to himself."""

import os
import platform
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.bench.rounds import setting

SCHEDULING = setting("BENCH_SCHEDULING", "other")
if SCHEDULING not in ("other", "batch"):
    raise ValueError(f"BENCH_SCHEDULING is other or batch, not {SCHEDULING}")
ROOT_DIRECTORY = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What figures depend on."""

    cores: int
    processor: str
    memory_gb: int
    kernel: str
    python: str
    scheduling: str


def machine() -> Machine:
    """Return what this machine is."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return Machine(
        cores=len(cores()),
        processor=names[0].partition(":")[2].strip() if names else platform.machine(),
        memory_gb=round(psutil.virtual_memory().total / 2**30),
        kernel=platform.release(),
        python=platform.python_version(),
        scheduling=SCHEDULING,
    )


def commit() -> str:
    """Return what is measured: the commit, and whether files that it has were changed since."""
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty"]
    done = subprocess.run(command, cwd=ROOT_DIRECTORY, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def cores() -> Sequence[int]:
    """Return the cores that this process may use."""
    return sorted(os.sched_getaffinity(0))


def measured_cores(count: int = 1) -> Sequence[int]:
    """Return the cores of what is measured: the first ones."""
    return cores()[:count]


def other_cores() -> Sequence[int]:
    """Return the cores of all else: load, upstream, PostgreSQL. Where there is one core only, all share it."""
    return cores()[1:] or cores()


def pin(pids: Iterable[int], on: Sequence[int]) -> None:
    """Keep processes, their children and all their threads on these cores; children to come are there, too.

    BENCH_PIN=no leaves that to the kernel: where others have the cores, the one that was chosen may be the busier one.
    """
    for thread in _threads(pids) if setting("BENCH_PIN", "yes") == "yes" else ():
        with suppress(ProcessLookupError):
            os.sched_setaffinity(thread, on)


def never_interrupt(pids: Iterable[int]) -> None:
    """Let no thread of these processes interrupt a running one because it has woken up, as `chrt --batch 0` does."""
    for thread in _threads(pids):
        with suppress(ProcessLookupError):
            os.sched_setscheduler(thread, os.SCHED_BATCH, os.sched_param(0))


def _threads(pids: Iterable[int]) -> Iterator[int]:
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            first = psutil.Process(pid)
            for one in [first, *first.children(recursive=True)]:
                yield from (int(thread.name) for thread in Path(f"/proc/{one.pid}/task").glob("*"))
