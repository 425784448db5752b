"""Values that a Struct cannot hold: set aside as JSON text before the mapping, put back after it.

Only calls that carry such values pay for this; they are told by InexpressibleError.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from tollhouse_server.api.gemini_json.structs import DEEPEST_CONTAINER, is_exact

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tollhouse.v1.generation_pb2 import ExactValue

# JSON nested deeper than this is refused.
DEEPEST_JSON = 100


class SetAside(NamedTuple):
    """A value and the JSON Pointer of its place."""

    pointer: str
    value: Any


def set_aside(root: dict[str, Any]) -> tuple[dict[str, Any], list[SetAside]]:
    """Return a copy of `root` that Structs can hold, and what was taken out; raise ValueError beyond 100 levels."""
    found: list[SetAside] = []
    copy: dict[str, Any] = _expressible(root, "", 0, found)
    return copy, found


def put_back(root: dict[str, Any], exact_values: Iterable[ExactValue]) -> None:
    """Replace the stand-ins in `root` by the exact values; raise ValueError where none stands."""
    for exact in exact_values:
        value = parse(exact.json)
        path = [_unescape(step) for step in exact.pointer.split("/")[1:]]
        if not path or len(path) + nesting(value) > DEEPEST_JSON:
            raise ValueError(f"exact value at {exact.pointer[:80]!r} is the whole message or nested too deep")
        holder, key = _find(root, path)
        if holder is None or not _same(holder[key], stand_in(value)):
            raise ValueError(f"nothing stands in for an exact value at {exact.pointer[:80]!r}")
        holder[key] = value


def parse(text: str) -> Any:
    """Parse strict JSON with integers of any size; raise ValueError for anything else."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("JSON is nested too deep") from None


def stand_in(value: Any) -> float | None:
    """Return what a Struct holds in place of `value`: the nearest double of an integer, else null."""
    try:
        return float(value) if type(value) is int else None
    except OverflowError:
        return None


def nesting(value: Any) -> int:
    """Return the number of container levels in `value`; raise ValueError beyond 100."""
    level, levels = [value], 0
    while level := [inner for outer in level if (inner := _elements(outer)) is not None]:
        levels += 1
        if levels > DEEPEST_JSON:
            raise ValueError("JSON is nested deeper than 100 levels")
        level = [element for elements in level for element in elements]
    return levels


def _elements(value: Any) -> list[Any] | None:
    if type(value) is dict:
        return list(value.values())
    return value if type(value) is list else None


def _expressible(value: Any, pointer: str, depth: int, found: list[SetAside]) -> Any:
    kind = type(value)
    if kind is int and not is_exact(value):
        found.append(SetAside(pointer, value))
        return stand_in(value)
    if kind is not dict and kind is not list:
        return value
    if depth > DEEPEST_CONTAINER:
        if depth + nesting(value) > DEEPEST_JSON:
            raise ValueError("JSON is nested deeper than 100 levels")
        found.append(SetAside(pointer, value))
        return None
    if kind is list:
        return [_expressible(v, f"{pointer}/{i}", depth + 1, found) for i, v in enumerate(value)]
    return {k: _expressible(v, f"{pointer}/{_escape(k)}", depth + 1, found) for k, v in value.items()}


def _find(root: dict[str, Any], path: list[str]) -> tuple[Any, Any]:
    """Return the container of the value at `path` and its key there, or (None, None)."""
    holder: Any = root
    for position, step in enumerate(path):
        key: Any = int(step) if type(holder) is list and step.isascii() and step.isdigit() else step
        inside = key in holder if type(holder) is dict else type(key) is int and key < len(holder)
        if not inside:
            return None, None
        if position == len(path) - 1:
            return holder, key
        holder = holder[key]
        if type(holder) is not dict and type(holder) is not list:
            return None, None
    return None, None


def _same(value: Any, expected: float | None) -> bool:
    if expected is None:
        return value is None
    return type(value) in {int, float} and value == expected


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _unescape(step: str) -> str:
    return step.replace("~1", "/").replace("~0", "~")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
