"""Statements by e-mail: one message with all documents, handed to the deployment's mail server."""

import hashlib
import smtplib
import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import parseaddr
from pathlib import Path
from typing import Any, Final, Literal

from tollhouse_server.documents.document import Document

_TIMEOUT_SECONDS: Final = 30.0
_ANSWER_SECONDS: Final = 600.0
"""How long a server may take to look at a message before it answers for it (RFC 5321, section 4.5.3.2.6)."""

_REPLY_SECONDS: Final = 120.0
"""How long a single reply may take altogether: one that comes by the byte would never time out."""

_REFUSALS: Final = (smtplib.SMTPResponseException, smtplib.SMTPRecipientsRefused, smtplib.SMTPNotSupportedError)

_CONTENT_BYTES_A_LINE: Final = 57
_LINE_BYTES: Final = 78
"""How long a line of the message is, with its end, that has so much of a document (RFC 2045, section 6.8)."""


class MailTooLarge(OSError):
    """An e-mail is larger than it may be: trying again does not help."""

    def __init__(self, size_bytes: int, most_bytes: int, whose: str) -> None:
        super().__init__(
            f"the e-mail would have {size_bytes:,} bytes, of which {whose} takes {most_bytes:,}; have the statement "
            "delivered to a folder or into a bucket, or fewer formats of it"
        )


class HandOverUnknown(OSError):
    """The connection ended while a message was handed over: the server has it, or has it not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MailServer:
    """A server that takes e-mail; `domains` are those it may go to, none of them means all.

    `ca_file` has the certificates that vouch for the server's own; None means the system's authorities.
    """

    host: str
    port: int
    sender: str
    security: Literal["starttls", "tls", "none"] = "starttls"
    user: str = ""
    password: str = field(default="", repr=False)
    ca_file: Path | None = None
    domains: tuple[str, ...] = ()
    max_message_bytes: int = 25_000_000

    def check_size(self, documents: Sequence[Document]) -> None:
        """Make sure that an e-mail has room for documents, before it is made: what else it has `send` counts.

        Raises:
            MailTooLarge: it has not.
        """
        lines = sum(-(-len(document.content) // _CONTENT_BYTES_A_LINE) for document in documents)
        self.check_message(lines * _LINE_BYTES)

    def check_message(self, size_bytes: int) -> None:
        """Make sure that an e-mail of a size may be sent; raise MailTooLarge."""
        if size_bytes > self.max_message_bytes:
            raise MailTooLarge(size_bytes, self.max_message_bytes, "this deployment")

    def without_secrets(self, text: str) -> str:
        """Return a text without the password, also as a server has it that repeats what was said to it."""
        if not self.password:
            return text
        forms = (self.password, f"\0{self.user}\0{self.password}")
        for secret in (*(b64encode(form.encode()).decode() for form in forms), self.password):
            text = text.replace(secret, "***")
        return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """For whom an e-mail was not taken, in texts for people: for good, and for the time being (`later`)."""

    refused: str = ""
    postponed: str = ""
    later: tuple[str, ...] = ()


def message_of(
    *, key: str, server: MailServer, recipients: Sequence[str], subject: str, text: str, documents: Sequence[Document]
) -> EmailMessage:
    """Return an e-mail; of the same `key` it has the same id, so that a second one can be told from a new one."""
    message = EmailMessage()
    message["From"] = server.sender
    domain = parseaddr(server.sender)[1].rpartition("@")[2]
    message["To"] = ", ".join(recipients)
    # A name that its tenant has chosen must not add headers.
    message["Subject"] = " ".join(subject.split())
    message["Message-ID"] = f"<{hashlib.sha256(key.encode()).hexdigest()[:40]}@{domain}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text)
    for document in documents:
        main, _, sub = document.media_type.partition(";")[0].partition("/")
        message.add_attachment(document.content, maintype=main, subtype=sub, filename=document.file_name)
    return message


def send(server: MailServer, message: EmailMessage, recipients: Sequence[str]) -> Taken:
    """Hand an e-mail for some recipients to the server, which takes a thread for as long as that lasts.

    Raises:
        HandOverUnknown: the connection ended between the message and the server's answer.
        MailTooLarge: it is larger than it may be, or than the server has said that it takes.
        OSError: the server cannot be reached or trusted, or takes the message for none of the recipients; nobody has
            got it (SMTPException is one).
    """
    trust = ssl.create_default_context(cafile=server.ca_file)
    connection = _connected(server, trust)
    try:
        if server.security == "starttls":
            connection.starttls(context=trust)
        if server.user:
            connection.login(server.user, server.password)
        _check_size(server, connection, message)
        refused = _handed_over(connection, message, recipients)
        # It is taken: whatever becomes of the farewell must not look like a failure.
        with suppress(OSError):
            connection.quit()
    finally:
        connection.close()
    later = {address: answer for address, answer in refused.items() if 400 <= answer[0] < 500}
    for_good = {address: answer for address, answer in refused.items() if address not in later}
    return Taken(refused=_told(for_good), postponed=_told(later), later=tuple(later))


def _told(refused: Mapping[str, tuple[int, bytes]]) -> str:
    return "; ".join(
        f"not taken for {address}: {code} {said.decode(errors='replace')}" for address, (code, said) in refused.items()
    )


def _check_size(server: MailServer, connection: "_Connection", message: EmailMessage) -> None:
    size = len(message.as_bytes(policy=message.policy.clone(linesep="\r\n")))
    server.check_message(size)
    connection.ehlo_or_helo_if_needed()
    # Absent or 0: it has not said what it takes (RFC 1870).
    said = connection.esmtp_features.get("size", "")
    most = int(said) if said.isdecimal() else 0
    if 0 < most < size:
        raise MailTooLarge(size, most, "the mail server")


def _handed_over(
    connection: "_Connection", message: EmailMessage, recipients: Sequence[str]
) -> dict[str, tuple[int, bytes]]:
    try:
        # Not whom the headers name: they are read in a way of their own, and only these have been looked at.
        return connection.send_message(message, to_addrs=recipients)
    except _REFUSALS:
        raise
    except OSError as error:
        if not connection.has_begun:
            raise
        raise HandOverUnknown(f"{type(error).__name__}: {error}") from error


class _Connection(smtplib.SMTP):
    """A connection that knows if a message has begun on it, and ends where a reply takes too long."""

    has_begun = False

    def send(self, s: Any) -> None:
        # Commands are texts, a message is bytes.
        if isinstance(s, bytes) and self.sock is not None:
            self.has_begun = True
            self.sock.settimeout(_ANSWER_SECONDS)
        super().send(s)

    def getreply(self) -> tuple[int, bytes]:
        limit = threading.Timer(_ANSWER_SECONDS if self.has_begun else _REPLY_SECONDS, self._end)
        limit.start()
        try:
            return super().getreply()
        finally:
            limit.cancel()

    def _end(self) -> None:
        if self.sock is not None:
            with suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)


class _PrivateConnection(_Connection, smtplib.SMTP_SSL):
    """One in TLS from its beginning."""


def _connected(server: MailServer, trust: ssl.SSLContext) -> _Connection:
    if server.security == "tls":
        return _PrivateConnection(server.host, server.port, timeout=_TIMEOUT_SECONDS, context=trust)
    return _Connection(server.host, server.port, timeout=_TIMEOUT_SECONDS)
