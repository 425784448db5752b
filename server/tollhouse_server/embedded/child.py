"""One child process: started as some user with a log file, ended when its parent ends, stopped within a time limit."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tollhouse_server.embedded.system_user import SystemUser

LAUNCHER = Path(__file__).with_name("launch.py")
POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to run. `environment` is all it gets: nothing of the parent's, so no secret either."""

    argv: Sequence[str]
    log_path: Path
    death_signal: signal.Signals
    user: SystemUser | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: Path | None = None


@dataclass(frozen=True, slots=True)
class StopStep:
    """Send `sent`, then wait this long for the end."""

    sent: signal.Signals
    wait_seconds: float


class Child:
    """A running command. Start it from a thread that outlives it: the kernel watches that thread."""

    def __init__(self, command: Command) -> None:
        """Start `command`; its output is appended to its log."""
        user = command.user
        launcher = (
            [str(os.getpid()), str(int(command.death_signal))]
            + ([str(user.uid), str(user.gid), str(int(user.keep_search))] if user else ["-1", "-1", "0"])
            + ["--"]
        )
        descriptor = os.open(command.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._popen = subprocess.Popen(
                [sys.executable, "-I", "-S", str(LAUNCHER), *launcher, *command.argv],
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                env={"PATH": os.defpath, **command.environment},
                cwd=command.directory,
                # Ctrl-C in the terminal must reach the parent only: it stops the parts in the right order.
                start_new_session=True,
            )
        finally:
            os.close(descriptor)
        self.log_path = command.log_path

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._popen.pid

    def exit_code(self) -> int | None:
        """Return the exit code (negative for a signal), or None while it runs."""
        return self._popen.poll()

    async def ended(self, timeout_seconds: float | None = None, *, look_every_seconds: float = POLL_SECONDS) -> bool:
        """Wait for the end; return False when it still runs after `timeout_seconds`."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while self.exit_code() is None:
            if deadline is not None and time.monotonic() > deadline:
                return False
            await asyncio.sleep(look_every_seconds)
        return True

    async def stop(self, steps: Sequence[StopStep]) -> int:
        """Go through `steps` until the process has ended, or kill it and what it started; return its exit code."""
        for step in steps:
            if self.exit_code() is not None:
                break
            self._popen.send_signal(step.sent)
            await self.ended(step.wait_seconds)
        if self.exit_code() is None:
            os.killpg(self.pid, signal.SIGKILL)
        return self._popen.wait()


def log_tail(path: Path, *, lines: int = 5) -> str:
    """Return the last lines of a log, joined for an error message."""
    text = path.read_text(errors="replace") if path.exists() else ""
    return " | ".join(line.strip() for line in text.splitlines()[-lines:] if line.strip()) or "no output"
