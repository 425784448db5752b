"""What the supervisor says of its processes: what they take of the machine, and how often they had to be started again.

Taken when it is asked for, from the kernel: a process that hangs is told of as well. Linux only; elsewhere there is
nothing to read, and only restarts, version and start are told.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

from tollhouse_server.telemetry.declarations import processes as declared
from tollhouse_server.telemetry.declarations.observing import LOG_LINES_DROPPED
from tollhouse_server.telemetry.logging import lines_dropped
from tollhouse_server.telemetry.readings import Reading, reading

_PROC: Final = Path("/proc")
# Fields of /proc/PID/stat behind the name, which may hold anything: proc(5) counts from 1, and the name is the second.
_USER_TICKS, _SYSTEM_TICKS, _BEHIND_NAME = 14, 15, 3

Pids = Callable[[], Mapping[str, Sequence[int]]]
"""The living processes by role."""


class ProcessReadings:
    """Says what the processes of one server take."""

    def __init__(self, pids: Pids, roles: Iterable[str]) -> None:
        self._pids = pids
        self._started_at = time.time()
        self._restarts = Counter(dict.fromkeys(roles, 0))
        self._cpu_seconds: dict[tuple[str, int], float] = {}
        self._ended_cpu_seconds: dict[str, float] = {}

    def restarted(self, role: str) -> None:
        """Note that a process which had ended is started again."""
        self._restarts[role] += 1

    def __call__(self) -> Iterable[Reading]:
        """Return the readings of now."""
        memory: Counter[str] = Counter()
        files: Counter[str] = Counter()
        living = [(role, pid) for role, pids in self._pids().items() for pid in pids]
        self._end(self._cpu_seconds.keys() - set(living))
        for role, pid in living:
            self._look(role, pid, memory, files)
        cpu: dict[tuple[str, ...], float] = {(role,): seconds for role, seconds in self._ended_cpu_seconds.items()}
        for (role, _), seconds in self._cpu_seconds.items():
            cpu[(role,)] = cpu.get((role,), 0.0) + seconds
        return (
            Reading(declaration=declared.RESIDENT_MEMORY, values=_by_role(memory)),
            Reading(declaration=declared.OPEN_FILES, values=_by_role(files)),
            Reading(declaration=declared.CPU, values=cpu),
            Reading(declaration=declared.RESTARTS, values=_by_role(self._restarts)),
            Reading(declaration=declared.BUILD, values={(version("tollhouse"),): 1.0}),
            reading(declared.STARTED, self._started_at),
            # The others count theirs; the supervisor has no file of metrics.
            reading(LOG_LINES_DROPPED, lines_dropped()),
        )

    def _end(self, ended: Iterable[tuple[str, int]]) -> None:
        """Keep what processes used that have ended, so that the sum never falls; another one may get their id."""
        for role, pid in ended:
            seconds = self._cpu_seconds.pop((role, pid))
            self._ended_cpu_seconds[role] = self._ended_cpu_seconds.get(role, 0.0) + seconds

    def _look(self, role: str, pid: int, memory: Counter[str], files: Counter[str]) -> None:
        process = _PROC / str(pid)
        try:
            pages = int((process / "statm").read_text().split()[1])
            stat = (process / "stat").read_text().rpartition(")")[2].split()
            open_files = sum(1 for _ in (process / "fd").iterdir())
        except OSError:
            # It has ended just now, or this is not Linux.
            return
        ticks = int(stat[_USER_TICKS - _BEHIND_NAME]) + int(stat[_SYSTEM_TICKS - _BEHIND_NAME])
        memory[role] += pages * os.sysconf("SC_PAGE_SIZE")
        files[role] += open_files
        self._cpu_seconds[role, pid] = ticks / os.sysconf("SC_CLK_TCK")


def _by_role(values: Mapping[str, int]) -> dict[tuple[str, ...], float]:
    return {(role,): float(value) for role, value in values.items()}
