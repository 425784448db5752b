"""From Gemini's schema (a part of OpenAPI 3.0, types in capitals) to JSON Schema."""

from collections.abc import Mapping
from typing import Any

from tollhouse_server.upstream.openai_members import inexpressible

_DEEPEST = 64
_COUNTS = frozenset({"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"})
_LISTS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_SCHEMAS = frozenset({"items", "additionalProperties", "not"})
_NAMED = frozenset({"properties", "$defs", "defs"})
_SPELT_OTHERWISE = {"defs": "$defs", "ref": "$ref"}
# Formats that say how protobuf stores a value, not which values there are.
_STORAGE_FORMATS = frozenset({"int32", "int64", "float", "double", "enum"})


def json_schema(schema: object, place: str, depth: int = 0) -> Any:
    """Return a schema of Gemini's as JSON Schema; members that JSON Schema has by the same name stay as they are.

    Raises:
        Refused: it is nested too deep.
    """
    if not isinstance(schema, Mapping):
        return schema
    if depth > _DEEPEST:
        raise inexpressible(place, "is nested too deep")
    translated: dict[str, Any] = {}
    for name, value in schema.items():
        if value is not None:
            translated |= _member(name, value, place, depth)
    if schema.get("nullable") is True:
        _allow_null(translated)
    return _ordered(translated, schema.get("propertyOrdering"))


def _member(name: str, value: Any, place: str, depth: int) -> dict[str, Any]:
    if name in {"nullable", "propertyOrdering"}:
        return {}
    if name == "type" and isinstance(value, str):
        return {} if value.upper() == "TYPE_UNSPECIFIED" else {"type": value.lower()}
    if name == "format" and str(value) in _STORAGE_FORMATS:
        return {}
    if name == "example":
        return {"examples": [value]}
    # Protobuf's JSON writes 64-bit counts as strings.
    if name in _COUNTS and isinstance(value, str) and value.isdecimal():
        return {name: int(value)}
    return {_SPELT_OTHERWISE.get(name, name): _inner(name, value, f"{place}.{name}", depth + 1)}


def _inner(name: str, value: Any, place: str, depth: int) -> Any:
    if name in _SCHEMAS:
        return json_schema(value, place, depth)
    if name in _LISTS and isinstance(value, list):
        return [json_schema(item, place, depth) for item in value]
    if name in _NAMED and isinstance(value, Mapping):
        return {key: json_schema(item, place, depth) for key, item in value.items()}
    return value


def _allow_null(schema: dict[str, Any]) -> None:
    if isinstance(schema.get("type"), str):
        schema["type"] = [schema["type"], "null"]
    if isinstance(schema.get("enum"), list) and None not in schema["enum"]:
        schema["enum"] = [*schema["enum"], None]
    if isinstance(schema.get("anyOf"), list):
        schema["anyOf"] = [*schema["anyOf"], {"type": "null"}]


def _ordered(schema: dict[str, Any], ordering: object) -> dict[str, Any]:
    """Write properties in the order asked for: servers that bind the answer to a grammar write them so."""
    properties = schema.get("properties")
    if not isinstance(ordering, list) or not isinstance(properties, dict):
        return schema
    first = [name for name in ordering if isinstance(name, str) and name in properties]
    schema["properties"] = {name: properties[name] for name in dict.fromkeys([*first, *properties])}
    return schema
