"""Imports that the contracts in pyproject.toml cannot express."""

import ast

from tests.architecture.tree import SERVER, parsed, place, python_files

# A process that was forked, or that became Envoy, puts there what it was handed over.
# The last reads the variable that is prometheus_client's own.
READS_THE_ENVIRONMENT = {"settings.py", "fork_server.py", "envoy_process.py", "multiprocess.py"}


def imported_modules(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_only_upstream_imports_google_genai() -> None:
    """One room knows Google's SDK, so that it can be replaced in one room."""
    importing = [
        place(path)
        for path in python_files(tests=False)
        if "google.genai" in imported_modules(parsed(path)) and not path.is_relative_to(SERVER / "upstream")
    ]

    assert importing == []


def test_only_settings_reads_the_environment() -> None:
    """A setting that is read elsewhere is neither checked nor documented."""
    reading = [
        place(path, node)
        for path in python_files(tests=False)
        if path.is_relative_to(SERVER) and path.name not in READS_THE_ENVIRONMENT
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {"os.environ", "os.getenv"}
    ]

    assert reading == []
