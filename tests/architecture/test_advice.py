"""What the checks tell people to type is there to be typed."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHECKS = [
    *sorted((ROOT / "server" / "tollhouse_server" / "operations").rglob("*.py")),
    ROOT / "admin_cli" / "tollhouse_admin" / "doctor_checks.py",
]
COMMANDS = set(re.findall(r"^#{2,} tollhouse (.+)$", (ROOT / "docs" / "cli.md").read_text(), re.MULTILINE))


def advised() -> Iterator[str]:
    """Every command of `tollhouse` in a text of the checks, without its arguments."""
    for path in CHECKS:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield from re.findall(r"\btollhouse ((?:[a-z-]+ ?)+)", node.value)


@pytest.mark.parametrize("text", sorted({text.strip() for text in advised()}))
def test_the_command_line_has_what_checks_advise(text: str) -> None:
    """A command that is not there is the worst advice of all."""
    words = text.split()

    assert any(" ".join(words[:length]) in COMMANDS for length in range(len(words), 0, -1)), text
    # A group alone is no command: where one follows, it must be there too.
    assert " ".join(words[:2]) in COMMANDS or len(words) == 1, text
