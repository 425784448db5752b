"""What happens around every handler: observe, authenticate, authorise, validate, map errors. No transport in sight."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias

import structlog
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2, status_pb2

from tollhouse_server.access.authorizer import Authorizer
from tollhouse_server.access.permit import LivePermit
from tollhouse_server.api.call import Call
from tollhouse_server.api.permissions import Rule, own_scope, permission_for
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
    `correlation_id` is set while the call is served, for the transport to tell the caller.
    """

    body: bytes
    metadata: Mapping[str, str]
    deadline: float | None
    peer: str = ""
    certificate: Callable[[], tuple[str, ...]] = _no_certificate
    correlation_id: str = ""


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


@dataclass(slots=True)
class _Passage:
    """What is known of a call while it passes."""

    notes: CallNotes
    principal: Principal | None = None


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
        async with self._observed(method, arrival) as passage:
            request, call = await self._admit(method, arrival, passage)
            answer: Message = await method.handler(request, call)  # type: ignore[misc]
            return answer

    async def stream(self, method: Method, arrival: Arrival) -> AsyncIterator[Message]:
        """Serve a streaming call.

        Raises:
            CallFailed: with the status for the caller.
        """
        async with self._observed(method, arrival) as passage:
            request, call = await self._admit(method, arrival, passage)
            async for message in method.handler(request, call):  # type: ignore[union-attr]
                yield message

    @asynccontextmanager
    async def _observed(self, method: Method, arrival: Arrival) -> AsyncIterator["_Passage"]:
        notes = self._observer.begin(_short(method.rpc), arrival.metadata)
        arrival.correlation_id = correlation_id = notes.correlation_id
        passage = _Passage(notes)
        code: int = code_pb2.CANCELLED
        self._metrics.call_started(rpc=notes.rpc)
        try:
            with noting(notes):
                yield passage
            code = code_pb2.OK
        except TollhouseError as error:
            status = status_of(error, correlation_id)
            code = status.code
            notes.facts["reason"] = error.reason
            self._metrics.call_refused(reason=error.reason)
            if isinstance(error, CredentialsInvalid):
                self._metrics.credential_refused(fault=error.fault.value)
            if self._refusals is not None and code in _REFUSED:
                self._refusals.refused(error, method, arrival, passage.principal, correlation_id)
            raise CallFailed(status) from error
        except Exception as error:
            code = code_pb2.INTERNAL
            _log.exception("handler_failed", rpc=method.rpc, correlation_id=correlation_id)
            raise CallFailed(internal_status(correlation_id)) from error
        finally:
            self._finish(notes, code_pb2.Code.Name(code))

    def _finish(self, notes: CallNotes, code: str) -> None:
        notes.finish(code)
        trace_id = notes.trace.trace_id if notes.is_sampled else ""
        seconds = notes.seconds
        self._metrics.call_finished(rpc=notes.rpc, code=code, seconds=seconds, trace_id=trace_id)
        if (upstream_seconds := notes.upstream_seconds) is not None:
            self._metrics.latency_added(seconds=max(0.0, seconds - upstream_seconds))

    async def _admit(self, method: Method, arrival: Arrival, passage: "_Passage") -> tuple[Message, Call]:
        """Turn an arrival into a valid request and an authorised call; permission comes before existence."""
        if self.is_draining:
            raise ServerDraining
        if len(arrival.body) > self._max_message_bytes:
            raise RequestTooLarge(size_bytes=len(arrival.body), limit_bytes=self._max_message_bytes)
        deadline = arrival.deadline or time.monotonic() + self._default_deadline_seconds
        # From before anything is looked up: what changes meanwhile counts as a change.
        known_at = self._authorizer.version
        with step("authenticate"):
            principal = passage.principal = await self._directory.authenticate(
                arrival.metadata.get("authorization"),
                patience_seconds=deadline - time.monotonic() - _ANSWER_SECONDS,
                presented=arrival,
            )
        note(tenant=principal.tenant_id, credential_id=principal.credential_id)
        request = _parsed(method.request_type, arrival.body)
        rule = permission_for(method.rpc)
        with step("authorize"):
            scope = own_scope(principal) if rule.permission is None else rule.scope(request, principal)
            if rule.permission is not None:
                await self._authorizer.authorize(principal, rule.permission, scope)
        with step("validate"):
            await self._validator.check_beside_others(request)
        # Without its message, which is read; it may be large, and the call may wait.
        again = Arrival(b"", arrival.metadata, deadline, arrival.peer, arrival.certificate)
        return request, Call(
            rpc=method.rpc,
            principal=principal,
            domain=domain_of(scope),
            deadline=deadline,
            correlation_id=passage.notes.correlation_id,
            permit=LivePermit(self._authorizer, known_at, partial(self._confirm, again, principal, rule, scope)),
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


def _short(rpc: str) -> str:
    """Return `Service.Method`."""
    return rpc.rsplit(".", 1)[1].replace("/", ".")


def _parsed(request_type: type[Message], body: bytes) -> Message:
    try:
        return request_type.FromString(body)
    except DecodeError:
        raise invalid("", f"the message is not a {request_type.DESCRIPTOR.full_name}") from None
