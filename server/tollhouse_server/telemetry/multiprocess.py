"""Metrics of several processes: each writes files into one directory, the supervisor adds them up (`exposition.py`).

prometheus_client decides when it is first imported whether values live in memory or in such files, by the environment
variable; so the supervisor passes it to the processes that it starts and does not set it for itself. The files are then
written by values of ours.
"""

import os
from pathlib import Path

from prometheus_client import values

from tollhouse_server.telemetry.own_files import OwnFiles

_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def prepare_directory(directory: Path) -> dict[str, str]:
    """Make `directory` empty and return the variables with which workers and housekeeper must be started.

    Call it once, before the first process starts: what an earlier run left would count as this run's.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for pattern in ("*.db", "*.json", "*.draft"):
        for left_over in directory.glob(pattern):
            left_over.unlink()
    return {_VARIABLE: str(directory.resolve())}


def shared_with_other_processes() -> bool:
    """Return whether this process was started so that its metrics are added to those of the others."""
    return values.ValueClass is not values.MutexValue


def write_own_files() -> None:
    """Have values that are made from now on written by `OwnFiles`; to be called before there is one, once or again."""
    directory = shared_directory()
    if directory is not None and not isinstance(values.ValueClass, OwnFiles):
        values.ValueClass = OwnFiles(directory, os.getpid())


def shared_directory() -> Path | None:
    """Return where this process's metrics are added to those of the others, None where it is alone."""
    return Path(os.environ[_VARIABLE]) if shared_with_other_processes() else None
