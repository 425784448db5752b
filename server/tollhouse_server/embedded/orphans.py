"""Server processes that outlived a killed parent: found by the directory they work in, and stopped before a new start."""

import asyncio
import signal
import time
from pathlib import Path

import psutil

from tollhouse_server.embedded.child import POLL_SECONDS
from tollhouse_server.embedded.errors import EmbeddedStartFailed

FAST_SECONDS = 20.0
IMMEDIATE_SECONDS = 5.0


async def stop_orphans(data: Path) -> int:
    """Shut down any PostgreSQL process on `data`, then drop its pid file; how many there were.

    Two postmasters on one directory destroy it, so a start never goes on beside one: EmbeddedStartFailed if it stays.
    The working directory is the proof, not the pid file, whose number may belong to another program by now.
    """
    found = await asyncio.to_thread(_processes_in, data)
    for sent, wait_seconds in ((signal.SIGINT, FAST_SECONDS), (signal.SIGQUIT, IMMEDIATE_SECONDS)):
        for process in await asyncio.to_thread(_leaders_in, data):
            _send(process, sent)
        if await _all_ended(data, wait_seconds):
            (data / "postmaster.pid").unlink(missing_ok=True)
            return len(found)
    pids = ", ".join(str(process.pid) for process in _processes_in(data))
    raise EmbeddedStartFailed(
        part="PostgreSQL", detail=f"processes {pids} of an earlier run do not end; stop them first"
    )


async def _all_ended(data: Path, wait_seconds: float) -> bool:
    deadline = time.monotonic() + wait_seconds
    while await asyncio.to_thread(_processes_in, data):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(POLL_SECONDS * 5)
    return True


def _leaders_in(data: Path) -> list[psutil.Process]:
    """The postmaster if it lives: it ends its children in order. Else the children it left."""
    processes = _processes_in(data)
    pids = {process.pid for process in processes}
    return [process for process in processes if process.ppid() not in pids]


def _processes_in(data: Path) -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if _works_in(process, data)]


def _works_in(process: psutil.Process, data: Path) -> bool:
    try:
        return (
            process.name().startswith("postgres")
            and process.status() != psutil.STATUS_ZOMBIE
            and Path(process.cwd()) == data
        )
    except psutil.Error:
        # Gone between the listing and the look, or another user's: then it cannot be ours.
        return False


def _send(process: psutil.Process, sent: signal.Signals) -> None:
    try:
        process.send_signal(sent)
    except psutil.NoSuchProcess:
        return
