"""The program `tollhouse` against the running server, and companies made with it."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tollhouse_admin.__main__ import execute

from tests.drivers.forks import Forks
from tests.drivers.sources import CLI_SOURCES, ROOT
from tests.drivers.stack import RunningStack

__all__ = ["ROOT", "SOURCES", "CommandLine", "Company", "administrators", "company", "tollhouse"]

SOURCES = os.pathsep.join(CLI_SOURCES)


@dataclass(frozen=True, slots=True)
class CommandLine:
    """The program `tollhouse` as another process, with a home of its own; without `forks` Python is started for it."""

    environment: dict[str, str]
    directory: Path
    forks: Forks | None = None

    def __call__(self, *arguments: str, key: str = "", stdin: str = "") -> "subprocess.CompletedProcess[str]":
        """Run a command; `key` replaces the administrator's."""
        environment = {**self.environment, **({"TOLLHOUSE_API_KEY": key} if key else {})}
        if self.forks is not None:
            return self.forks.run(arguments, environment=environment, directory=self.directory, stdin=stdin)
        command = [sys.executable, "-m", "tollhouse_admin", *arguments]
        return subprocess.run(
            command,
            env=environment,
            cwd=self.directory,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def ok(self, *arguments: str, key: str = "", stdin: str = "") -> str:
        """Run a command that must succeed and return its stdout."""
        ended = self(*arguments, key=key, stdin=stdin)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def json(self, *arguments: str, key: str = "") -> Any:
        """Run a command that must succeed and return its JSON."""
        return json.loads(self.ok(*arguments, "-o", "json", key=key))


@pytest.fixture
def tollhouse(running_stack: RunningStack, tmp_path: Path, tollhouse_forks: Forks) -> CommandLine:
    """The command line of the platform's administrator."""
    return administrators(running_stack, tmp_path, tollhouse_forks)


def administrators(stack: RunningStack, directory: Path, forks: Forks | None = None) -> CommandLine:
    """Return the command line of the administrator of a server."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": SOURCES,
        "XDG_CONFIG_HOME": str(directory),
        "TOLLHOUSE_ENDPOINT": stack.grpc,
        "TOLLHOUSE_API_KEY": stack.admin_api_key,
    }
    return CommandLine(environment=environment, directory=directory, forks=forks)


@dataclass(frozen=True, slots=True)
class Company:
    """A tenant of one test: department research, project chat, and a key of that project."""

    tenant: str
    key: str

    @property
    def department(self) -> str:
        """Resource name of the department."""
        return f"tenants/{self.tenant}/departments/research"


@pytest.fixture
def company(tollhouse: CommandLine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Company:
    """A new company, made through the command line alone: in this process, which spares six starts of Python."""
    for name, value in tollhouse.environment.items():
        monkeypatch.setenv(name, value)
    tenant = f"acme-{uuid4().hex[:8]}"
    here = ("--tenant", tenant, "--department", "research")
    commands = [
        ("tenants", "create", tenant, "--display-name", "Acme"),
        ("departments", "create", "research", "--tenant", tenant),
        ("projects", "create", "chat", *here),
        ("principals", "create", "chat-service", "--tenant", tenant),
        ("roles", "grant", "chat-service", "caller", *here, "--project", "chat"),
        ("keys", "create", "--principal", "chat-service", *here, "--project", "chat", "-o", "json"),
    ]
    for command in commands:
        capsys.readouterr()
        assert execute(command) == 0, capsys.readouterr().err
    return Company(tenant=tenant, key=json.loads(capsys.readouterr().out)["secret"])
