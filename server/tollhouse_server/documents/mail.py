"""Statements by e-mail: one message with all documents, handed to the deployment's mail server."""

import hashlib
import smtplib
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from typing import Final, Literal

from tollhouse_server.documents.document import Document

_TIMEOUT_SECONDS: Final = 30.0
_REFUSALS: Final = (smtplib.SMTPResponseException, smtplib.SMTPRecipientsRefused, smtplib.SMTPNotSupportedError)


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


def message_of(
    *, key: str, server: MailServer, recipients: Sequence[str], subject: str, text: str, documents: Sequence[Document]
) -> EmailMessage:
    """Return an e-mail; of the same `key` it has the same id, so that a second one can be told from a new one."""
    message = EmailMessage()
    message["From"] = server.sender
    message["To"] = ", ".join(recipients)
    # A name that its tenant has chosen must not add headers.
    message["Subject"] = " ".join(subject.split())
    message["Message-ID"] = f"<{hashlib.sha256(key.encode()).hexdigest()[:40]}@{server.sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text)
    for document in documents:
        main, _, sub = document.media_type.partition(";")[0].partition("/")
        message.add_attachment(document.content, maintype=main, subtype=sub, filename=document.file_name)
    return message


def send(server: MailServer, message: EmailMessage) -> str:
    """Hand an e-mail to the server, which takes a thread for as long as that lasts; return for whom it was not taken.

    That is a text for people, with the server's answer for each of them, and empty where it was taken for all.

    Raises:
        HandOverUnknown: the connection ended before the server's answer.
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
        refused = _handed_over(connection, message)
        # It is taken: whatever becomes of the farewell must not look like a failure.
        with suppress(OSError):
            connection.quit()
    finally:
        connection.close()
    return "; ".join(
        f"not taken for {address}: {code} {said.decode(errors='replace')}" for address, (code, said) in refused.items()
    )


def _handed_over(connection: smtplib.SMTP, message: EmailMessage) -> dict[str, tuple[int, bytes]]:
    try:
        return connection.send_message(message)
    except _REFUSALS:
        raise
    except OSError as error:
        raise HandOverUnknown(f"{type(error).__name__}: {error}") from error


def _connected(server: MailServer, trust: ssl.SSLContext) -> smtplib.SMTP:
    if server.security == "tls":
        return smtplib.SMTP_SSL(server.host, server.port, timeout=_TIMEOUT_SECONDS, context=trust)
    return smtplib.SMTP(server.host, server.port, timeout=_TIMEOUT_SECONDS)
