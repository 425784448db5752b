"""Exemplars: for each bucket of a histogram the last call that fell into it and was traced, by its trace id.

prometheus_client keeps none when several processes share their metrics. So each process keeps its own, one for a
bucket, and writes them to a file beside its metrics every few seconds if there are new ones.
"""

import time
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tollhouse_server.telemetry.declarations import Declaration
from tollhouse_server.telemetry.readings import read_file, replace_file

_PREFIX: Final = "exemplars_"

_Place = tuple[str, tuple[str, ...], int]
"""A bucket: the histogram's name, the values of its labels, and the bucket's number."""


@dataclass(frozen=True, slots=True)
class Exemplar:
    """A traced call; `at_seconds` since 1970."""

    trace_id: str
    value: float
    at_seconds: float


class Exemplars:
    """The exemplars of one process."""

    def __init__(self) -> None:
        self._kept: dict[_Place, Exemplar] = {}
        self._is_new = False

    def note(self, declaration: Declaration, labels: tuple[str, ...], value: float, trace_id: str) -> None:
        """Keep a traced call in the place of the one before in its bucket."""
        place = (declaration.name, labels, bisect_left(declaration.buckets, value))
        self._kept[place] = Exemplar(trace_id, value, time.time())
        self._is_new = True

    def news(self) -> dict[_Place, Exemplar]:
        """Return what is kept, nothing if none of it is new since the last time."""
        is_new, self._is_new = self._is_new, False
        return dict(self._kept) if is_new else {}


def write_exemplars(directory: Path, pid: int, kept: Mapping[_Place, Exemplar]) -> None:
    """Let the server of metrics have what a process keeps. Blocking."""
    lines = [
        [name, labels, bucket, one.trace_id, one.value, one.at_seconds] for (name, labels, bucket), one in kept.items()
    ]
    replace_file(_file(directory, pid), lines)


def all_exemplars(directory: Path) -> dict[_Place, Exemplar]:
    """Return for each bucket the newest exemplar of all processes."""
    newest: dict[_Place, Exemplar] = {}
    for path in directory.glob(f"{_PREFIX}*.json"):
        lines = read_file(path)
        for name, labels, bucket, *what in lines if isinstance(lines, list) else ():
            place, found = (name, tuple(labels), bucket), Exemplar(*what)
            if place not in newest or found.at_seconds > newest[place].at_seconds:
                newest[place] = found
    return newest


def forget_exemplars(directory: Path, pid: int) -> None:
    """Drop those of a process that has ended."""
    _file(directory, pid).unlink(missing_ok=True)


def _file(directory: Path, pid: int) -> Path:
    return directory / f"{_PREFIX}{pid}.json"
