"""Traces as OTLP has them: the notes of a call as protobuf messages of opentelemetry.proto.trace.v1, written by hand.

OpenTelemetry's SDK takes ten times as long, about half of what a call takes (docs/decisions/0027). The tests read what
is written here with OpenTelemetry's own messages.
"""

import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from tollhouse_server.telemetry.call_log import call_facts
from tollhouse_server.telemetry.genai import SERVER_FAULTS, call_attributes, span_name, step_attributes
from tollhouse_server.telemetry.redaction import may_hold_secret, redacted
from tollhouse_server.telemetry.steps import UPSTREAM, CallNotes, Step
from tollhouse_server.telemetry.tracecontext import new_span_number

# The tags of fields: number << 3 | wire type (https://protobuf.dev/programming-guides/encoding/).
_TRACE_ID, _SPAN_ID, _STATE, _PARENT, _NAME, _KIND = b"\x0a", b"\x12", b"\x1a", b"\x22", b"\x2a", b"\x30"
_START, _END, _ATTRIBUTE, _STATUS, _FLAGS = b"\x39", b"\x41", b"\x4a", b"\x7a", b"\x85\x01"
_EIGHT_BYTES_ID = _SPAN_ID + b"\x08"
_REJECTED = b"\x08"
_FIRST, _SECOND, _LIST = b"\x0a", b"\x12", b"\x2a"
_STRING, _BOOL, _INT, _DOUBLE = b"\x0a", b"\x10", b"\x18", b"\x21"
_INTERNAL, _SERVER, _CLIENT = b"\x01", b"\x02", b"\x03"
_ERROR: Final = _STATUS + b"\x02\x18\x02"
# The parent's flags are known, and whether it was in another process: 0x100 has-is-remote, 0x200 is-remote, 1 sampled.
_LOCAL_PARENT, _REMOTE_PARENT = 0x101, 0x301

_TIMES: Final = struct.Struct("<cQcQ")
_KNOWN_TEXTS: Final = 4096
_MOST_CHARACTERS: Final = 256
_UUID_CHARACTERS: Final = 36
_LONG: Final = 0x80
_MOST_SHIFT: Final = 63
_SHORT: Final = tuple(bytes((number,)) for number in range(_LONG))
"""Numbers of one byte."""


def spans_of(notes: CallNotes) -> bytes:
    """Return the spans of a call that has ended, as they stand in a message ScopeSpans."""
    facts, trace_id = call_facts(notes), bytes.fromhex(notes.trace.trace_id)
    own_id = new_span_number().to_bytes(8, "big")
    ids = _bytes(_TRACE_ID, trace_id) + _state(notes.trace.state)
    # By the clock of the call's beginning: the steps' own is monotonic.
    zero = notes.began_at_nanos - notes.started_at
    parent_id = bytes.fromhex(notes.trace.parent_id)
    above = _flags(_REMOTE_PARENT) if parent_id else _flags(_LOCAL_PARENT)
    spans = [
        _span(
            ids + _EIGHT_BYTES_ID + own_id + (_bytes(_PARENT, parent_id) if parent_id else b"") + above,
            _title(notes.rpc, _SERVER),
            (zero + notes.started_at, zero + notes.ended_at),
            call_attributes(notes.rpc, notes.code, facts),
            _ERROR if notes.code in SERVER_FAULTS else b"",
        )
    ]
    below = ids + _bytes(_PARENT, own_id) + _flags(_LOCAL_PARENT)
    spans += [_step_span(below, step, zero, notes.ended_at) for step in notes.steps]
    return b"".join(spans)


def request_of(spans: Iterable[bytes], resource: bytes, scope: bytes) -> bytes:
    """Return an ExportTraceServiceRequest with the spans of some calls."""
    of_scope = _bytes(_FIRST, scope) + b"".join(spans)
    return _bytes(_FIRST, _bytes(_FIRST, resource) + _bytes(_SECOND, of_scope))


def resource_of(attributes: Mapping[str, str]) -> bytes:
    """Return a Resource: what process the spans are of."""
    return b"".join([_bytes(_FIRST, _pair(name, _text(value))) for name, value in attributes.items()])


def scope_of(name: str, version: str) -> bytes:
    """Return an InstrumentationScope: what program made the spans."""
    return _bytes(_FIRST, name.encode()) + _bytes(_SECOND, version.encode())


def rejected_spans(response: bytes) -> int:
    """Return how many spans an ExportTraceServiceResponse says were not taken; 0 also where it is none."""
    try:
        size, begin = _read_varint(response, 1)
        partial = response[begin : begin + size]
        if response[:1] != _FIRST or partial[:1] != _REJECTED:
            return 0
        return _read_varint(partial, 1)[0]
    except IndexError:
        return 0


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    """Return a number and where it ends; raises IndexError where it does not."""
    number = shift = 0
    while message[at] >= _LONG:
        if shift > _MOST_SHIFT:
            raise IndexError
        number |= (message[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return number | message[at] << shift, at + 1


def _step_span(below: bytes, step: Step, zero: int, ended_at: int) -> bytes:
    is_upstream = step.name == UPSTREAM
    return _span(
        below + _EIGHT_BYTES_ID + step.span_number.to_bytes(8, "big"),
        _title(span_name(step.name, step.facts), _CLIENT if is_upstream else _INTERNAL),
        (zero + step.started_at, zero + (step.ended_at or max(ended_at, step.started_at))),
        step_attributes(step.name, step.facts, step.error),
        _ERROR if step.error else b"",
    )


def _span(ids: bytes, title: bytes, times: tuple[int, int], attributes: Mapping[str, Any], status: bytes) -> bytes:
    head = ids + title + _TIMES.pack(_START, times[0], _END, times[1]) + status
    if not attributes:
        return _bytes(_SECOND, head)
    pairs = [_attribute(name, value) for name, value in attributes.items()]
    return _bytes(_SECOND, head + b"".join(pairs))


@lru_cache(maxsize=_KNOWN_TEXTS)
def _title(name: str, kind: bytes) -> bytes:
    """Return a span's name and kind."""
    return _bytes(_NAME, redacted(name)[:_MOST_CHARACTERS].encode("utf-8", "replace")) + _KIND + kind


def _attribute(name: str, value: Any) -> bytes:
    """Return one attribute of a span. Nearly all texts are the same for many calls, so what was written is kept."""
    kind = type(value)
    if kind is str:
        return _text_attribute(name, value[:_MOST_CHARACTERS])
    if kind is int:
        number = _varint(value)
        return _number_head(name, len(number)) + number
    if kind is UUID:
        return _uuid_head(name) + str(value).encode()
    return _bytes(_ATTRIBUTE, _pair(name, _value(value)))


@lru_cache(maxsize=_KNOWN_TEXTS)
def _text_attribute(name: str, value: str) -> bytes:
    return _bytes(_ATTRIBUTE, _pair(name, _text(value)))


@lru_cache
def _number_head(name: str, size: int) -> bytes:
    """Return what stands before the `size` bytes of a number."""
    return _bytes(_ATTRIBUTE, _pair(name, _INT + bytes(size)))[:-size]


@lru_cache
def _uuid_head(name: str) -> bytes:
    """Return what stands before the text of a UUID, which holds no secret."""
    return _bytes(_ATTRIBUTE, _pair(name, _bytes(_STRING, bytes(_UUID_CHARACTERS))))[:-_UUID_CHARACTERS]


def _pair(name: str, value: bytes) -> bytes:
    return _bytes(_FIRST, name.encode()) + _bytes(_SECOND, value)


def _value(value: Any) -> bytes:
    """Return an AnyValue; what is neither number, text nor list is told as text."""
    if isinstance(value, bool):
        return _BOOL + (b"\x01" if value else b"\x00")
    if isinstance(value, int):
        return _INT + _varint(value)
    if isinstance(value, float):
        return _DOUBLE + struct.pack("<d", value)
    if isinstance(value, tuple | list):
        return _bytes(_LIST, b"".join([_bytes(_FIRST, _value(one)) for one in value]))
    return _text(str(value)[:_MOST_CHARACTERS])


def _text(value: str) -> bytes:
    text = value.encode("utf-8", "replace")
    return _bytes(_STRING, redacted(value).encode("utf-8", "replace") if may_hold_secret(text) else text)


def _state(state: str) -> bytes:
    return _bytes(_STATE, redacted(state).encode()) if state else b""


def _flags(flags: int) -> bytes:
    return _FLAGS + flags.to_bytes(4, "little")


def _bytes(tag: bytes, value: bytes) -> bytes:
    size = len(value)
    return tag + (_SHORT[size] if size < _LONG else _varint(size)) + value


def _varint(number: int) -> bytes:
    if 0 <= number < _LONG:
        return _SHORT[number]
    # A negative number is written as 64 bits.
    number &= 0xFFFF_FFFF_FFFF_FFFF
    written = bytearray()
    while number >= _LONG:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)
