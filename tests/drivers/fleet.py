"""Several servers on one PostgreSQL, one Vault and one simulator, each with workers of its own."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import grpc
import psutil

from tests.drivers.administration import Administration
from tests.drivers.deployment import Parts, as_run_file, prepared, set_up
from tests.drivers.stack import RunningStack, free_ports

_READY_SECONDS = 180.0


@dataclass(slots=True)
class Fleet:
    """Servers that share everything but their processes."""

    parts: Parts
    servers: list[RunningStack]

    @property
    def first(self) -> RunningStack:
        """The server that administrators talk to."""
        return self.servers[0]

    @property
    def targets(self) -> list[str]:
        """host:port of each server."""
        return [server.grpc for server in self.servers]

    def workers(self) -> list[psutil.Process]:
        """Return the worker processes that live now, of all servers."""
        return [child for server in self.servers for child in server.processes("worker")]

    def wait_until_ready(self) -> None:
        """Wait until every server takes connections: its killed workers take a while to be there again."""
        for server in self.servers:
            _wait_until_ready(server)

    def dsn(self, role: str) -> str:
        """Return the DSN of the one database for a role."""
        return self.parts.endpoints[0].dsn(role)


@contextmanager
def running_fleet(parts: Parts, *, servers: int, **settings: object) -> Iterator[Fleet]:
    """Set a new company up and serve it from several servers; `settings` are TOLLHOUSE_ variables in lower case."""
    administrator_key = prepared(parts)
    with ExitStack() as stops:
        started = []
        for number in range(servers):
            server = _start(parts, number, settings)
            stops.callback(server.stop)
            server.run = as_run_file(parts, administrator_key) | {"grpc": f"127.0.0.1:{server.run['port']}"}
            started.append(server)
        for server in started:
            _wait_until_ready(server)
        started[0].run = {**started[0].run, "demo_api_key": set_up(started[0])}
        fleet = Fleet(parts, started)
        fleet.wait_until_ready()
        yield fleet


def _start(parts: Parts, number: int, settings: dict[str, object]) -> RunningStack:
    port, metrics_port = free_ports(2)
    own = {
        "grpc_port": port,
        "metrics_port": metrics_port,
        "state_dir": parts.directory / f"state-{number}",
        **settings,
    }
    environment = {**parts.environment, **{f"TOLLHOUSE_{name.upper()}": str(value) for name, value in own.items()}}
    output = parts.directory / f"server-{number}.out"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "tollhouse_server", "serve"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    return RunningStack(process=process, state_dir=parts.directory, output=output, run={"port": port})


def _wait_until_ready(server: RunningStack) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=_READY_SECONDS)
        except grpc.FutureTimeoutError:
            raise AssertionError(f"a server did not start:\n{server.output.read_text()[-3000:]}") from None


@contextmanager
def fleet_administration(fleet: Fleet) -> Iterator[Administration]:
    """Open a channel to the first server as the platform's administrator."""
    with grpc.insecure_channel(fleet.first.grpc) as channel:
        yield Administration(channel, fleet.first.admin_api_key)
