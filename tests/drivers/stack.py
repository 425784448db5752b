"""A whole Tollhouse, started as a user starts it: `tollhouse-server run` on free ports in a directory of its own."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest
from tollhouse_server.database.roles import AS_CONTROL
from tollhouse_server.ports import keep_free_port

from tests.drivers.places import servers_place

_READY_SECONDS = 90.0
_STOP_SECONDS = 60.0
_TRANSPORT = os.environ.get("TOLLHOUSE_TESTS_TRANSPORT")
_PORTS = ("GRPC", "METRICS", "SIMULATOR", "POSTGRES", "VAULT")


@dataclass(slots=True)
class RunningStack:
    """A running server; `run` is its run.json."""

    process: "subprocess.Popen[bytes]"
    state_dir: Path
    output: Path
    run: Mapping[str, Any] = field(repr=False)

    @property
    def grpc(self) -> str:
        """host:port of gRPC."""
        return str(self.run["grpc"])

    @property
    def demo_api_key(self) -> str:
        """A key of the demo's research department, project assistant."""
        return str(self.run["demo_api_key"])

    @property
    def admin_api_key(self) -> str:
        """A key of the platform's administrator."""
        return str(self.run["admin_api_key"])

    @property
    def simulator(self) -> str:
        """The simulator's base URL."""
        return str(self.run["simulator"])

    @property
    def metrics(self) -> str:
        """The URL of the metrics."""
        return str(self.run["metrics"])

    @property
    def pids(self) -> Mapping[str, int]:
        """Process ids: postgres, openbao, simulator, worker-1 ..., housekeeper."""
        found: Mapping[str, int] = self.run["pids"]
        return found

    def processes(self, role: str) -> list[psutil.Process]:
        """Return the processes of a role that live now."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                found += [process] if process.cmdline()[:1] == [f"tollhouse-server {role}"] else []
        return found

    def current_pids(self) -> Mapping[str, int]:
        """Process ids as run.json has them now, processes that were replaced included."""
        found: Mapping[str, int] = json.loads((self.state_dir / "run.json").read_text())["pids"]
        return found

    def server_log(self) -> str:
        """What workers and housekeeper wrote."""
        return (self.state_dir / "logs" / "server.log").read_text()

    def query(self, sql: str, *arguments: object) -> list[Any]:
        """Read the ledger's own tables past the server."""

        async def fetch() -> list[Any]:
            connection = await asyncpg.connect(str(self.run["postgres"]), server_settings=dict(AS_CONTROL))
            try:
                return list(await connection.fetch(sql, *arguments))
            finally:
                await connection.close()

        return asyncio.run(fetch())

    def records_labelled(self, label: str, value: str) -> list[str]:
        """Return the kinds of the usage records that carry a label."""
        found = self.query("SELECT kind FROM usage_record WHERE labels ->> $1 = $2", label, value)
        return [str(row["kind"]) for row in found]

    def wait_until_ready(self) -> None:
        """Wait for run.json to be this process's; fail with its output if it ends first."""
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline:
            if b"Try, in another terminal" in self.output.read_bytes():
                self.run = json.loads((self.state_dir / "run.json").read_text())
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(f"the server did not start:\n{self.output.read_text()}\n{self._logs()}")

    def stop(self, sent: signal.Signals = signal.SIGTERM) -> int:
        """Stop it and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(sent)
        return self.process.wait(_STOP_SECONDS)

    def end(self) -> None:
        """End it at once, for a test that does not ask how it ends: in good order that takes seconds."""
        if self.process.poll() is not None:
            return
        supervisor = psutil.Process(self.process.pid)
        children = supervisor.children(recursive=True)
        # First, lest it start again what is missing.
        supervisor.kill()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                # PostgreSQL ends at once by this, too, and leaves no shared memory behind.
                child.send_signal(signal.SIGQUIT if child.name() == "postgres" else signal.SIGKILL)
        psutil.wait_procs(children, timeout=_STOP_SECONDS)
        self.process.wait(_STOP_SECONDS)

    def _logs(self) -> str:
        return "\n".join(path.read_text()[-2000:] for path in sorted((self.state_dir / "logs").glob("*.log")))


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on, and that nobody but those who are told them gets."""
    return [keep_free_port() for _ in range(count)]


def inherited() -> dict[str, str]:
    """Return what a server may know of our own environment: none of its settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("TOLLHOUSE_", "GEMINI_"))}


def stack_environment(state_dir: Path, **settings: object) -> dict[str, str]:
    """Return the environment of a server on free ports; `settings` are TOLLHOUSE_ variables in lower case."""
    ports = {f"TOLLHOUSE_{name}_PORT": str(port) for name, port in zip(_PORTS, free_ports(len(_PORTS)), strict=True)}
    chosen = {f"TOLLHOUSE_{name.upper()}": str(value) for name, value in settings.items()}
    return {
        **inherited(),
        "PYTHONPATH": os.pathsep.join(sys.path),
        "TOLLHOUSE_LOG_FORMAT": "json",
        # Who starts a server for a test of its own wants one that starts quickly, unless he names another transport.
        "TOLLHOUSE_TRANSPORT": "grpcio",
        **ports,
        "TOLLHOUSE_STATE_DIR": str(state_dir),
        **chosen,
        **({"TOLLHOUSE_TRANSPORT": _TRANSPORT} if _TRANSPORT else {}),
    }


def start_stack(environment: Mapping[str, str]) -> RunningStack:
    """Start a server without waiting for it."""
    state_dir = Path(environment["TOLLHOUSE_STATE_DIR"])
    output = state_dir.with_name(state_dir.name + ".out")
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "tollhouse_server", "run"],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    return RunningStack(process=process, state_dir=state_dir, output=output, run={})


@contextmanager
def running_stack_in(directory: Path, **settings: object) -> Iterator[RunningStack]:
    """Run a server with its state in `directory`/state until the block is left."""
    stack = start_stack(stack_environment(directory / "state", **settings))
    try:
        stack.wait_until_ready()
        yield stack
    finally:
        stack.end()


@pytest.fixture
def stack_directory() -> Iterator[Path]:
    """A directory that PostgreSQL's account may enter, removed at the end."""
    with servers_place("stack") as directory:
        yield directory
