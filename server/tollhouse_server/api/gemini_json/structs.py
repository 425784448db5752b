"""Free-form JSON in google.protobuf.Struct and Value, and what these cannot hold."""

from __future__ import annotations

from math import copysign, isfinite
from typing import TYPE_CHECKING, Any

from tollhouse_server.long_values import LongMedia

if TYPE_CHECKING:
    from google.protobuf.struct_pb2 import Struct, Value

# protobuf parsers give up beyond 100 nested messages, and one level of JSON takes up to three of them in a Struct
# (Struct, map entry, Value). Members at level 32 and above therefore always parse back.
DEEPEST_CONTAINER = 31

# Integers up to here are exact in a double, and so are their neighbours.
EXACT_INTEGERS = 2**53


class InexpressibleError(ValueError):
    """A Struct cannot hold the value: an integer that no double equals, or nesting that no parser takes back."""


def is_exact(number: int) -> bool:
    """Tell whether a double holds `number` exactly."""
    if -EXACT_INTEGERS <= number <= EXACT_INTEGERS:
        return True
    try:
        return int(float(number)) == number
    except OverflowError:
        return False


def number_to_json(number: float) -> float | int:
    """Return a whole number as int, as Google prints it; -0.0 and what lies beyond exact integers stay float."""
    if number.is_integer() and -EXACT_INTEGERS <= number <= EXACT_INTEGERS:
        return int(number) if number or copysign(1.0, number) > 0 else number
    return number


def fill_struct(target: Struct, members: dict[str, Any], depth: int) -> None:
    """Copy a JSON object at nesting `depth` into `target`; raise ValueError for what is not JSON."""
    if depth > DEEPEST_CONTAINER:
        raise InexpressibleError("nested too deep for a Struct")
    fields = target.fields
    for name, value in members.items():
        fill_value(fields[name], value, depth + 1)
    if not members:
        target.SetInParent()


def fill_value(target: Value, value: Any, depth: int) -> None:
    """Copy any JSON value at nesting `depth` into `target`; raise ValueError for what is not JSON."""
    kind = type(value)
    if kind is str:
        target.string_value = value
    elif kind is dict:
        fill_struct(target.struct_value, value, depth)
    elif kind is int or kind is float:
        _fill_number(target, value)
    elif kind is bool:
        target.bool_value = value
    elif kind is list:
        _fill_list(target, value, depth)
    elif value is None:
        target.null_value = 0  # type: ignore[assignment]  # the only value of NullValue
    elif kind is LongMedia:
        target.string_value = str(value)
    else:
        raise ValueError(f"{kind.__name__} is not a JSON value")


def _fill_number(target: Value, number: float) -> None:
    if type(number) is int and not is_exact(number):
        raise InexpressibleError("an integer that no double equals")
    if not isfinite(number):
        raise ValueError("JSON has no NaN and no infinity")
    target.number_value = number


def _fill_list(target: Value, elements: list[Any], depth: int) -> None:
    if depth > DEEPEST_CONTAINER:
        raise InexpressibleError("nested too deep for a Struct")
    target.list_value.SetInParent()
    values = target.list_value.values
    for element in elements:
        fill_value(values.add(), element, depth + 1)


def struct_to_json(struct: Struct) -> dict[str, Any]:
    """Return the JSON object that `struct` holds."""
    return {name: value_to_json(value) for name, value in struct.fields.items()}


def value_to_json(value: Value) -> Any:
    """Return the JSON value that `value` holds; a Value without a kind is null."""
    match value.WhichOneof("kind"):
        case "string_value":
            return value.string_value
        case "number_value":
            return number_to_json(value.number_value)
        case "struct_value":
            return struct_to_json(value.struct_value)
        case "bool_value":
            return value.bool_value
        case "list_value":
            return [value_to_json(element) for element in value.list_value.values]
        case _:
            return None
