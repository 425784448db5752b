"""Values drawn from schemas, judged by an independent validator."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from tollhouse_server.simulator.prompts import Dice
from tollhouse_server.simulator.schema_values import value_for

SCHEMAS: dict[str, dict[str, Any]] = {
    "object": {
        "type": "object",
        "properties": {
            "id": {"type": "integer", "minimum": 10, "exclusiveMaximum": 12},
            "ratio": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
            "name": {"type": "string", "minLength": 30, "maxLength": 31},
            "day": {"type": "string", "format": "date"},
            "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 4},
            "nested": {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]},
        },
        "required": ["id", "ratio", "name", "day", "tags", "nested"],
        "additionalProperties": False,
    },
    "choice": {"anyOf": [{"type": "null"}, {"type": "integer", "multipleOf": 7, "minimum": 8}]},
    "type list": {"type": ["string", "null"], "maxLength": 3},
    "map": {"type": "object", "additionalProperties": {"type": "integer"}},
    "tuple": {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": False},
    "all of": {"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}]},
    "constant": {"const": {"deep": [1]}},
    "recursive": {
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "left": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                    "value": {"type": "integer"},
                },
                "required": ["left", "value"],
            }
        },
        "$ref": "#/$defs/node",
    },
}


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("seed", range(8))
def test_a_value_is_valid_for_its_json_schema(name: str, seed: int) -> None:
    """An independent validator agrees."""
    value = value_for(SCHEMAS[name], Dice(bytes([seed]) * 32))

    assert list(jsonschema.Draft202012Validator(SCHEMAS[name]).iter_errors(value)) == []


def test_a_value_follows_an_openapi_schema_in_its_order() -> None:
    """Upper-case types, enums and propertyOrdering are Gemini's own form."""
    schema = {
        "type": "OBJECT",
        "properties": {"b": {"type": "STRING", "enum": ["x"]}, "a": {"type": "INTEGER"}},
        "propertyOrdering": ["a", "b"],
    }

    value = value_for(schema, Dice(b"0" * 32))

    assert list(value) == ["a", "b"]
    assert value["b"] == "x"
