"""Programs of ours as processes that need no start of Python: each command is forked from one that has all loaded."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.drivers.sources import CLI_SOURCES

_PROGRAM = Path(__file__).with_name("fork_server.py")
_TIMEOUT_SECONDS = 60.0
_LOADED_BY_USE = (
    *("typer._adapters", "typer._click.decorators", "typer.rich_utils", "pydantic.type_adapter", "pydantic.main"),
    *("pydantic.plugin._loader", "grpc._channel", "grpc.experimental", "rich._emoji_codes"),
)
"""What the libraries of the command line load at its first use: three quarters of what a short command costs."""


@dataclass(frozen=True, slots=True)
class Forks:
    """A loaded program, and the socket by which it is told what to do."""

    control: socket.socket

    def run(
        self, arguments: Sequence[str], *, environment: Mapping[str, str], directory: Path, stdin: str = ""
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end, as subprocess.run does."""
        with ExitStack() as opened:
            source, out, err = (opened.enter_context(tempfile.TemporaryFile("w+")) for _ in range(3))
            source.write(stdin)
            source.seek(0)
            readable, writable = os.pipe()
            message = {"arguments": arguments, "environment": dict(environment), "directory": str(directory)}
            descriptors = [source.fileno(), out.fileno(), err.fileno(), writable]
            with os.fdopen(readable, "rb") as ended:
                try:
                    socket.send_fds(self.control, [json.dumps(message).encode()], descriptors)
                finally:
                    os.close(writable)
                status = ended.read(1)
            assert status, "the command was killed"
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(list(arguments), status[0], out.read(), err.read())


@contextmanager
def running_forks(program: str, *modules: str, sources: str) -> Iterator[Forks]:
    """Load a program with these modules and be ready for commands until the block is left."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-P", str(_PROGRAM), program, *modules]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": sources}
    with theirs:
        process = subprocess.Popen(command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, env=environment)
    try:
        with ours:
            yield Forks(ours)
    finally:
        process.wait(_TIMEOUT_SECONDS)


@contextmanager
def loaded_tollhouse() -> Iterator[Forks]:
    """Load the command line, with its commands."""
    names = sorted(path.stem for path in (Path(CLI_SOURCES[1]) / "tollhouse_admin/commands").glob("[a-z]*.py"))
    modules = [f"tollhouse_admin.commands.{name}" for name in names]
    with running_forks("tollhouse_admin", *modules, *_LOADED_BY_USE, sources=os.pathsep.join(CLI_SOURCES)) as forks:
        yield forks


@contextmanager
def loaded_server() -> Iterator[Forks]:
    """Load the server's program, for commands that end by themselves."""
    modules = ("tollhouse_server.serving", "tollhouse_server.embedded.run")
    with running_forks("tollhouse_server", *modules, sources=os.pathsep.join(sys.path)) as forks:
        yield forks


@pytest.fixture(scope="session")
def tollhouse_forks() -> Iterator[Forks]:
    """The command line, with its commands loaded."""
    with loaded_tollhouse() as forks:
        yield forks


@pytest.fixture(scope="session")
def server_forks() -> Iterator[Forks]:
    """The server's program, for commands that end by themselves."""
    with loaded_server() as forks:
        yield forks
