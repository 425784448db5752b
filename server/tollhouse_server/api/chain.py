"""What happens around every handler: observe, authenticate, authorise, validate, map errors. No transport in sight."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self, TypeAlias

import structlog
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2, status_pb2

from tollhouse_server.access.authorizer import Authorizer
from tollhouse_server.access.permit import LivePermit
from tollhouse_server.api.call import Call
from tollhouse_server.api.permissions import Rule, permission_for
from tollhouse_server.api.statuses import internal_status, status_of
from tollhouse_server.api.validation import RequestValidator
from tollhouse_server.errors import (
    CredentialsInvalid,
    RequestTooLarge,
    ServerDraining,
    TollhouseError,
)
from tollhouse_server.identity.directory import Directory
from tollhouse_server.identity.principal import Principal
from tollhouse_server.long_values import LONG_BYTES
from tollhouse_server.names import domain_of, invalid
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.telemetry.observing import Observer
from tollhouse_server.telemetry.steps import CallNotes, note, noting, step

_log = structlog.get_logger(__name__)

_ANSWER_SECONDS = 0.1
"""What an answer may need to its caller: after his deadline he hears nothing but that it has passed."""

_REFUSED = (code_pb2.UNAUTHENTICATED, code_pb2.PERMISSION_DENIED)

UnaryHandler: TypeAlias = Callable[[Any, Call], Awaitable[Message]]
StreamHandler: TypeAlias = Callable[[Any, Call], AsyncIterator[Message]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One RPC: its full name `package.Service/Method`, its request type and the function that serves it."""

    rpc: str
    request_type: type[Message]
    handler: UnaryHandler | StreamHandler
    is_stream: bool
    short_name: str = field(init=False)
    """`Service.Method`."""
    rule: Rule = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "short_name", self.rpc.rsplit(".", 1)[1].replace("/", "."))
        object.__setattr__(self, "rule", permission_for(self.rpc))


class CallFailed(Exception):
    """The call ends with this status; the transport sends it."""

    def __init__(self, status: status_pb2.Status) -> None:
        super().__init__(status.message)
        self.status = status


def _no_certificate() -> tuple[str, ...]:
    return ()


@dataclass(slots=True)
class Arrival:
    """What a transport hands over: the bytes of the message, lower-case metadata, the deadline if there is one.

    `deadline` is a moment of `time.monotonic()`, in seconds. `peer` is the other end as gRPC names it. `certificate`
    returns what its verified certificate says of its holder, the best name first: `spiffe://...` or `subject:...`.
    `correlation_id` is set while the call is served, for the transport to tell the caller. `fault` is what the
    transport found wrong with the call before it was one: it ends with that, observed like any other.
    """

    body: bytes
    metadata: Mapping[str, str]
    deadline: float | None
    peer: str = ""
    certificate: Callable[[], tuple[str, ...]] = _no_certificate
    correlation_id: str = ""
    fault: TollhouseError | None = None


class Refusals(Protocol):
    """Hears of every call that ends as UNAUTHENTICATED or PERMISSION_DENIED, whether here or in its handler."""

    def refused(
        self,
        error: TollhouseError,
        method: "Method",
        arrival: Arrival,
        principal: Principal | None,
        correlation_id: str,
    ) -> None:
        """Note it; without a principal the credential was refused. Waits for nothing, never raises."""


class _Passage:
    """A call while it passes: `ended` hears how, and what went wrong becomes the status for the caller."""

    __slots__ = ("_ended", "_noting", "_refused", "arrival", "method", "notes", "principal")

    def __init__(
        self,
        method: Method,
        arrival: Arrival,
        notes: CallNotes,
        *,
        refused: "Callable[[_Passage, TollhouseError], status_pb2.Status]",
        ended: Callable[[CallNotes, str], None],
    ) -> None:
        self.method = method
        self.arrival = arrival
        self.notes = notes
        self.principal: Principal | None = None
        self._noting = noting(notes)
        self._refused = refused
        self._ended = ended

    def __enter__(self) -> Self:
        self._noting.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._noting.__exit__()
        code = "OK" if error is None else "CANCELLED"
        try:
            if isinstance(error, Exception):
                code = "INTERNAL"
                status = self._status(error)
                code = code_pb2.Code.Name(status.code)
                raise CallFailed(status) from error
        finally:
            self._ended(self.notes, code)

    def _status(self, error: Exception) -> status_pb2.Status:
        if isinstance(error, TollhouseError):
            return self._refused(self, error)
        _log.error("handler_failed", rpc=self.method.rpc, correlation_id=self.notes.correlation_id, exc_info=error)
        return internal_status(self.notes.correlation_id)


class Chain:
    """Runs handlers. One object serves every transport of a process."""

    def __init__(
        self,
        *,
        directory: Directory,
        authorizer: Authorizer,
        metrics: Metrics,
        default_deadline_seconds: float,
        max_message_bytes: int,
        refusals: Refusals | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._refusals = refusals
        self._observer = observer or Observer()
        self._directory = directory
        self._authorizer = authorizer
        self._metrics = metrics
        self._validator = RequestValidator()
        self._default_deadline_seconds = default_deadline_seconds
        self._max_message_bytes = max_message_bytes
        self.is_draining = False

    async def unary(self, method: Method, arrival: Arrival) -> Message:
        """Serve a unary call.

        Raises:
            CallFailed: with the status for the caller.
        """
        with self._passage(method, arrival) as passage:
            # The request is its handler's alone, who lets go of a large one as soon as he can.
            answer: Message = await method.handler(*await self._admit(passage))  # type: ignore[misc]
            return answer

    async def stream(self, method: Method, arrival: Arrival) -> AsyncIterator[Message]:
        """Serve a streaming call.

        Raises:
            CallFailed: with the status for the caller.
        """
        with self._passage(method, arrival) as passage:
            async for message in method.handler(*await self._admit(passage)):  # type: ignore[union-attr]
                yield message

    def _passage(self, method: Method, arrival: Arrival) -> _Passage:
        notes = self._observer.begin(method.short_name, arrival.metadata)
        arrival.correlation_id = notes.correlation_id
        self._metrics.call_started(rpc=notes.rpc)
        return _Passage(method, arrival, notes, refused=self._refused, ended=self._ended)

    def _refused(self, passage: _Passage, error: TollhouseError) -> status_pb2.Status:
        notes = passage.notes
        status = status_of(error, notes.correlation_id)
        notes.facts["reason"] = error.reason
        self._metrics.call_refused(reason=error.reason)
        if isinstance(error, CredentialsInvalid):
            self._metrics.credential_refused(fault=error.fault.value)
        if self._refusals is not None and status.code in _REFUSED:
            self._refusals.refused(error, passage.method, passage.arrival, passage.principal, notes.correlation_id)
        return status

    def _ended(self, notes: CallNotes, code: str) -> None:
        notes.finish(code)
        trace_id = notes.trace.trace_id if notes.is_sampled else ""
        seconds = notes.seconds
        self._metrics.call_finished(rpc=notes.rpc, code=code, seconds=seconds, trace_id=trace_id)
        if (upstream_seconds := notes.upstream_seconds) is not None:
            self._metrics.latency_added(seconds=max(0.0, seconds - upstream_seconds))

    async def _admit(self, passage: _Passage) -> tuple[Message, Call]:
        """Turn an arrival into a valid request and an authorised call; permission comes before existence."""
        method, arrival = passage.method, passage.arrival
        if self.is_draining:
            raise ServerDraining
        if arrival.fault is not None:
            raise arrival.fault
        if len(arrival.body) > self._max_message_bytes:
            raise RequestTooLarge(size_bytes=len(arrival.body), limit_bytes=self._max_message_bytes)
        now = time.monotonic()
        deadline = arrival.deadline = arrival.deadline or now + self._default_deadline_seconds
        # From before anything is looked up: what changes meanwhile counts as a change.
        known_at = self._authorizer.version
        with step("authenticate"):
            principal = passage.principal = await self._directory.authenticate(
                arrival.metadata.get("authorization"),
                patience_seconds=deadline - now - _ANSWER_SECONDS,
                presented=arrival,
            )
        note(tenant=principal.tenant_id, credential_id=principal.credential_id)
        request, size_bytes = _parsed(method.request_type, arrival.body), len(arrival.body)
        # What is read need not be kept: it may be large, and the call may wait.
        arrival.body = b""
        if size_bytes > LONG_BYTES:
            # 20 MB take milliseconds to parse, and as long again to read from the message.
            await asyncio.sleep(0)
        rule = method.rule
        with step("authorize"):
            scope = principal.home if rule.permission is None else rule.scope(request, principal)
            if rule.permission is not None:
                await self._authorizer.authorize(principal, rule.permission, scope)
        with step("validate"):
            await self._validator.check_beside_others(request)
        return request, Call(
            rpc=method.rpc,
            principal=principal,
            domain=domain_of(scope),
            deadline=deadline,
            correlation_id=passage.notes.correlation_id,
            permit=LivePermit(self._authorizer, known_at, partial(self._confirm, arrival, principal, rule, scope)),
            size_bytes=size_bytes,
            peer=arrival.peer,
            forwarded_for=arrival.metadata.get("x-forwarded-for"),
            user_agent=arrival.metadata.get("user-agent", ""),
        )

    async def _confirm(self, arrival: Arrival, principal: Principal, rule: Rule, scope: str) -> None:
        """Let a call in once more, before something is done for it that cannot be undone.

        Raises:
            CredentialsInvalid, PermissionDenied: not any more.
            StoreUnavailable: nobody can know, and its time is up.
        """
        seconds_left = (arrival.deadline or 0.0) - time.monotonic() - _ANSWER_SECONDS
        authorization = arrival.metadata.get("authorization")
        found = await self._directory.authenticate(authorization, patience_seconds=seconds_left, presented=arrival)
        if found.name != principal.name:
            raise CredentialsInvalid
        if rule.permission is not None:
            await self._authorizer.authorize(found, rule.permission, scope)


def _parsed(request_type: type[Message], body: bytes) -> Message:
    try:
        return request_type.FromString(body)
    except DecodeError:
        raise invalid("", f"the message is not a {request_type.DESCRIPTOR.full_name}") from None
