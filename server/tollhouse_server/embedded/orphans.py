"""Server processes that outlived a killed parent: found by what they work on, stopped before a new start."""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from tollhouse_server.embedded.child import StopStep
from tollhouse_server.embedded.errors import EmbeddedStartFailed

LOOK_SECONDS = 0.1
Belongs = Callable[[psutil.Process], bool]


async def stop_orphans(part: str, belongs: Belongs, steps: Sequence[StopStep]) -> None:
    """Stop every process that `belongs` to us.

    Two servers on one data directory destroy it, so a start never goes on beside one. A pid file is no proof: its
    number may be another program's by now.

    Raises:
        EmbeddedStartFailed: one does not end.
    """
    for step in steps:
        for process in await asyncio.to_thread(_leaders, belongs):
            _send(process, step)
        if await _all_ended(belongs, step.wait_seconds):
            return
    pids = ", ".join(str(process.pid) for process in _matching(belongs))
    raise EmbeddedStartFailed(part=part, detail=f"processes {pids} of an earlier run do not end; stop them first")


def works_in(directory: Path, program: str) -> Belongs:
    """Return a test for processes of `program` that work in `directory`: PostgreSQL's postmaster and its children."""
    return lambda process: process.name().startswith(program) and Path(process.cwd()) == directory


def runs_with(argument: str, program: str) -> Belongs:
    """Return a test for processes of `program` that were started with `argument`."""
    return lambda process: process.name().startswith(program) and argument in process.cmdline()


async def _all_ended(belongs: Belongs, wait_seconds: float) -> bool:
    deadline = time.monotonic() + wait_seconds
    while await asyncio.to_thread(_matching, belongs):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(LOOK_SECONDS)
    return True


def _leaders(belongs: Belongs) -> list[psutil.Process]:
    """The parent if it lives, since it ends its children in order; else the children it left."""
    found = _matching(belongs)
    pids = {process.pid for process in found}
    return [process for process in found if process.ppid() not in pids]


def _matching(belongs: Belongs) -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if _is_live_match(process, belongs)]


def _is_live_match(process: psutil.Process, belongs: Belongs) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and belongs(process)
    except psutil.Error:
        # Gone between the listing and the look, or another user's: then it cannot be ours.
        return False


def _send(process: psutil.Process, step: StopStep) -> None:
    try:
        process.send_signal(step.sent)
    except psutil.NoSuchProcess:
        return
