"""Requests against the rules in their protos.

protovalidate evaluates CEL in Python, which costs milliseconds: fine for an administrator, half a call's budget for a
generation call. The few rules of those are written out here; a test holds that both say the same.
"""

import re
from typing import Any
from uuid import UUID

import protovalidate
from google.protobuf.message import Message
from tollhouse.v1 import generation_pb2

from tollhouse_server.errors import FieldViolation, InvalidRequest

_TIER = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")
_MODEL = re.compile(r"[a-z0-9][a-z0-9.-]{0,127}")
_LABEL = re.compile(r"[a-z][a-z0-9_.-]{0,62}")
_ID = r"[a-z][a-z0-9-]{1,62}"
_PARENT = re.compile(f"tenants/{_ID}/departments/{_ID}/projects/{_ID}")
_MAX_CONTENTS = 10_000
_MAX_EMBEDDINGS = 250
_MAX_LABELS = 16
_MAX_LABEL_LENGTH = 128


class RequestValidator:
    """Checks a request; compiled rules are kept per message type."""

    def __init__(self) -> None:
        self._by_rules = protovalidate.Validator()  # type: ignore[no-untyped-call]

    def check(self, request: Message) -> None:
        """Return if the request is valid.

        Raises:
            InvalidRequest: each field that is wrong, and why.
        """
        written_out = _GENERATION.get(type(request))
        violations = written_out(request) if written_out is not None else self._violations(request)
        if violations:
            raise InvalidRequest(violations=tuple(violations))

    def _violations(self, request: Message) -> list[FieldViolation]:
        found = self._by_rules.collect_violations(request)
        return [FieldViolation(path=_path(one.proto.field), description=one.proto.message) for one in found]


def _path(field: Any) -> str:
    """Return a protovalidate field path as people write it: `limit.amount`, `contents[3].parts`."""
    parts = []
    for element in field.elements:
        which = element.WhichOneof("subscript")
        parts.append(element.field_name + (f"[{getattr(element, which)}]" if which else ""))
    return ".".join(parts)


def _generation_violations(request: Any) -> list[FieldViolation]:
    found = list(_common_violations(request))
    if not 1 <= len(request.contents) <= _MAX_CONTENTS:
        found.append(FieldViolation(path="contents", description=f"must have 1 to {_MAX_CONTENTS} items"))
    if len(request.tools) > _MAX_LABEL_LENGTH:
        found.append(FieldViolation(path="tools", description="must have at most 128 items"))
    return found


def _embedding_violations(request: Any) -> list[FieldViolation]:
    found = list(_common_violations(request))
    if not 1 <= len(request.requests) <= _MAX_EMBEDDINGS:
        found.append(FieldViolation(path="requests", description=f"must have 1 to {_MAX_EMBEDDINGS} items"))
    return found


def _common_violations(request: Any) -> list[FieldViolation]:
    found = []
    if request.HasField("tier") == request.HasField("model"):
        found.append(FieldViolation(path="", description="exactly one of tier and model must be set"))
    for name, pattern in (("tier", _TIER), ("model", _MODEL), ("parent", _PARENT)):
        if request.HasField(name) and not pattern.fullmatch(getattr(request, name)):
            found.append(FieldViolation(path=name, description=f"must match {pattern.pattern}"))
    if request.HasField("request_id") and not _is_uuid(request.request_id):
        found.append(FieldViolation(path="request_id", description="must be a UUID"))
    return found + _label_violations(getattr(request, "labels", {}))


def _label_violations(labels: Any) -> list[FieldViolation]:
    if len(labels) > _MAX_LABELS:
        return [FieldViolation(path="labels", description=f"must have at most {_MAX_LABELS} entries")]
    return [
        FieldViolation(
            path=f"labels[{name}]", description=f"name or value is not allowed (at most {_MAX_LABEL_LENGTH})"
        )
        for name, value in labels.items()
        if not _LABEL.fullmatch(name) or len(value) > _MAX_LABEL_LENGTH
    ]


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False


_GENERATION: Any = {
    generation_pb2.GenerateContentRequest: _generation_violations,
    generation_pb2.CountTokensRequest: _generation_violations,
    generation_pb2.EmbedContentRequest: _embedding_violations,
}
