"""How the code is allowed to look."""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.architecture.tree import parsed, place, python_files

Rule = Callable[[Path, ast.Module], Iterator[str]]

MOST_FUNCTION_LINES = 70
MOST_FILE_LINES = 400
WORDS = {
    "long_functions": re.compile(r"\bdef "),
    "swallowing_handlers": re.compile(r"\bexcept\s*(:|\(?\s*(Base)?Exception)"),
    "ownerless_tasks": re.compile(r"create_task|ensure_future"),
}
VAGUE = {"common", "data", "helpers", "info", "manager", "misc", "util", "utils"}


def long_functions(path: Path, tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MOST_FUNCTION_LINES:
                yield f"{place(path, node)}: {node.name} has {length} lines"


def swallowing_handlers(path: Path, tree: ast.Module) -> Iterator[str]:
    """A handler may catch everything when it raises again, or says beside its `noqa: BLE001` where the error goes."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for node in ast.walk(tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        broad = node.type is None or ast.unparse(node.type) in {"Exception", "BaseException"}
        raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
        if broad and not raises and not re.search(r"# noqa: BLE001\W+\w{2,}", lines[node.lineno - 1]):
            yield f"{place(path, node)}: catches everything and does not raise again"


def ownerless_tasks(path: Path, tree: ast.Module) -> Iterator[str]:
    """A task whose failure nobody sees loses charges: a TaskGroup starts it, or who starts it awaits it."""
    groups = {_last_name(owner) for owner in _task_groups(tree)}
    awaited = {id(call) for function in ast.walk(tree) for call in _awaited_tasks(function)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owned = _last_name(ast.unparse(node.func.value)) in groups or id(node) in awaited
        if node.func.attr in {"create_task", "ensure_future"} and not owned:
            yield f"{place(path, node)}: {ast.unparse(node.func)} starts a task that nobody owns"


def _last_name(expression: str) -> str:
    return expression.rsplit(".", 1)[-1].removeprefix("_")


def _task_groups(tree: ast.Module) -> Iterator[str]:
    """Yield the names that are bound to a TaskGroup: by `async with`, by assignment or by annotation."""
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncWith):
            for item in node.items:
                if item.optional_vars is not None and "TaskGroup" in ast.unparse(item.context_expr):
                    yield ast.unparse(item.optional_vars)
        if isinstance(node, ast.Assign) and "TaskGroup(" in ast.unparse(node.value):
            yield ast.unparse(node.targets[0])
        if isinstance(node, ast.arg) and node.annotation is not None and "TaskGroup" in ast.unparse(node.annotation):
            yield node.arg


def _awaited_tasks(function: ast.AST) -> Iterator[ast.Call]:
    """Yield the calls whose result is given a name that the same function awaits."""
    if not isinstance(function, ast.AsyncFunctionDef):
        return
    awaited = {
        inner.id
        for node in ast.walk(function)
        if isinstance(node, ast.Await)
        for inner in ast.walk(node)
        if isinstance(inner, ast.Name)
    }
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and {ast.unparse(target) for target in node.targets} & awaited:
            yield from (call for call in ast.walk(node.value) if isinstance(call, ast.Call))


def speaks_of(path: Path, rule: Rule) -> bool:
    """Tell whether a file has the words without which nothing in it can break the rule; to parse all takes seconds."""
    return WORDS[rule.__name__].search(path.read_text(encoding="utf-8")) is not None


@pytest.mark.parametrize("rule", [long_functions, swallowing_handlers, ownerless_tasks])
def test_code_keeps_the_rule(rule: Rule) -> None:
    """Functions stay readable, errors reach someone, and every task has an owner."""
    # Tests may own their tasks as they like; they may not hide errors or sprawl.
    files = python_files(tests=rule is not ownerless_tasks)

    found = [line for path in files if speaks_of(path, rule) for line in rule(path, parsed(path))]

    assert found == []


def test_no_file_is_longer_than_its_reader_bears() -> None:
    """A file past the bound holds more than one concept."""
    lengths = {place(path): len(path.read_text(encoding="utf-8").splitlines()) for path in python_files()}

    assert {name: lines for name, lines in lengths.items() if lines > MOST_FILE_LINES} == {}


def test_no_module_has_a_name_that_says_nothing() -> None:
    """What is in `utils` could be anywhere."""
    assert [place(path) for path in python_files() if path.stem in VAGUE] == []


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (long_functions, "def f():\n" + "    x = 1\n" * 80),
        (swallowing_handlers, "try:\n    f()\nexcept Exception:\n    pass\n"),
        (swallowing_handlers, "try:\n    f()\nexcept:\n    pass\n"),
        (ownerless_tasks, "asyncio.create_task(f())\n"),
        (ownerless_tasks, "loop.create_task(f())\n"),
        (ownerless_tasks, "asyncio.ensure_future(f())\n"),
    ],
)
def test_rule_finds_what_it_forbids(rule: Rule, source: str, tmp_path: Path) -> None:
    """A rule that finds nothing anywhere would always hold."""
    assert len(found_in(source, rule, tmp_path)) == 1


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (swallowing_handlers, "try:\n    f()\nexcept Exception as e:  # noqa: BLE001 - the waiter is told\n    g(e)\n"),
        (ownerless_tasks, "async def f():\n    async with TaskGroup() as group:\n        group.create_task(g())\n"),
        (ownerless_tasks, "async def f():\n    task = asyncio.create_task(g())\n    await task\n"),
    ],
)
def test_rule_lets_through_what_has_an_owner(rule: Rule, source: str, tmp_path: Path) -> None:
    """The group or the waiter raises what the task raised; the reason stands beside the handler."""
    assert found_in(source, rule, tmp_path) == []


def found_in(source: str, rule: Rule, directory: Path) -> list[str]:
    file = directory / "sample.py"
    file.write_text(source)
    assert speaks_of(file, rule)
    return list(rule(file, ast.parse(source)))
