"""The program as it is started: what it loads, how it ends, and that its reference is current."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tollhouse_admin.__main__ import COMMANDS, execute
from tollhouse_admin.profiles import Configuration, Profile, save
from tollhouse_admin.reference import document

ROOT = Path(__file__).resolve().parents[3]
SOURCES = os.pathsep.join(str(ROOT / folder) for folder in ("protos", "admin_cli"))


def start(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the command line importable and the server not."""
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": SOURCES, "HOME": "/nonexistent", **environment}
    return subprocess.run(  # noqa: PLW1510 - the exit code is looked at
        [sys.executable, "-c", code, *arguments], env=variables, capture_output=True, text=True, timeout=60, cwd="/"
    )


def test_help_needs_neither_grpc_nor_stubs() -> None:
    """It must come at once."""
    program = start(
        "import sys; from tollhouse_admin.__main__ import execute; execute(['--help']);"
        "print([name for name in sys.modules if name.split('.')[0] in ('grpc', 'google', 'tollhouse')])"
    )

    assert program.stdout.splitlines()[-1] == "[]"
    assert all(name in program.stdout for name in COMMANDS)


def test_no_command_needs_the_server_package() -> None:
    """The command line is installed without it."""
    program = start(
        "import sys; from tollhouse_admin.__main__ import COMMANDS, load; [load(name) for name in COMMANDS];"
        "print('tollhouse_server' in sys.modules)"
    )

    assert (program.stdout, program.stderr) == ("False\n", "")


def test_the_program_ends_with_the_exit_code_and_no_traceback() -> None:
    """What a shell sees."""
    program = start(
        "import sys; from tollhouse_admin.__main__ import main; sys.exit(main())",
        *("tenants", "list"),
        TOLLHOUSE_ENDPOINT="127.0.0.1:1",
        TOLLHOUSE_API_KEY="th_live_abcdefgh2345_secret",
    )

    assert program.returncode == 7
    assert program.stderr.startswith("error: UNAVAILABLE")
    assert program.stderr.count("\n") == 1


def test_a_fault_of_our_own_is_one_line_too() -> None:
    """With --verbose there is more."""
    program = start(
        "import sys, tollhouse_admin.__main__ as cli; cli.execute = lambda _: 1 / 0; sys.exit(cli.main())", "tenants"
    )

    assert program.returncode == 1
    assert program.stderr.startswith("error: INTERNAL: ZeroDivisionError")
    assert program.stderr.count("\n") == 1


def test_a_reader_that_stops_is_no_error(tmp_path: Path) -> None:
    """`tollhouse ... | head -1` ends quietly, however much there would be."""
    profile = Profile(endpoint="gateway.acme:443", ca_file="/x" * 200)
    save(Configuration(profiles={f"p{n}": profile for n in range(1000)}), tmp_path / "tollhouse/config.toml")
    command = f"{sys.executable} -m tollhouse_admin config list -o json | head -1; exit ${{PIPESTATUS[0]}}"
    environment = {"PYTHONPATH": SOURCES, "PATH": os.environ["PATH"], "XDG_CONFIG_HOME": str(tmp_path)}

    ended = subprocess.run(  # noqa: PLW1510 - the exit code is looked at
        ["bash", "-c", command], env=environment, capture_output=True, text=True, timeout=60
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "[\n", "")


@pytest.mark.parametrize("arguments", [[], ["tenants"], ["usage", "--help"], ["limits", "create", "--help"]])
def test_who_gives_nothing_gets_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Instead of an error."""
    assert execute(arguments) == 0
    assert "Usage: tollhouse" in capsys.readouterr().out


def test_the_shell_completes_nouns_and_verbs() -> None:
    """Through typer's own protocol."""
    program = start(
        "import sys; from tollhouse_admin.__main__ import main; sys.exit(main())",
        _TOLLHOUSE_COMPLETE="complete_bash",
        COMP_WORDS="tollhouse limits cr",
        COMP_CWORD="2",
    )

    assert program.stdout.split() == ["create"]


def test_the_reference_is_current() -> None:
    """docs/cli.md is written from the commands."""
    assert (ROOT / "docs/cli.md").read_text() == document()
