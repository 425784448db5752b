"""The variables of the command line and of the server live in one shell."""

import re
from pathlib import Path

from tollhouse_server.settings import unknown_variables

_CLI = Path(__file__).parents[2] / "admin_cli" / "tollhouse_admin"


def test_the_server_takes_the_command_lines_variables_for_no_mistake() -> None:
    """Who exports TOLLHOUSE_TENANT for the command line can still start the server."""
    names = {name for path in _CLI.rglob("*.py") for name in re.findall(r"TOLLHOUSE_[A-Z_]+", path.read_text())}

    assert names
    assert unknown_variables(names) == ()


def test_a_misspelt_setting_is_named() -> None:
    """A limit that is silently ignored is worse than a server that does not start."""
    [violation] = unknown_variables({"TOLLHOUSE_WORKER", "HOME"})

    assert violation.path == "TOLLHOUSE_WORKER"
