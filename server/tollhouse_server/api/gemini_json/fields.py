"""One rule for each kind of field: how it takes a JSON value, and how it gives it back.

A `store` function puts a JSON value into a message and returns whether the field holds it exactly; when it returns
False the message is unchanged and the value belongs into `extra`. A `render` function returns the JSON of a field that
is set.
"""

from __future__ import annotations

from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable
from math import isfinite
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from tollhouse_server.api.gemini_json.structs import (
    EXACT_INTEGERS,
    fill_struct,
    fill_value,
    number_to_json,
    struct_to_json,
    value_to_json,
)
from tollhouse_server.long_values import LONG_BYTES, LongMedia

Store = Callable[[Any, Any, int], bool]
Render = Callable[[Any], Any]
Rule = tuple[Store, Render]
Holds = Callable[[Any], bool]


def base64_to_bytes(text: str) -> bytes | None:
    """Decode canonical base64; return None for any text that would not be encoded back identically."""
    try:
        data = a2b_base64(text, strict_mode=True)
    except (Base64Error, ValueError):
        return None
    # The last quantum may carry stray bits, which strict mode lets through.
    tail = len(data) // 3 * 3 if len(data) % 3 else len(data)
    return data if text.endswith(b2a_base64(data[tail:], newline=False).decode()) else None


def bytes_to_base64(data: bytes) -> str | LongMedia:
    """Encode to canonical base64; what is long will be encoded when it is sent."""
    if len(data) > LONG_BYTES:
        return LongMedia((data,))
    return b2a_base64(data, newline=False).decode("ascii")


def is_double(value: Any) -> bool:
    """Tell whether a double field holds `value` exactly; raise ValueError for NaN and infinity."""
    if type(value) is float:
        if not isfinite(value):
            raise ValueError("JSON has no NaN and no infinity")
        return True
    return type(value) is int and -EXACT_INTEGERS <= value <= EXACT_INTEGERS


def _is_string(value: Any) -> bool:
    return type(value) is str


def _is_bool(value: Any) -> bool:
    return type(value) is bool


def _is_int32(value: Any) -> bool:
    return type(value) is int and -(2**31) <= value < 2**31


def _is_int64(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63


HOLDS: dict[int, Holds] = {
    FieldDescriptor.TYPE_STRING: _is_string,
    FieldDescriptor.TYPE_BOOL: _is_bool,
    FieldDescriptor.TYPE_INT32: _is_int32,
    FieldDescriptor.TYPE_INT64: _is_int64,
    FieldDescriptor.TYPE_DOUBLE: is_double,
}


def _unchanged(value: Any) -> Any:
    return value


def scalar_rule(field: FieldDescriptor) -> Rule:
    """Rule of a single string, bool or number."""
    name, holds = field.name, HOLDS[field.type]

    def store(message: Any, value: Any, _depth: int) -> bool:
        if not holds(value):
            return False
        setattr(message, name, value)
        return True

    return store, number_to_json if field.type == FieldDescriptor.TYPE_DOUBLE else _unchanged


def string_rule(field: FieldDescriptor) -> Rule:
    """Rule of a single string: the most frequent one, so it calls nothing."""
    name = field.name

    def store(message: Any, value: Any, _depth: int) -> bool:
        if type(value) is not str:
            return False
        setattr(message, name, value)
        return True

    return store, _unchanged


def bytes_rule(field: FieldDescriptor) -> Rule:
    """Rule of bytes, which JSON writes in base64. What took LongMedia has to be spliced once it is written."""
    name = field.name

    def store(message: Any, value: Any, _depth: int) -> bool:
        if type(value) is LongMedia:
            setattr(message, name, value.marker)
            return True
        data = base64_to_bytes(value) if type(value) is str else None
        if data is None:
            return False
        setattr(message, name, data)
        return True

    return store, bytes_to_base64


def struct_rule(field: FieldDescriptor) -> Rule:
    """Rule of a free-form JSON object."""
    name = field.name

    def store(message: Any, value: Any, depth: int) -> bool:
        if type(value) is not dict:
            return False
        fill_struct(getattr(message, name), value, depth + 1)
        return True

    return store, struct_to_json


def value_rule(field: FieldDescriptor) -> Rule:
    """Rule of any JSON value, null included."""
    name = field.name

    def store(message: Any, value: Any, depth: int) -> bool:
        fill_value(getattr(message, name), value, depth + 1)
        return True

    return store, value_to_json


def scalar_list_rule(field: FieldDescriptor) -> Rule:
    """Rule of a list of strings or numbers; an empty list is not distinguishable from none, so `extra` takes it."""
    name, holds = field.name, HOLDS[field.type]

    def store(message: Any, value: Any, _depth: int) -> bool:
        if type(value) is not list or not value or not all(map(holds, value)):
            return False
        getattr(message, name).extend(value)
        return True

    return store, list
