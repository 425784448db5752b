"""A mail server of a test's own on loopback: without TLS, with STARTTLS or in TLS from the beginning, with a login."""

import asyncio
import email
import socket
import ssl
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from email.message import Message
from pathlib import Path
from typing import Any, Literal

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from tests.drivers.authority import Identity

USER, PASSWORD = "tollhouse", "a password of the mail server"


class Post:
    """A mail server's other side: keeps what it takes, refuses it, or takes it and hangs up before it says so.

    Recipients in `later` are asked to come again; at `hangs_up_at` it hangs up before it has heard of a message; it
    answers for one after `thinks_seconds`; a login that is wrong is repeated to whoever tries it.
    """

    def __init__(self) -> None:
        self.port = 0
        self.messages: list[Message] = []
        self.recipients: list[str] = []
        self.users: list[str] = []
        self.refusal = ""
        self.unknown = ""
        self.hangs_up = False
        self.later: list[str] = []
        self.hangs_up_at = ""
        self.thinks_seconds = 0.0
        self.controller: Controller | None = None

    def takes_bytes(self, most: int) -> None:
        """Announce from now on that no message may be larger."""
        assert self.controller is not None
        self.controller.SMTP_kwargs["data_size_limit"] = most

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if address == self.hangs_up_at:
            _abort(server)
        if address in self.later:
            return "450 greylisted, try again later"
        if address == self.unknown:
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.refusal:
            return self.refusal
        assert isinstance(envelope.content, bytes)
        self.messages.append(email.message_from_bytes(envelope.content))
        self.recipients = envelope.rcpt_tos
        if self.hangs_up:
            _abort(server)
        await asyncio.sleep(self.thinks_seconds)
        return "250 OK"

    def login(self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: Any) -> AuthResult:
        """Take the one user with his password."""
        assert isinstance(data, LoginPassword)
        is_right = (data.login, data.password) == (USER.encode(), PASSWORD.encode())
        if is_right:
            self.users.append(data.login.decode())
            return AuthResult(success=True)
        said = b64encode(b"\0".join((b"", data.login, data.password))).decode()
        return AuthResult(success=False, handled=False, message=f"535 not {data.password.decode()} ({said})")


def _abort(server: SMTP) -> None:
    assert isinstance(server.transport, asyncio.Transport)
    server.transport.abort()


class _OnFreePort(Controller):
    """A server whose port the system chooses."""

    def _trigger_server(self) -> None:
        """Say hello once, as a client that trusts anybody: the controller waits for that."""
        self.port = self.server.sockets[0].getsockname()[1]  # type: ignore[union-attr]  # it is serving
        with ExitStack() as stack:
            connection = stack.enter_context(socket.create_connection((self.hostname, self.port), 5))
            if self.ssl_context:
                credulous = ssl.create_default_context()
                credulous.check_hostname, credulous.verify_mode = False, ssl.CERT_NONE
                connection = stack.enter_context(credulous.wrap_socket(connection))
            connection.recv(1024)


@contextmanager
def open_post(
    security: Literal["starttls", "tls", "none"] = "none", identity: Identity | None = None, folder: Path | None = None
) -> Iterator[Post]:
    """Run a mail server; with TLS it has the identity's certificate, and wants a login."""
    handler = Post()
    options: dict[str, Any] = {}
    if security != "none":
        assert identity is not None
        assert folder is not None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*identity.write(folder, "post"))
        options = {"authenticator": handler.login, "auth_required": True}
        options |= {"tls_context": context, "require_starttls": True} if security == "starttls" else {}
        options |= {"ssl_context": context, "auth_require_tls": False} if security == "tls" else {}
    controller = _OnFreePort(handler, hostname="127.0.0.1", port=0, **options)
    controller.start()
    handler.port, handler.controller = controller.port, controller
    try:
        yield handler
    finally:
        controller.stop()
