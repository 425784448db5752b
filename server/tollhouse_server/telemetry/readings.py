"""Values that one process says all at once, such as the budgets that are used most: what it no longer says is gone.

The metrics of a process can only grow: a department that is no longer among the dearest would keep its last value. So
the housekeeper that leads writes a file of readings instead, whole, and whoever serves the metrics reads it. With
several servers only the one whose housekeeper leads has such a file.
"""

import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tollhouse_server.telemetry.declarations import DECLARATIONS, Declaration

STALE_SECONDS: Final = 60.0
"""Readings as old as this are not shown: whoever took them has ended, or cannot take them any more."""

_FILE: Final = "readings.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """All values of one metric, by the values of its labels."""

    declaration: Declaration
    values: Mapping[tuple[str, ...], float]


def reading(declaration: Declaration, value: float) -> Reading:
    """Return the reading of a metric without labels."""
    return Reading(declaration=declaration, values={(): value})


def publish(directory: Path, readings: Iterable[Reading]) -> None:
    """Put these readings in the place of those before."""
    said = {one.declaration.name: [[*labels, value] for labels, value in one.values.items()] for one in readings}
    replace_file(directory / _FILE, {"at": time.time(), "pid": os.getpid(), "readings": said})


def withdraw(directory: Path) -> None:
    """Say nothing any more: another process leads."""
    (directory / _FILE).unlink(missing_ok=True)


def withdraw_of(directory: Path, pid: int) -> None:
    """Withdraw the readings of a process that has ended without doing so."""
    written = read_file(directory / _FILE)
    if isinstance(written, dict) and written["pid"] == pid:
        withdraw(directory)


def published(directory: Path) -> list[Reading]:
    """Return the readings that stand, none if they are old."""
    written = read_file(directory / _FILE)
    if not isinstance(written, dict) or time.time() - written["at"] > STALE_SECONDS:
        return []
    by_name = {declaration.name: declaration for declaration in DECLARATIONS}
    return [
        Reading(declaration=by_name[name], values={tuple(line[:-1]): line[-1] for line in lines})
        for name, lines in written["readings"].items()
    ]


def replace_file(path: Path, content: object) -> None:
    """Write a file of JSON that is there whole or not at all."""
    # Not *.db: those are prometheus_client's.
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(content), encoding="utf-8")
    draft.replace(path)


def read_file(path: Path) -> object:
    """Return what `replace_file` wrote, None if there is no file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
