"""Values that are valid for a schema, in OpenAPI form (`responseSchema`) or JSON Schema (`responseJsonSchema`)."""

from __future__ import annotations

import math
from typing import Any

from tollhouse_server.simulator.errors import JsonObject, invalid_argument
from tollhouse_server.simulator.prompts import Dice

_DEPTH_LIMIT = 5
_HARD_DEPTH_LIMIT = 12
_SIZE_LIMIT = 10_000
_VALUES_LIMIT = 20_000
_WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "harbor", "iris", "juniper")
_FORMATS = {
    "date-time": "2026-11-03T09:30:00Z",
    "date": "2026-11-03",
    "time": "09:30:00Z",
    "duration": "PT90S",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "uuid": "0b6f1f8e-8f3c-4f0e-9d55-3a1f4f0c2a11",
    "ipv4": "192.0.2.7",
    "ipv6": "2001:db8::7",
    "hostname": "example.com",
}


def value_for(schema: JsonObject, dice: Dice) -> Any:
    """Give a value valid for the schema, or raise a 400 for a schema that cannot be read.

    `pattern` is not honoured; a recursion ends at depth 5 where the schema lets it.
    """
    try:
        return _Writer(schema, dice).value(schema, "$", 0)
    except (TypeError, ValueError, AttributeError, KeyError, ArithmeticError, RecursionError) as error:
        raise invalid_argument(f"Invalid schema: {type(error).__name__}") from error


class _Writer:
    def __init__(self, root: JsonObject, dice: Dice) -> None:
        self._root = root
        self._dice = dice
        self._left = _VALUES_LIMIT

    def value(self, given: Any, path: str, depth: int) -> Any:
        self._left -= 1
        if self._left < 0:
            raise ValueError("too many values")
        schema = self._resolved(given)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return self._dice.choose(path, schema["enum"])
        for name in ("anyOf", "oneOf", "any_of"):
            if schema.get(name):
                return self.value(self._option(schema[name], path, depth), path, depth)
        return self._typed(schema, path, depth)

    def _typed(self, schema: JsonObject, path: str, depth: int) -> Any:
        kind = _kind(schema)
        if kind == "object":
            return self._object(schema, path, depth)
        if kind == "array":
            return self._array(schema, path, depth)
        if kind in {"integer", "number"}:
            return self._number(schema, path, whole=kind == "integer")
        if kind == "boolean":
            return bool(self._dice.draw(path) & 1)
        return None if kind == "null" else self._string(schema, path)

    def _resolved(self, given: Any) -> JsonObject:
        schema: JsonObject = given if isinstance(given, dict) else {}
        seen = 0
        while "$ref" in schema and seen < _HARD_DEPTH_LIMIT:
            target: Any = self._root
            for step in schema["$ref"].lstrip("#/").split("/"):
                target = target.get(step, {}) if isinstance(target, dict) and step else target
            schema = {
                **(target if isinstance(target, dict) else {}),
                **{k: v for k, v in schema.items() if k != "$ref"},
            }
            seen += 1
        for part in schema.get("allOf", ()):
            schema = _merged(schema, self._resolved(part))
        return schema

    def _option(self, options: list[Any], path: str, depth: int) -> Any:
        if depth >= _DEPTH_LIMIT:
            # The way out of a recursion is its plainest branch.
            return min(options, key=lambda each: _kind(self._resolved(each)) in {"object", "array"})
        real = [each for each in options if _kind(self._resolved(each)) != "null"]
        return self._dice.choose(path, real or options)

    def _object(self, schema: JsonObject, path: str, depth: int) -> JsonObject:
        properties = schema.get("properties") or {}
        required = set(schema.get("required") or ())
        order = schema.get("propertyOrdering") or list(properties)
        names = [name for name in order if name in properties]
        if depth >= _DEPTH_LIMIT:
            names = [name for name in names if name in required]
        if depth >= _HARD_DEPTH_LIMIT:
            names = []
        made = {name: self.value(properties[name], f"{path}.{name}", depth + 1) for name in names}
        extra = schema.get("additionalProperties")
        if isinstance(extra, dict) and not properties and depth < _DEPTH_LIMIT:
            made[self._dice.choose(f"{path}.*", _WORDS)] = self.value(extra, f"{path}.*", depth + 1)
        return made

    def _array(self, schema: JsonObject, path: str, depth: int) -> list[Any]:
        fixed = schema.get("prefixItems") or []
        made = [self.value(each, f"{path}[{index}]", depth + 1) for index, each in enumerate(fixed)]
        low = _size(schema.get("minItems"))
        high = int(schema.get("maxItems") or max(low, 3))
        wanted = low if depth >= _DEPTH_LIMIT else max(low, min(high, self._dice.between(f"{path}#", 1, 3)))
        items = schema.get("items")
        if isinstance(items, dict) or not fixed:
            start = len(made)
            made += [self.value(items or {}, f"{path}[{index}]", depth + 1) for index in range(start, wanted)]
        return made

    def _number(self, schema: JsonObject, path: str, *, whole: bool) -> int | float:
        low, high = _bounds(schema, whole=whole)
        step = schema.get("multipleOf")
        if step:
            first = math.ceil(low / step)
            return self._dice.between(path, first, max(first, math.floor(high / step))) * step  # type: ignore[no-any-return]
        if whole:
            return self._dice.between(path, math.ceil(low), max(math.ceil(low), math.floor(high)))
        return low + (high - low) * self._dice.between(path, 0, 1_000) / 1_000

    def _string(self, schema: JsonObject, path: str) -> str:
        known = _FORMATS.get(schema.get("format", ""))
        if known:
            return known
        text = f"{self._dice.choose(path, _WORDS)} {self._dice.choose(path + '+', _WORDS)}"
        low, high = _size(schema.get("minLength")), schema.get("maxLength")
        text = text.ljust(low, "x")
        return text if high is None else text[: int(high)]


def _size(value: Any) -> int:
    size = int(value or 0)
    if size > _SIZE_LIMIT:
        raise ValueError(size)
    return size


def _kind(schema: JsonObject) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((each for each in kind if each != "null"), "null")
    if kind is None:
        kind = "object" if "properties" in schema else "array" if "items" in schema else "string"
    return str(kind).lower()


def _bounds(schema: JsonObject, *, whole: bool) -> tuple[float, float]:
    gap = 1 if whole else 0.001
    low = schema.get("minimum")
    if schema.get("exclusiveMinimum") is not None:
        low = max(float(schema["exclusiveMinimum"]) + gap, float(low if low is not None else -math.inf))
    high = schema.get("maximum")
    if schema.get("exclusiveMaximum") is not None:
        high = min(float(schema["exclusiveMaximum"]) - gap, float(high if high is not None else math.inf))
    if low is None:
        low = min(1.0, float(high)) if high is not None else 1.0
    if high is None:
        high = float(low) + 99
    return float(low), float(high)


def _merged(one: JsonObject, other: JsonObject) -> JsonObject:
    merged = {**other, **one}
    merged["properties"] = {**(other.get("properties") or {}), **(one.get("properties") or {})}
    merged["required"] = [*(other.get("required") or ()), *(one.get("required") or ())]
    merged.pop("allOf", None)
    return merged
