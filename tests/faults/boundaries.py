"""Every place where a worker waits for the world, found in the code and not by hand.

One walk over the syntax tree does both: it lists the boundaries and it rewrites the module so that each one is passed
through a gate. So the list and what is struck cannot differ.
"""

import ast
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tollhouse_server

ROOT = Path(tollhouse_server.__file__).parent
PLACES = ("ledger", "generation", "upstream", "database/engine.py")
"""What a worker does between a call's arrival and its answer."""

CUSTODY_PLACES = ("custody", "custody/providers", "database/engine.py")
"""What a housekeeper does to rotate keys."""

GATE = "__gate__"
"""The global under which a rewritten module finds the gate."""


@dataclass(frozen=True, slots=True, order=True)
class Boundary:
    """One point at which a task gives way: an await, the entry or exit of `async with`, a step of `async for`.

    `name` counts within the function, so that it outlives changes elsewhere in the file.
    """

    file: str
    function: str
    kind: str
    number: int
    line: int

    @property
    def name(self) -> str:
        """Return what the boundary is called in reports and arguments."""
        return f"{self.file}:{self.function}:{self.kind}{self.number}"


def files(among: Sequence[str] = PLACES) -> list[Path]:
    """Return the files that are looked at."""
    places = [ROOT / place for place in among]
    return sorted(path for place in places for path in ([place] if place.is_file() else place.glob("*.py")))


def module_name(path: Path) -> str:
    """Return the name under which a file is imported."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def all_boundaries() -> list[Boundary]:
    """Return every boundary of the rooms, in the order of the code."""
    return [boundary for path in files() for boundary in boundaries_of(path)]


def boundaries_of(path: Path) -> Iterator[Boundary]:
    """Yield the boundaries of one file."""
    yield from rewritten(path)[1]


def rewritten(path: Path) -> tuple[ast.Module, list[Boundary]]:
    """Return the file's tree with a gate at each boundary, and the boundaries."""
    writer = _GateWriter(path.relative_to(ROOT).as_posix())
    tree = writer.visit(ast.parse(path.read_text(encoding="utf-8"), filename=str(path)))
    return ast.fix_missing_locations(tree), writer.found


class _GateWriter(ast.NodeTransformer):
    def __init__(self, file: str) -> None:
        self._file = file
        self._function: list[str] = []
        self._numbers: Counter[tuple[str, str]] = Counter()
        self.found: list[Boundary] = []

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._within(node, node.name)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._within(node, node.name)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._within(node, node.name)

    def visit_Await(self, node: ast.Await) -> ast.AST:
        name = self._note("await", node)
        self.generic_visit(node)
        node.value = self._gate("wait", node.value, name)
        return node

    def visit_AsyncWith(self, node: ast.AsyncWith) -> ast.AST:
        names = [(self._note("enter", node), self._note("exit", node)) for _ in node.items]
        self.generic_visit(node)
        for item, (enters, exits) in zip(node.items, names, strict=True):
            item.context_expr = self._gate("around", item.context_expr, enters, exits)
        return node

    def visit_AsyncFor(self, node: ast.AsyncFor) -> ast.AST:
        name = self._note("next", node)
        self.generic_visit(node)
        node.iter = self._gate("steps", node.iter, name)
        return node

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        name = self._note("next", node.iter) if node.is_async else ""
        self.generic_visit(node)
        if name:
            node.iter = self._gate("steps", node.iter, name)
        return node

    def _within(self, node: ast.AST, name: str) -> ast.AST:
        self._function.append(name)
        self.generic_visit(node)
        self._function.pop()
        return node

    def _note(self, kind: str, node: ast.AST) -> str:
        function = ".".join(self._function) or "module"
        self._numbers[function, kind] += 1
        boundary = Boundary(
            file=self._file,
            function=function,
            kind=kind,
            number=self._numbers[function, kind],
            line=getattr(node, "lineno", 0),
        )
        self.found.append(boundary)
        return boundary.name

    @staticmethod
    def _gate(method: str, wrapped: ast.expr, *names: str) -> ast.expr:
        gate = ast.Attribute(value=ast.Name(id=GATE, ctx=ast.Load()), attr=method, ctx=ast.Load())
        call = ast.Call(func=gate, args=[*(ast.Constant(name) for name in names), wrapped], keywords=[])
        return ast.copy_location(call, wrapped)
