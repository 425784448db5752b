"""Metrics of several processes: each writes files into one directory, the supervisor adds them up.

prometheus_client decides when it is first imported whether values live in memory or in such files, by the environment
variable; so the supervisor passes it to the processes that it starts and does not set it for itself.
"""

from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from tollhouse_server.telemetry.declarations.processes import PART_UP

_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def prepare_directory(directory: Path) -> dict[str, str]:
    """Make `directory` empty and return the variables with which workers and housekeeper must be started.

    Call it once, before the first process starts: what an earlier run left would count as this run's.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for left_over in directory.glob("*.db"):
        left_over.unlink()
    return {_VARIABLE: str(directory.resolve())}


def shared_with_other_processes() -> bool:
    """Return whether this process was started so that its metrics are added to those of the others."""
    return bool(values.ValueClass.__name__ == "MmapedValue")


def mark_dead(pid: int, directory: Path) -> None:
    """Take the gauges of a process that ended out of the picture; what it counted stays."""
    mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]


def parts_down(directory: Path) -> frozenset[str]:
    """Return the parts (database, vault) that some process could not reach when it looked last. Blocking."""
    registry = CollectorRegistry()
    collector = MultiProcessCollector(registry, path=str(directory))  # type: ignore[no-untyped-call]
    return frozenset(
        sample.labels["part"]
        for metric in collector.collect()  # type: ignore[no-untyped-call]
        for sample in metric.samples
        if sample.name == PART_UP.name and sample.value == 0
    )


def aggregated(directory: Path) -> bytes:
    """Return the metrics of all processes in the text exposition format. Blocking: some milliseconds."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(directory))  # type: ignore[no-untyped-call]
    return generate_latest(registry)
