"""The files of the repository, as the rules look at them."""

import ast
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SERVER = ROOT / "server" / "tollhouse_server"
_GENERATED = re.compile(r"_pb2(_grpc)?\.pyi?$")
_VENDORED = ("protos/buf/",)


def tracked_files() -> list[Path]:
    """Return every file that git tracks, or would track once it is added."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def written_here(path: Path) -> bool:
    """Return whether people wrote this file: not generated, not somebody else's."""
    name = path.relative_to(ROOT).as_posix()
    return not _GENERATED.search(name) and not name.startswith(_VENDORED)


def python_files(*, tests: bool = True) -> list[Path]:
    """Return the Python files written here."""
    return [
        path
        for path in tracked_files()
        if path.suffix == ".py" and written_here(path) and (tests or "tests" not in path.relative_to(ROOT).parts)
    ]


def parsed(path: Path) -> ast.Module:
    """Return the syntax tree of one file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def place(path: Path, node: ast.AST | None = None) -> str:
    """Return `path:line` as an editor takes it."""
    name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
    return f"{name}:{getattr(node, 'lineno', 1)}" if node is not None else name
