"""Kept content and its policies on the wire and in here."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, Protocol
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp
from tollhouse.admin.v1 import contents_pb2 as pb

from tollhouse_server.api.values import etag, moment_of, timestamp
from tollhouse_server.content.store import ContentFilter, ContentPosition
from tollhouse_server.content.tables import ContentPolicyRow, KeptContentRow
from tollhouse_server.content.terms import DEFAULT_RETENTION_DAYS, Keep
from tollhouse_server.names import (
    ContentName,
    ContentPolicyName,
    PrincipalName,
    ProjectName,
    TenantName,
    invalid,
    parse_scope,
)

_NUMBERS: Final = MappingProxyType({keep: pb.ContentKeep.Value(f"CONTENT_KEEP_{keep}") for keep in Keep})
_KEEPS: Final = MappingProxyType({number: keep for keep, number in _NUMBERS.items()})


class ContentsRequest(Protocol):
    """A request about many calls' content; it is a protobuf message."""

    parent: str
    principal: str

    @property
    def start_time(self) -> Timestamp: ...

    @property
    def end_time(self) -> Timestamp: ...

    def HasField(self, field_name: Any, /) -> bool: ...  # noqa: N802 - protobuf's


def policy_message(row: ContentPolicyRow) -> pb.ContentPolicy:
    """Return what a tenant has said, the defaults where it said nothing."""
    return pb.ContentPolicy(
        name=str(ContentPolicyName(row.tenant_id)),
        keep=_NUMBERS[Keep(row.keep)],
        retention_days=row.retention_days,
        scopes=row.scopes,
        must_keep=row.must_keep,
        create_time=timestamp(row.created_at),
        update_time=timestamp(row.updated_at),
        etag=etag(row.version),
    )


def values_of(message: pb.ContentPolicy, fields: Iterable[str]) -> dict[str, Any]:
    """Return the fields of a policy as its row has them.

    Raises:
        InvalidRequest: one of them says what cannot be.
    """
    return {name: READERS[name](message) for name in fields}


def filter_of(request: ContentsRequest) -> ContentFilter:
    """Return which content a request is about.

    Raises:
        InvalidRequest: its principal is another tenant's, or a moment is none.
    """
    scope = parse_scope(request.parent, "parent")
    principal = None
    if request.principal:
        name = PrincipalName.parse(request.principal, "principal")
        if name.tenant != scope.tenant:
            raise invalid("principal", "must belong to the tenant that the request names")
        principal = name.principal
    return ContentFilter(
        scope=scope,
        principal_id=principal,
        start=moment_of(request.start_time, "start_time") if request.HasField("start_time") else None,
        end=moment_of(request.end_time, "end_time") if request.HasField("end_time") else None,
    )


def position_of(text: str) -> ContentPosition | None:
    """Return the place in a list that a page token has."""
    if not text:
        return None
    created_at, attempt_id = text.split(" ")
    return ContentPosition(datetime.fromisoformat(created_at), UUID(attempt_id))


def content_message(row: KeptContentRow, *, prompt: bytes = b"", answer: bytes = b"") -> pb.Content:
    """Return what is known of kept content, with the content itself where it was opened."""
    project = ProjectName(row.tenant_id, row.department_path[-1], row.project_id)
    return pb.Content(
        name=str(ContentName(row.tenant_id, str(row.attempt_id))),
        project=str(project),
        principal=str(PrincipalName(row.tenant_id, row.principal_id)),
        request_id=str(row.request_id),
        method=row.method,
        model=row.model,
        create_time=timestamp(row.created_at),
        expire_time=timestamp(row.expires_at),
        prompt_bytes=row.prompt_bytes,
        answer_bytes=row.answer_bytes,
        answer_truncated=row.answer_truncated,
        prompt_json=prompt.decode(),
        answer_json=answer.decode(),
    )


def _keep(message: pb.ContentPolicy) -> str:
    if message.keep not in _KEEPS:
        raise invalid("content_policy.keep", "must say how much is kept")
    return _KEEPS[message.keep]


def _scopes(message: pb.ContentPolicy) -> list[str]:
    tenant = ContentPolicyName.parse(message.name, "content_policy.name").tenant
    for name in message.scopes:
        scope = parse_scope(name, "content_policy.scopes")
        if scope.tenant != tenant or isinstance(scope, TenantName):
            raise invalid("content_policy.scopes", "must be departments and projects of the tenant")
    return sorted(message.scopes)


READERS: Final[Mapping[str, Callable[[pb.ContentPolicy], Any]]] = MappingProxyType(
    {
        "keep": _keep,
        "retention_days": lambda message: message.retention_days or DEFAULT_RETENTION_DAYS,
        "scopes": _scopes,
        "must_keep": lambda message: message.must_keep,
    }
)
"""How each field that can be changed is read."""
