"""Compiles message descriptors into tables once, and maps Gemini's REST JSON to messages and back with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor

from tollhouse_server.api.gemini_json.exact import put_back, set_aside
from tollhouse_server.api.gemini_json.fields import (
    Render,
    Rule,
    Store,
    bytes_rule,
    scalar_list_rule,
    scalar_rule,
    string_rule,
    struct_rule,
    value_rule,
)
from tollhouse_server.api.gemini_json.structs import DEEPEST_CONTAINER, InexpressibleError, fill_value, value_to_json

if TYPE_CHECKING:
    from google.protobuf.message import Message

M = TypeVar("M", bound="Message")

# The number of `extra` in every message: lower ones mirror Gemini's JSON, higher ones are Tollhouse's own.
EXTRA = 100

SINGLE_RULES: dict[int, Callable[[FieldDescriptor], Rule]] = {
    FieldDescriptor.TYPE_STRING: string_rule,
    FieldDescriptor.TYPE_BYTES: bytes_rule,
}
FREE_FORM_RULES: dict[str, Callable[[FieldDescriptor], Rule]] = {
    "google.protobuf.Struct": struct_rule,
    "google.protobuf.Value": value_rule,
}


class Mapper:
    """Maps between Gemini's REST JSON, as orjson parses it, and the messages that mirror it.

    Both directions together are the identity: what a typed field cannot hold travels in `extra`, and what a Struct
    cannot hold in the `exact_values` of requests and responses. The tables are built when a message type is first seen
    and never change, so one Mapper serves all calls of a process.
    """

    def __init__(self) -> None:
        self._shapes: dict[str, Shape] = {}
        self.extras_read = 0
        """How many members of `extra` were rendered: where there was none, every name is a field's own."""

    def to_message(self, body: dict[str, Any], message_type: type[M]) -> M:
        """Return `body` as a message; raise ValueError when it is no JSON object or nested deeper than 100 levels."""
        if type(body) is not dict:
            raise ValueError("not a JSON object")
        shape = self.shape(message_type.DESCRIPTOR)
        message = message_type()
        try:
            shape.fill(message, body, 0)
        except InexpressibleError:
            return self._to_message_with_exact_values(body, message_type)
        return message

    def to_json(self, message: Message) -> dict[str, Any]:
        """Return Gemini's part of `message` as its REST JSON; raise ValueError when `extra` repeats a typed field."""
        body = self.shape(message.DESCRIPTOR).render(message)
        exact_values = getattr(message, "exact_values", None)
        if exact_values:
            put_back(body, exact_values)
        return body

    def to_canonical_json(self, message: Message) -> dict[str, Any]:
        """Do as `to_json`, with known members of `extra` under their lowerCamel names: see `canonical`."""
        before = self.extras_read
        body = self.to_json(message)
        return body if self.extras_read == before else self.canonical(body, type(message))

    def canonical(self, body: dict[str, Any], message_type: type[Message]) -> dict[str, Any]:
        """Return `body` with known members under their lowerCamel names; raise ValueError where both spellings occur.

        Google takes snake_case as well; whoever reads a limit or counts media in a body must not miss that spelling.
        """
        renamed: dict[str, Any] = self.shape(message_type.DESCRIPTOR).canonical(body)
        return renamed

    def shape(self, descriptor: Any) -> Shape:
        """Return the table of a message type, compiled on first use."""
        shape = self._shapes.get(descriptor.full_name)
        if shape is None:
            shape = self._shapes[descriptor.full_name] = Shape(self)
            shape.compile(descriptor)
        return shape

    def _to_message_with_exact_values(self, body: dict[str, Any], message_type: type[M]) -> M:
        expressible, aside = set_aside(body)
        message = message_type()
        self.shape(message_type.DESCRIPTOR).fill(message, expressible, 0)
        exact_values = getattr(message, "exact_values", None)
        if exact_values is None:
            raise ValueError(f"{message_type.__name__} alone cannot carry a value that a Struct cannot hold")
        for pointer, value in aside:
            exact_values.add(pointer=pointer, json=json.dumps(value, ensure_ascii=False, allow_nan=False))
        return message


class Shape:
    """The table of one message type. Message types may contain themselves, so it is made first and compiled then."""

    __slots__ = ("_children", "_mapper", "_names", "_renders", "_stores")

    def __init__(self, mapper: Mapper) -> None:
        self._mapper = mapper
        self._stores: dict[str, Store] = {}
        self._renders: dict[int, tuple[str, Render]] = {}
        self._names: dict[str, str] = {}
        self._children: dict[str, Callable[[Any], Any]] = {}

    def compile(self, descriptor: Any) -> None:
        """Fill the table from the descriptor's mirrored fields."""
        for field in descriptor.fields:
            if field.number >= EXTRA:
                continue
            self._stores[field.json_name], render = self._rule(field)
            self._renders[field.number] = (field.json_name, render)
            self._names[field.name] = field.json_name

    def fill(self, message: Any, body: dict[str, Any], depth: int) -> None:
        """Copy the members of `body`, which stands at nesting `depth`, into `message`."""
        if depth > DEEPEST_CONTAINER:
            raise InexpressibleError("nested too deep for a message")
        stores = self._stores
        for name, value in body.items():
            store = stores.get(name)
            if store is None or not store(message, value, depth):
                fill_value(message.extra.fields[name], value, depth + 1)

    def render(self, message: Any) -> dict[str, Any]:
        """Return the mirrored fields that are set, and the members of `extra`."""
        body: dict[str, Any] = {}
        renders = self._renders
        for field, value in message.ListFields():
            number = field.number
            if number < EXTRA:
                name, render = renders[number]
                body[name] = render(value)
            elif number == EXTRA:
                self._mapper.extras_read += 1
                add_extra(body, value)
        return body

    def canonical(self, body: Any) -> Any:
        """Return `body` with known names in lowerCamel, throughout; anything but an object is returned as it is."""
        if type(body) is not dict:
            return body
        members: dict[str, Any] = body
        renamed: dict[str, Any] = {}
        for name, value in members.items():
            known = self._names.get(name, name)
            if known in renamed:
                raise ValueError(f"{known} occurs in both spellings")
            child = self._children.get(known)
            renamed[known] = child(value) if child else value
        return renamed

    def _rule(self, field: Any) -> Rule:
        kind: Any = field.message_type
        if kind is None:
            if field.is_repeated:
                return scalar_list_rule(field)
            return SINGLE_RULES.get(field.type, scalar_rule)(field)
        free_form = FREE_FORM_RULES.get(str(kind.full_name))
        if free_form is not None:
            return free_form(field)
        if kind.GetOptions().map_entry:
            return self._map_rule(field, self._mapper.shape(kind.fields_by_name["value"].message_type))
        rule = self._list_rule if field.is_repeated else self._message_rule
        return rule(field, self._mapper.shape(kind))

    def _message_rule(self, field: Any, shape: Shape) -> Rule:
        name = field.name

        def store(message: Any, value: Any, depth: int) -> bool:
            if type(value) is not dict:
                return False
            inner = getattr(message, name)
            shape.fill(inner, value, depth + 1)
            if not value:
                inner.SetInParent()
            return True

        self._children[field.json_name] = shape.canonical
        return store, shape.render

    def _list_rule(self, field: Any, shape: Shape) -> Rule:
        name = field.name

        def store(message: Any, value: Any, depth: int) -> bool:
            if type(value) is not list or not value:
                return False
            # A plain loop: every chunk of a stream has two such lists, and it takes a quarter of the time.
            for element in value:
                if type(element) is not dict:
                    return False
            elements = getattr(message, name)
            for element in value:
                shape.fill(elements.add(), element, depth + 2)
            return True

        def canonical(value: Any) -> Any:
            return [shape.canonical(element) for element in value] if type(value) is list else value

        self._children[field.json_name] = canonical
        return store, lambda elements: [shape.render(element) for element in elements]

    def _map_rule(self, field: Any, shape: Shape) -> Rule:
        name = field.name

        def store(message: Any, value: Any, depth: int) -> bool:
            if type(value) is not dict or not value or not all(type(element) is dict for element in value.values()):
                return False
            elements = getattr(message, name)
            for key, element in value.items():
                shape.fill(elements[key], element, depth + 2)
            return True

        def canonical(value: Any) -> Any:
            return {k: shape.canonical(v) for k, v in value.items()} if type(value) is dict else value

        self._children[field.json_name] = canonical
        return store, lambda elements: {key: shape.render(element) for key, element in elements.items()}


def add_extra(body: dict[str, Any], extra: Any) -> None:
    """Add the members of `extra` to `body`; raise ValueError for a member that a typed field has given."""
    for name, value in extra.fields.items():
        if name in body:
            raise ValueError(f"{name} is given both as a field and in extra")
        body[name] = value_to_json(value)
