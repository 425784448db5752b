"""Where documents go: into a directory of the deployment's, or by e-mail."""

import hashlib
import os
import smtplib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from typing import Final, Literal

from tollhouse_server.errors import DeliveryNotSetUp
from tollhouse_server.names import invalid

_TIMEOUT_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A document as a file: its name without a place."""

    file_name: str
    media_type: str
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class MailServer:
    """A server that takes e-mail; `domains` are those it may go to, none of them means all."""

    host: str
    port: int
    sender: str
    security: Literal["starttls", "tls", "none"] = "starttls"
    user: str = ""
    password: str = field(default="", repr=False)
    domains: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """What a deployment has to deliver with; None where it has no such way."""

    folder: Path | None = None
    mail: MailServer | None = None

    def check(self, *, to_folder: bool, recipients: Sequence[str], field: str) -> None:
        """Make sure that the deployment can deliver so.

        Raises:
            DeliveryNotSetUp: it has no such way.
            InvalidRequest: a recipient, in the request's `field`, is where e-mail must not go.
        """
        if to_folder and self.folder is None:
            raise DeliveryNotSetUp(way="to a folder", setting="TOLLHOUSE_DELIVERY_DIR")
        if recipients and self.mail is None:
            raise DeliveryNotSetUp(way="by e-mail", setting="TOLLHOUSE_SMTP_HOST")
        allowed = self.mail.domains if self.mail else ()
        for recipient in recipients:
            if allowed and recipient.rpartition("@")[2].lower() not in allowed:
                raise invalid(field, f"may only be in {', '.join(allowed)}, as whoever runs this deployment has set")


def write_files(folder: Path, place: Sequence[str], documents: Sequence[Document]) -> None:
    """Write documents below a directory, at a place made of ids; each is whole or not there, and again the same.

    Raises:
        OSError: the directory cannot be written to.
    """
    target = folder.joinpath(*place)
    target.mkdir(parents=True, exist_ok=True)
    for document in documents:
        # Unlike any name of a document, so that whoever collects files by their endings never takes half of one.
        draft = target / f".{document.file_name}.part"
        with draft.open("wb") as file:
            file.write(document.content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target / document.file_name)


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
        OSError: the server cannot be reached, or takes the message for none of the recipients (SMTPException is one).
    """
    trust = ssl.create_default_context()
    with _connected(server, trust) as connection:
        if server.security == "starttls":
            connection.starttls(context=trust)
        if server.user:
            connection.login(server.user, server.password)
        refused = connection.send_message(message)
    return "; ".join(
        f"not taken for {address}: {code} {said.decode(errors='replace')}" for address, (code, said) in refused.items()
    )


def _connected(server: MailServer, trust: ssl.SSLContext) -> smtplib.SMTP:
    if server.security == "tls":
        return smtplib.SMTP_SSL(server.host, server.port, timeout=_TIMEOUT_SECONDS, context=trust)
    return smtplib.SMTP(server.host, server.port, timeout=_TIMEOUT_SECONDS)
