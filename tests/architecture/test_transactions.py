"""Whoever serves a caller says whose rows he means."""

import ast
from pathlib import Path

from tests.architecture.tree import SERVER

BACKGROUND = {
    "department_moves.py": "scheduled moves, of whichever tenants are due",
    "tenant_purges.py": "tenants whose retention has ended",
}
"""Files of `api` with work that serves no caller, and what it is."""


def transactions_in(path: Path) -> list[str]:
    """Return where a file opens a transaction on every tenant's rows."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return [
        f"{path.name}:{call.lineno}"
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr == "transaction"
    ]


def test_handlers_open_transactions_within_their_callers_domain() -> None:
    """`Database.transaction` sees the rows of all tenants; `within` those that the caller was admitted to."""
    files = {path: transactions_in(path) for path in sorted((SERVER / "api").rglob("*.py"))}

    assert {path.name for path, found in files.items() if found} == {*BACKGROUND}


def test_a_room_that_serves_callers_opens_none_either() -> None:
    """Rooms below `api` that are handed a database to serve a call with it."""
    assert [found for path in (SERVER / "devices").glob("*.py") for found in transactions_in(path)] == []
