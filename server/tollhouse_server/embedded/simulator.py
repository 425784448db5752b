"""The Gemini simulator as a child process."""

import asyncio
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tollhouse_server.embedded.child import POLL_SECONDS, Child, Command, StopStep, log_tail
from tollhouse_server.embedded.errors import EmbeddedStartFailed
from tollhouse_server.embedded.orphans import runs_with, stop_orphans
from tollhouse_server.ports import LOOPBACK, claim_port

PART = "Gemini simulator"
STOP_STEPS = (StopStep(signal.SIGTERM, 5.0),)
ORPHAN_STEPS = (*STOP_STEPS, StopStep(signal.SIGKILL, 5.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorConfig:
    """Where and how to run. Port 0 takes a free one; `call_log_path` is the simulator's durable log of calls."""

    call_log_path: Path
    log_path: Path
    port: int = 0
    port_setting: str = "TOLLHOUSE_SIMULATOR_PORT"
    start_timeout_seconds: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorEndpoint:
    """A running simulator: the base URL to give to a Gemini client, and its durable log of calls."""

    base_url: str
    port: int
    pid: int
    call_log_path: Path


class EmbeddedSimulator:
    """Starts and stops one simulator."""

    def __init__(self, config: SimulatorConfig) -> None:
        """Prepare; nothing runs before `start`."""
        self._config = config
        self._port = config.port
        self._child: Child | None = None

    @property
    def child(self) -> Child | None:
        """Return the process, once started."""
        return self._child

    async def start(self) -> SimulatorEndpoint:
        """Start it and wait until it takes connections.

        Raises:
            PortInUse: somebody else listens on its port.
            EmbeddedStartFailed: it ended or took too long.
        """
        call_log = str(self._config.call_log_path.absolute())
        await stop_orphans(PART, runs_with(call_log, "python"), ORPHAN_STEPS)
        self._port = claim_port(self._port, purpose=PART, setting=self._config.port_setting)
        self._child = Child(self._command(call_log))
        try:
            await self._wait_ready(self._child)
        except BaseException:
            await self.stop()
            raise
        return SimulatorEndpoint(
            base_url=f"http://{LOOPBACK}:{self._port}",
            port=self._port,
            pid=self._child.pid,
            call_log_path=self._config.call_log_path,
        )

    async def stop(self) -> None:
        """Stop in order; does nothing when it does not run."""
        if self._child is not None:
            await self._child.stop(STOP_STEPS)

    def _command(self, call_log: str) -> Command:
        module = "tollhouse_server.simulator"
        return Command(
            argv=[sys.executable, "-m", module, "--host", LOOPBACK, "--port", str(self._port), "--log", call_log],
            log_path=self._config.log_path,
            death_signal=signal.SIGTERM,
            # The same packages as ours, whether installed or run from a checkout.
            environment={"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
        )

    async def _wait_ready(self, child: Child) -> None:
        deadline = time.monotonic() + self._config.start_timeout_seconds
        while not _listens(self._port):
            if child.exit_code() is not None or time.monotonic() > deadline:
                detail = log_tail(self._config.log_path)
                raise EmbeddedStartFailed(part=PART, detail=detail, log_path=self._config.log_path)
            await asyncio.sleep(POLL_SECONDS)


def _listens(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        return probe.connect_ex((LOOPBACK, port)) == 0
