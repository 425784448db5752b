"""Requests against the rules in their protos.

protovalidate evaluates CEL in Python, which costs milliseconds: fine for an administrator, half a call's budget for a
generation call. The few rules of those are written out here; a test holds that both say the same.
"""

import asyncio
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from uuid import UUID

from buf.validate import validate_pb2
from google.protobuf.message import Message
from tollhouse.v1 import generation_pb2

from tollhouse_server.errors import FieldViolation, InvalidRequest

if TYPE_CHECKING:
    import protovalidate

_TIER = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")
_MODEL = re.compile(r"[a-z0-9][a-z0-9.-]{0,127}")
_LABEL = re.compile(r"[a-z][a-z0-9_.-]{0,62}")
_ID = r"[a-z][a-z0-9-]{1,62}"
_PARENT = re.compile(f"tenants/{_ID}/departments/{_ID}/projects/{_ID}")
_MAX_LABELS, _MAX_LABEL_LENGTH = 16, 128
_MAX_POINTER_LENGTH = 8192

# Item counts of repeated fields and lengths of strings: (field, least, most).
_ITEMS = (
    ("contents", 1, 10_000),
    ("requests", 1, 250),
    ("tools", 0, 128),
    ("safety_settings", 0, 32),
    ("exact_values", 0, 1000),
)
_LENGTHS = (("cached_content", 1, 256),)
_REGION = (1, 63)
_NUL = "must not have a NUL character"
_PATTERNS = (("tier", _TIER), ("model", _MODEL), ("parent", _PARENT))


_QUICK_BYTES = 1024
"""Requests up to this length are looked at in milliseconds; hundreds of items take seconds."""


class RequestValidator:
    """Checks a request; compiled rules are kept per message type."""

    def __init__(self) -> None:
        self._by_rules: protovalidate.Validator | None = None
        self._one_at_a_time = asyncio.Lock()

    async def check_beside_others(self, request: Message) -> None:
        """Do as `check` does; a long request is looked at in a thread, so that others are served meanwhile.

        Raises:
            InvalidRequest: each field that is wrong, and why.
        """
        if isinstance(request, _GENERATION):
            return self.check(request)
        if self._by_rules is None:
            async with self._one_at_a_time:
                if self._by_rules is None:
                    self._by_rules = await asyncio.to_thread(_load_rules)
        if request.ByteSize() <= _QUICK_BYTES:
            return self.check(request)
        # Rules in evaluation are nobody else's: the thread has some of its own.
        async with self._one_at_a_time:
            await asyncio.to_thread(RequestValidator().check, request)
        return None

    def check(self, request: Message) -> None:
        """Return if the request is valid.

        Raises:
            InvalidRequest: each field that is wrong, and why.
        """
        is_written_out = isinstance(request, _GENERATION)
        violations = tuple(_generation_violations(request) if is_written_out else self._violations(request))
        if violations:
            raise InvalidRequest(violations=violations)

    def _violations(self, request: Message) -> list[FieldViolation]:
        too_long = list(_long_lists(request))
        if too_long:
            # Not item by item: a list of a million would take hours.
            return too_long
        if self._by_rules is None:
            self._by_rules = _load_rules()
        try:
            found = self._by_rules.collect_violations(request)
        except (ValueError, OverflowError):
            # CEL cannot even look at a Timestamp or Duration beyond what a calendar holds.
            return [FieldViolation(path="", description="a time or a duration in it is out of range")]
        by_rules = [FieldViolation(path=_path(one.proto.field), description=one.proto.message) for one in found]
        return [*by_rules, *_undefined_enums(request), *_nul_characters(request)]


def _load_rules() -> "protovalidate.Validator":
    """Return what checks by rules: 11 MB and a quarter of a second, which a worker that is only called is spared."""
    import protovalidate  # noqa: PLC0415

    return protovalidate.Validator()  # type: ignore[no-untyped-call]


def _path(field: Any) -> str:
    """Return a protovalidate field path as people write it: `limit.amount`, `contents[3].parts`."""
    parts = []
    for element in field.elements:
        which = element.WhichOneof("subscript")
        parts.append(element.field_name + (f"[{getattr(element, which)}]" if which else ""))
    return ".".join(parts)


def _long_lists(message: Message) -> Iterator[FieldViolation]:
    """Name each list and map that has more items than its proto allows."""
    for field, value in message.ListFields():
        if field.is_repeated:
            rules = field.GetOptions().Extensions[validate_pb2.field]
            most = rules.map.max_pairs if _is_map(field) else rules.repeated.max_items
            if 0 < most < len(value):
                yield FieldViolation(path=field.name, description=f"has {len(value)} items; at most {most} are allowed")
                continue
        if field.message_type is not None and not _is_map(field):
            for one in value if field.is_repeated else (value,):
                yield from _long_lists(one)


def _undefined_enums(message: Message) -> Iterator[FieldViolation]:
    """Name each enum field with a value that this version does not know; protovalidate skips those in lists."""
    for field, value in message.ListFields():
        values = value if field.is_repeated else (value,)
        if field.enum_type is not None:
            unknown = [number for number in values if number not in field.enum_type.values_by_number]
            if unknown:
                description = f"{unknown[0]} is no value that this version knows"
                yield FieldViolation(path=field.name, description=description)
        elif field.message_type is not None and not _is_map(field):
            for one in values:
                yield from _undefined_enums(one)


def _nul_characters(message: Message) -> Iterator[FieldViolation]:
    """Name each text with a NUL character: PostgreSQL can keep none."""
    for field, value in message.ListFields():
        values = list(value.values() if _is_map(field) else value) if field.is_repeated else [value]
        for one in values:
            if isinstance(one, Message):
                yield from _nul_characters(one)
            elif isinstance(one, str) and "\0" in one:
                yield FieldViolation(path=field.name, description=_NUL)


def _is_map(field: Any) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _generation_violations(request: Any) -> Iterator[FieldViolation]:
    if request.HasField("tier") == request.HasField("model"):
        yield FieldViolation(path="", description="exactly one of tier and model must be set")
    for name, pattern in _PATTERNS:
        if request.HasField(name) and not pattern.fullmatch(getattr(request, name)):
            yield FieldViolation(path=name, description=f"must match {pattern.pattern}")
    if request.HasField("request_id") and not _is_uuid(request.request_id):
        yield FieldViolation(path="request_id", description="must be a UUID")
    known = request.DESCRIPTOR.fields_by_name
    for name, least, most in _ITEMS:
        if name in known and not least <= len(getattr(request, name)) <= most:
            yield FieldViolation(path=name, description=f"must have {least} to {most} items")
    for name, least, most in _LENGTHS:
        if name in known and request.HasField(name) and not least <= len(getattr(request, name)) <= most:
            yield FieldViolation(path=name, description=f"must have {least} to {most} characters")
    if request.HasField("routing"):
        yield from _routing_violations(request.routing)
    if request.exact_values:
        yield from _exact_value_violations(request.exact_values)
    if "labels" in known and request.labels:
        yield from _label_violations(request.labels)


def _routing_violations(routing: Any) -> Iterator[FieldViolation]:
    least, most = _REGION
    if routing.HasField("region") and not least <= len(routing.region) <= most:
        yield FieldViolation(path="routing.region", description=f"must have {least} to {most} characters")


def _exact_value_violations(exact_values: Any) -> Iterator[FieldViolation]:
    for index, value in enumerate(exact_values):
        if len(value.pointer) > _MAX_POINTER_LENGTH:
            description = f"must have at most {_MAX_POINTER_LENGTH} characters"
            yield FieldViolation(path=f"exact_values[{index}].pointer", description=description)


def _label_violations(labels: Any) -> Iterator[FieldViolation]:
    if len(labels) > _MAX_LABELS:
        yield FieldViolation(path="labels", description=f"must have at most {_MAX_LABELS} entries")
    for name, value in labels.items():
        if not _LABEL.fullmatch(name):
            yield FieldViolation(path=f"labels[{name}]", description=f"the name must match {_LABEL.pattern}")
        if len(value) > _MAX_LABEL_LENGTH:
            description = f"the value must have at most {_MAX_LABEL_LENGTH} characters"
            yield FieldViolation(path=f"labels[{name}]", description=description)
        if "\0" in value:
            yield FieldViolation(path=f"labels[{name}]", description=_NUL)


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False


_GENERATION = (
    generation_pb2.GenerateContentRequest,
    generation_pb2.CountTokensRequest,
    generation_pb2.EmbedContentRequest,
)
