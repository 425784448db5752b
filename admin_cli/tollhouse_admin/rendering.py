"""Protobuf messages as rows: every field by its path, with values that print exactly."""

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, TypeAlias

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from tollhouse_admin.amounts import dollars_of, dollars_of_nanos

Cell: TypeAlias = str | int | bool | Decimal
"""One value of a row. A Decimal is US dollars."""


def cells(message: Message) -> dict[str, Cell]:
    """Return the fields of `message` by path (`current.held`), in the order of the proto; absent ones are left out."""
    return dict(_cells(message, ""))


def _cells(message: Message, prefix: str) -> Iterator[tuple[str, Cell]]:
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        path, value = f"{prefix}{field.name}", getattr(message, field.name)
        if field.is_repeated:
            yield path, _repeated(field, value)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            yield from _nested(path, value)
        elif "nanos" in field.name.split("_"):
            yield prefix + _without_nanos(field.name), dollars_of_nanos(value)
        else:
            yield path, _scalar(field, value)


def _without_nanos(name: str) -> str:
    """Return the name of an amount in nano-dollars as it is called in dollars: `cost_nanos` is `cost`."""
    return "_".join(part for part in name.split("_") if part != "nanos")


def parts(message: Message) -> dict[str, list[dict[str, Cell]]]:
    """Return the lists of messages that `message` has, such as a receipt's lines, each entry as its cells."""
    return {
        field.name: [cells(entry) for entry in getattr(message, field.name)]
        for field in message.DESCRIPTOR.fields
        if field.is_repeated and field.type == FieldDescriptor.TYPE_MESSAGE and not _is_map(field)
    }


def _is_map(field: Any) -> bool:
    return bool(field.message_type.GetOptions().map_entry)


def _nested(path: str, message: Message) -> Iterator[tuple[str, Cell]]:
    simple = _simple(message)
    if simple is None:
        yield from _cells(message, f"{path}.")
    else:
        yield path, simple


def _simple(message: Any) -> Cell | None:
    """Return the one value that `message` stands for, or None when it has parts of its own."""
    match message.DESCRIPTOR.full_name:
        case "google.type.Money":
            return dollars_of(message)
        case "google.type.Date":
            return f"{message.year:04}-{message.month:02}-{message.day:02}"
        case "google.protobuf.Timestamp":
            text: str = message.ToJsonString()
            return text
        case "tollhouse.admin.v1.LimitAmount":
            return dollars_of(message.money) if message.HasField("money") else int(message.units)
        case "google.protobuf.Struct" | "google.protobuf.Value":
            return json.dumps(MessageToDict(message), ensure_ascii=False)
    return None


def _repeated(field: Any, value: Any) -> Cell:
    if isinstance(value, Mapping) or hasattr(value, "items"):
        return ", ".join(f"{key}={value[key]}" for key in sorted(value))
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return json.dumps([MessageToDict(item) for item in value], ensure_ascii=False) if value else ""
    return ", ".join(str(_scalar(field, item)) for item in value)


def _scalar(field: Any, value: Any) -> Cell:
    if field.enum_type is not None:
        return enum_text(field.enum_type, value)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return f"{len(value)} bytes"
    if isinstance(value, float):
        return repr(value)
    cell: Cell = value
    return cell


def enum_text(kind: EnumDescriptor, number: int) -> str:
    """Return an enum value as people type it: STATE_ACTIVE is `active`; a number that is not known yet is itself."""
    value = kind.values_by_number.get(number)
    if value is None:
        return str(number)
    prefix = enum_prefix(kind)
    return "" if number == 0 else value.name.removeprefix(prefix).lower().replace("_", "-")


def enum_prefix(kind: EnumDescriptor) -> str:
    """Return what all values of the enum begin with, such as `LIMIT_WINDOW_`."""
    return kind.values_by_number[0].name.removesuffix("UNSPECIFIED")


def enum_number(kind: EnumDescriptor, text: str) -> int:
    """Return the number of a value as `enum_text` writes it.

    Raises:
        KeyError: there is no such value.
    """
    name = enum_prefix(kind) + text.upper().replace("-", "_")
    number: int = kind.values_by_name[name].number
    return number


def as_json(message: Message) -> dict[str, Any]:
    """Return the proto JSON of `message`, fields with default values included so that the shape is stable."""
    return MessageToDict(message, always_print_fields_with_no_presence=True)
