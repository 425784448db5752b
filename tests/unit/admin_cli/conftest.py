"""Runs the command line in this process, in a home of its own."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tollhouse_admin.__main__ import execute

from tests.unit.admin_cli.canned import CannedServer, canned_server

KEY = "th_live_abcdefgh2345_verysecretpart"


@dataclass(frozen=True, slots=True)
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home and working directory, and none of the user's own settings."""
    for name in ("ENDPOINT", "API_KEY", "PROFILE", "TENANT", "CA_FILE"):
        monkeypatch.delenv(f"TOLLHOUSE_{name}", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run("tenants", "list", stdin="...")` executes a command and returns its exit code and output."""

    def command(*arguments: str, stdin: str = "") -> Result:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        capsys.readouterr()
        code = execute(arguments)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return command


@pytest.fixture
def server(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CannedServer]:
    """A canned server that the command line is configured for by its environment."""
    with canned_server() as canned:
        monkeypatch.setenv("TOLLHOUSE_ENDPOINT", canned.target)
        monkeypatch.setenv("TOLLHOUSE_API_KEY", KEY)
        yield canned
