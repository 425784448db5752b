"""E-mail over connections that are kept private, to a real server on this machine with a certificate made here."""

import logging
import smtplib
import socket
import ssl
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from tollhouse_server.documents.document import Document
from tollhouse_server.documents.mail import HandOverUnknown, MailServer, MailTooLarge, Taken, message_of, send

from tests.drivers.authority import Authority, Identity
from tests.drivers.post import PASSWORD, USER, Post, open_post

AUTHORITY = Authority.new()
CFO = "cfo@acme.example"
Security = Literal["starttls", "tls"]
BOTH = pytest.mark.parametrize("security", ["starttls", "tls"])


def server_of(post: Post, folder: Path, security: Literal["starttls", "tls", "none"], **changes: Any) -> MailServer:
    """Return the server as the settings describe it, trusted by the tests' authority alone."""
    trusted = folder / "authority.pem"
    trusted.write_bytes(AUTHORITY.pem)
    values: dict[str, Any] = {"host": "localhost", "port": post.port, "sender": "tollhouse@host.example"}
    values |= {"security": security, "user": USER, "password": PASSWORD, "ca_file": trusted}
    return MailServer(**(values | changes))


def sent(server: MailServer, *recipients: str) -> Taken:
    """Send a short message."""
    message = message_of(
        key="tenants/acme/deliveries/dl-1", server=server, recipients=[CFO], subject="May", text="42", documents=[]
    )
    return send(server, message, recipients or [CFO])


@BOTH
def test_a_message_goes_out_in_tls_with_a_login(tmp_path: Path, security: Security) -> None:
    """Over STARTTLS and over TLS from the beginning, to a server whose authority is set."""
    with open_post(security, AUTHORITY.server(), tmp_path) as post:
        refused = sent(server_of(post, tmp_path, security))

    (message,) = post.messages
    assert (refused, post.users, message["To"]) == (Taken(), [USER], CFO)
    assert str(message.get_payload()).strip() == "42"


def _of_another_host() -> Identity:
    return AUTHORITY.issue("elsewhere.example")


def _of_another_authority() -> Identity:
    return Authority.new().server()


@BOTH
@pytest.mark.parametrize("identity", [_of_another_host, _of_another_authority])
def test_a_wrong_certificate_gets_neither_password_nor_message(
    tmp_path: Path, security: Security, identity: Any
) -> None:
    """One of another host, or of an authority that is not trusted."""
    with open_post(security, identity(), tmp_path) as post, pytest.raises(ssl.SSLCertVerificationError):
        sent(server_of(post, tmp_path, security))

    assert (post.users, post.messages) == ([], [])


def test_a_server_without_starttls_gets_nothing(tmp_path: Path) -> None:
    """Somebody between who takes the offer away does not get the password in clear."""
    with open_post() as post, pytest.raises(smtplib.SMTPNotSupportedError):
        sent(server_of(post, tmp_path, "starttls"))

    assert post.messages == []


@BOTH
def test_a_wrong_password_is_told_and_not_repeated(
    tmp_path: Path, security: Security, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the error nor what is logged has a password in it, and nor has the server's description."""
    caplog.set_level(logging.DEBUG)
    with open_post(security, AUTHORITY.server(), tmp_path) as post:
        server = server_of(post, tmp_path, security, password="not the password")
        with pytest.raises(smtplib.SMTPAuthenticationError) as caught:
            sent(server)

    assert post.messages == []
    # What the server at the other end logs is its own.
    logged = [record.getMessage() for record in caplog.records if not record.name.startswith("mail")]
    assert "not the password" not in f"{server!r} {logged}"
    assert server.without_secrets(str(caught.value)) == "(535, b'not *** (***)')"


def test_a_connection_that_ends_before_the_answer_leaves_the_outcome_unknown() -> None:
    """The server has the message; whoever sent it cannot know, and a refusal is something else."""
    with open_post() as post:
        server = MailServer(host="127.0.0.1", port=post.port, sender="a@host.example", security="none")
        post.hangs_up = True
        with pytest.raises(HandOverUnknown):
            sent(server)
        post.hangs_up, post.refusal = False, "451 mailbox is full"
        with pytest.raises(smtplib.SMTPDataError):
            sent(server)

    assert len(post.messages) == 1


def test_the_same_delivery_has_the_same_message_id_and_another_has_another() -> None:
    """By it receivers drop a repetition."""
    server = MailServer(host="h", port=1, sender="a@host.example")
    ids = [
        message_of(key=key, server=server, recipients=[CFO], subject="s", text="t", documents=[])["Message-ID"]
        for key in ("one", "one", "two")
    ]

    assert ids[0] == ids[1] != ids[2]
    assert ids[0].endswith("@host.example>")


def plain(port: int) -> MailServer:
    """Return a server without TLS."""
    return MailServer(host="127.0.0.1", port=port, sender="Tollhouse <a@host.example>", security="none")


def test_a_connection_that_ends_before_the_message_has_begun_is_a_failure_like_others() -> None:
    """Nobody has the message: that is known, and it may be tried as often as anything."""
    with open_post() as post:
        post.hangs_up_at = CFO

        with pytest.raises(smtplib.SMTPServerDisconnected):
            sent(plain(post.port))

    assert post.messages == []


def test_who_is_to_have_it_later_is_told_from_who_never_will() -> None:
    """A server that does not know a sender yet, or a mailbox that is full, wants it again."""
    with open_post() as post:
        post.later, post.unknown = ["new@acme.example"], "gone@acme.example"

        taken = sent(plain(post.port), CFO, "new@acme.example", "gone@acme.example")

    assert taken.later == ("new@acme.example",)
    assert taken.postponed.startswith("not taken for new@acme.example: 450")
    assert taken.refused.startswith("not taken for gone@acme.example: 550")


def test_a_server_may_look_at_a_message_for_longer_than_at_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten minutes, says the standard; who hangs up before has it sent twice."""
    monkeypatch.setattr("tollhouse_server.documents.mail._TIMEOUT_SECONDS", 0.5)
    with open_post() as post:
        post.thinks_seconds = 1.0

        taken = sent(plain(post.port))

    assert (taken, len(post.messages)) == (Taken(), 1)


def test_a_server_that_answers_by_the_byte_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes in time, and the reply never does."""
    monkeypatch.setattr("tollhouse_server.documents.mail._REPLY_SECONDS", 0.5)
    over = threading.Event()

    def drip(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection, suppress(OSError):
            while not over.wait(0.02):
                connection.send(b"2")

    with socket.create_server(("127.0.0.1", 0)) as server:
        dripping = threading.Thread(target=drip, args=(server,))
        dripping.start()

        with pytest.raises(OSError):
            sent(plain(server.getsockname()[1]))

        over.set()
        dripping.join()


def test_a_server_that_takes_no_such_message_is_not_sent_it() -> None:
    """It has said so in its greeting: nothing of the message goes out, and who waits is told what would help."""
    large = Document(file_name="statement.csv", media_type="text/csv", content=bytes(100_000))
    with open_post() as post:
        post.takes_bytes(100_000)
        server = plain(post.port)
        message = message_of(key="k", server=server, recipients=[CFO], subject="s", text="t", documents=[large])

        with pytest.raises(
            MailTooLarge, match="the mail server takes 100,000; have the statement delivered to a folder"
        ):
            send(server, message, [CFO])
        # The document alone has 136,890 there.
        post.takes_bytes(137_000)
        with pytest.raises(MailTooLarge, match="the mail server takes 137,000"):
            send(server, message, [CFO])
        post.takes_bytes(140_000)
        with pytest.raises(MailTooLarge, match="this deployment takes 137,000"):
            send(replace(server, max_message_bytes=137_000), message, [CFO])
        send(server, message, [CFO])

    assert len(post.messages) == 1


def test_documents_that_are_too_large_for_e_mail_are_refused_by_their_size_in_it() -> None:
    """A document is a third larger in a message."""
    server = MailServer(host="h", port=1, sender="a@host.example", max_message_bytes=1_368_500)
    halves = [Document(file_name=name, media_type="text/csv", content=bytes(500_000)) for name in ("a", "b")]

    server.check_size(halves)
    with pytest.raises(MailTooLarge, match=r"would have 1,368,[0-9]{3} bytes.* fewer formats"):
        replace(server, max_message_bytes=1_368_000).check_size(halves)


def test_a_sender_with_a_name_has_an_id_of_his_domain() -> None:
    """A Message-ID that is not well formed is what receivers take for spam."""
    message = message_of(key="k", server=plain(1), recipients=[CFO], subject="s", text="t", documents=[])

    assert message["Message-ID"].endswith("@host.example>")
    assert message["Message-ID"].count(">") == 1
