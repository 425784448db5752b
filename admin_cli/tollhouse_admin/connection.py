"""A connection to the server: the channel, the credential in the metadata, deadlines, and pages followed to the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc

from tollhouse_admin.endpoints import Endpoint, Tls, is_loopback
from tollhouse_admin.failures import ExitCode, Failure
from tollhouse_admin.statuses import failure_of

USER_AGENT = "tollhouse-cli"
MESSAGE_BYTES_LIMIT = 128 * 1024 * 1024
PAGE_SIZE = 500
RECONNECT_MILLISECONDS = 2000

Request = TypeVar("Request")
Response = TypeVar("Response")
StubType = TypeVar("StubType")


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A channel to one server; every call carries the key and a deadline and fails with a Failure only."""

    endpoint: Endpoint
    channel: grpc.Channel
    timeout_seconds: float

    def stub(self, kind: Callable[[grpc.Channel], StubType]) -> StubType:
        """Return a generated stub on this connection."""
        return kind(self.channel)

    @property
    def _metadata(self) -> tuple[tuple[str, str], ...]:
        key = self.endpoint.api_key
        # Without a key the client's certificate says who calls.
        return (("authorization", f"Bearer {key}"),) if key else ()

    def call(self, method: grpc.UnaryUnaryMultiCallable[Request, Response], request: Request) -> Response:
        """Make a unary call.

        Raises:
            Failure: the server refused it or did not answer.
        """
        with self._failures(request):
            return method(request, timeout=self.timeout_seconds, metadata=self._metadata)

    def stream(self, method: grpc.UnaryStreamMultiCallable[Request, Response], request: Request) -> Iterator[Response]:
        """Make a call and yield its answers as they come; a reader who stops early cancels it.

        Raises:
            Failure: as `call`, also after answers.
        """
        with self._failures(request):
            answers = method(request, timeout=self.timeout_seconds, metadata=self._metadata)
            try:
                yield from answers
            finally:
                answers.cancel()

    def pages(
        self,
        method: grpc.UnaryUnaryMultiCallable[Any, Any],
        request: Any,
        field: str,
        *,
        limit: int | None = None,
    ) -> Iterator[Any]:
        """Yield the entries in `field` of all pages, at most `limit`.

        Raises:
            Failure: as `call`.
        """
        remaining = limit
        request.page_size = min(PAGE_SIZE, limit or PAGE_SIZE)
        while remaining is None or remaining > 0:
            page = self.call(method, request)
            entries = list(getattr(page, field))[:remaining]
            yield from entries
            remaining = None if remaining is None else remaining - len(entries)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    @contextmanager
    def _failures(self, request: object) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            request_id = getattr(request, "request_id", "")
            raise failure_of(error, target=self.endpoint.target, request_id=request_id) from error


@contextmanager
def connect(endpoint: Endpoint, *, timeout_seconds: float) -> Iterator[Connection]:
    """Open a connection and close it afterwards; nothing is sent before the first call.

    Raises:
        Failure: a certificate file cannot be read.
    """
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", MESSAGE_BYTES_LIMIT),
        ("grpc.max_send_message_length", MESSAGE_BYTES_LIMIT),
        ("grpc.primary_user_agent", USER_AGENT),
        # A server that is started again is found within seconds, not minutes.
        ("grpc.max_reconnect_backoff_ms", RECONNECT_MILLISECONDS),
    ]
    if is_loopback(endpoint.target):
        # A proxy of the environment is for other machines; the key must not go there.
        options.append(("grpc.enable_http_proxy", 0))
    with _channel(endpoint, options) as channel:
        yield Connection(endpoint=endpoint, channel=channel, timeout_seconds=timeout_seconds)


def _channel(endpoint: Endpoint, options: list[tuple[str, Any]]) -> grpc.Channel:
    tls = endpoint.tls
    if tls is None:
        return grpc.insecure_channel(endpoint.target, options=options)
    if tls.server_name:
        options = [*options, ("grpc.ssl_target_name_override", tls.server_name)]
    return grpc.secure_channel(endpoint.target, _credentials(tls), options=options)


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=_content(tls.ca_file),
        private_key=_content(tls.client_key_file),
        certificate_chain=_content(tls.client_certificate_file),
    )


def _content(file: str | None) -> bytes | None:
    if file is None:
        return None
    try:
        return Path(file).expanduser().read_bytes()
    except OSError as error:
        message = f"The certificate file {file} cannot be read: {error.strerror}"
        raise Failure(reason="TLS_FILE", message=message, exit_code=ExitCode.USAGE) from error
