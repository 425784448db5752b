"""The ids that a call goes by: those of the W3C trace context that it brought, or new ones.

The correlation id is the trace id wherever there is one (https://www.w3.org/TR/trace-context/), so that logs, traces,
receipts and audit name a call by the same word.
"""

import random
import re
from collections.abc import Mapping
from typing import NamedTuple

from tollhouse_server.telemetry.redaction import redacted

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
CORRELATION_ID = "x-correlation-id"

_SAMPLED = 0x01
_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16
_MOST_STATE_CHARACTERS = 512
_STATE = re.compile(r"[\x20-\x7e]*")
_TRACE_ID = re.compile(r"[0-9a-f]{32}")
# Neither an address nor a sentence: it stands in logs, receipts and the audit trail.
_CALLERS_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")


class TraceContext(NamedTuple):
    """Where a call stands in a trace; `parent_id` is empty where it begins one. `is_sampled` is None where nobody has
    decided yet."""

    trace_id: str
    parent_id: str
    is_sampled: bool | None
    state: str = ""


def trace_context(metadata: Mapping[str, str]) -> TraceContext:
    """Return the context that a caller sent, or a new one; what is malformed counts as not sent."""
    parent = metadata.get(TRACEPARENT)
    if parent is not None and (found := _parsed(parent, metadata.get(TRACESTATE, ""))) is not None:
        return found
    said = metadata.get(CORRELATION_ID, "")
    trace_id = said if _TRACE_ID.fullmatch(said) and said != _NO_TRACE else new_trace_id()
    return TraceContext(trace_id, "", None)


def correlation_id(context: TraceContext, metadata: Mapping[str, str]) -> str:
    """Return the id by which a call is named everywhere: the trace's, or what a caller without a trace calls it."""
    said = metadata.get(CORRELATION_ID)
    if not said or context.parent_id or not _CALLERS_ID.fullmatch(said) or redacted(said) != said:
        return context.trace_id
    return said


def traceparent(context: TraceContext, span_id: str, *, is_sampled: bool) -> str:
    """Return the header that hands a context on from a span."""
    return f"00-{context.trace_id}-{span_id}-{'01' if is_sampled else '00'}"


def new_trace_id() -> str:
    """Return 128 random bits in hexadecimal."""
    return f"{random.getrandbits(128) or 1:032x}"


def new_span_number() -> int:
    """Return 64 random bits."""
    return random.getrandbits(64) or 1


def _parsed(parent: str, state: str) -> TraceContext | None:
    found = _PARENT.fullmatch(parent)
    if found is None:
        return None
    version, trace_id, parent_id, flags, more = found.groups()
    # Version 00 has four fields; later ones may have more, ff is none.
    if version == "ff" or (version == "00" and more) or trace_id == _NO_TRACE or parent_id == _NO_SPAN:
        return None
    is_fit = len(state) <= _MOST_STATE_CHARACTERS and _STATE.fullmatch(state) is not None
    return TraceContext(trace_id, parent_id, bool(int(flags, 16) & _SAMPLED), state if is_fit else "")
