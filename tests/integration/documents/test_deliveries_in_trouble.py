"""Deliveries of tenant acme with what goes wrong about them: slow housekeepers, servers that hang, a deleted tenant."""

import asyncio
import socket
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tollhouse.admin.v1 import deliveries_pb2
from tollhouse_server.api.services.chargeback_service import ChargebackService
from tollhouse_server.database.rows import run_sql
from tollhouse_server.documents import delivery_store as store
from tollhouse_server.documents.deliveries import WAYS, Deliveries
from tollhouse_server.documents.deliveries import _documents as documents_of
from tollhouse_server.documents.folder import FolderFailed
from tollhouse_server.documents.mail import MailServer
from tollhouse_server.documents.ways import Ways

from tests.drivers.books import Books
from tests.drivers.post import Post
from tests.integration.api.callers import ROBOT, by
from tests.integration.chargeback.test_close import closed
from tests.integration.documents.test_deliveries import CFO, DELETED, due_now, listed, schedule, service_of

pb = deliveries_pb2


async def test_who_has_lost_a_delivery_to_another_changes_nothing_about_it(
    books: Books, chargeback: ChargebackService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A housekeeper that was slower than its lease fails after another has delivered: nothing goes out again."""
    ways = Ways(folder=tmp_path)
    service, slow, quick = service_of(books, ways), *(Deliveries(books.database, ways) for _ in range(2))
    await service.create_delivery_schedule(schedule(), by(ROBOT))
    await closed(books, chargeback)
    begun, overtaken = threading.Event(), threading.Event()

    def failing(*_: object) -> None:
        begun.set()
        overtaken.wait(20)
        raise FolderFailed("the disk of the slow one")

    with monkeypatch.context() as patched:
        patched.setattr("tollhouse_server.documents.deliveries.write_files", failing)
        failure = asyncio.create_task(slow.deliver_due())
        await asyncio.to_thread(begun.wait, 20)
    await due_now(books)
    delivered = await quick.deliver_due()
    overtaken.set()

    assert (delivered, await failure) == (1, 0)
    (delivery,) = await listed(service)
    assert (delivery.state, delivery.fault) == (pb.Delivery.STATE_DELIVERED, "")


async def test_an_e_mail_is_not_handed_over_by_who_has_lost_it_to_another(
    books: Books, chargeback: ChargebackService, post: tuple[Post, MailServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What takes long is to make the documents: before it is sent, he looks whether it is still his."""
    handler, server = post
    ways = Ways(mail=server)
    slow, quick = (Deliveries(books.database, ways) for _ in range(2))
    await service_of(books, ways).create_delivery_schedule(schedule(to_folder=False, recipients=[CFO]), by(ROBOT))
    await closed(books, chargeback)
    begun, overtaken = threading.Event(), threading.Event()

    def slowly(*given: Any) -> Any:
        begun.set()
        overtaken.wait(20)
        return documents_of(*given)

    with monkeypatch.context() as patched:
        patched.setattr("tollhouse_server.documents.deliveries._documents", slowly)
        loss = asyncio.create_task(slow.deliver_due())
        await asyncio.to_thread(begun.wait, 20)
    await due_now(books)
    delivered = await quick.deliver_due()
    overtaken.set()

    assert (delivered, await loss, len(handler.messages)) == (1, 0, 1)


async def test_a_statement_that_is_too_large_for_e_mail_says_so_at_once_and_goes_into_the_folder(
    books: Books, chargeback: ChargebackService, post: tuple[Post, MailServer], tmp_path: Path
) -> None:
    """It is not tried again for two days: it would not get smaller."""
    handler, server = post
    ways = Ways(folder=tmp_path, mail=replace(server, max_message_bytes=2_000))
    service = service_of(books, ways)
    await service.create_delivery_schedule(schedule(recipients=[CFO], formats=["html", "json"]), by(ROBOT))
    await closed(books, chargeback)

    delivered = await Deliveries(books.database, ways).deliver_due()

    (failed,) = await listed(service, state=pb.Delivery.STATE_FAILED)
    assert (delivered, handler.messages, failed.attempts) == (1, [], 1)
    assert failed.fault.startswith("the e-mail would have ")
    assert "of which this deployment takes 2,000; have the statement delivered to a folder" in failed.fault
    assert len(_written(tmp_path)) == 2


def _written(folder: Path) -> list[Path]:
    return list(folder.rglob("statement-*"))


async def test_what_was_planned_waits_while_its_tenant_is_deleted(
    books: Books, chargeback: ChargebackService, tmp_path: Path
) -> None:
    """Nothing of a deleted tenant goes out, and all of it once the tenant is back."""
    ways = Ways(folder=tmp_path)
    await service_of(books, ways).create_delivery_schedule(schedule(), by(ROBOT))
    await closed(books, chargeback)
    async with books.database.transaction() as session:
        await store.plan_closed(session, WAYS)
        await run_sql(session, f"UPDATE tenant SET {DELETED} WHERE tenant_id = 'acme'")  # noqa: S608

    assert await Deliveries(books.database, ways).deliver_due() == 0
    async with books.database.transaction() as session:
        back = "state = 'ACTIVE', state_before = NULL, purge_at = NULL, deleted_at = NULL"
        await run_sql(session, f"UPDATE tenant SET {back} WHERE tenant_id = 'acme'")  # noqa: S608
    assert await Deliveries(books.database, ways).deliver_due() == 1


async def test_a_mail_server_that_hangs_keeps_no_files_waiting(
    books: Books, chargeback: ChargebackService, tmp_path: Path
) -> None:
    """Each way has rounds of its own."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = MailServer(host="127.0.0.1", port=silent.getsockname()[1], sender="a@host.example", security="none")
        ways = Ways(folder=tmp_path, mail=server)
        await service_of(books, ways).create_delivery_schedule(schedule(recipients=[CFO]), by(ROBOT))
        await closed(books, chargeback)
        deliveries = Deliveries(books.database, ways)
        mailing = asyncio.create_task(deliveries.deliver_due("MAIL"))
        connection, _ = await asyncio.to_thread(silent.accept)

        assert await deliveries.deliver_due("FOLDER", "BUCKET") == 1

        assert not mailing.done()
        connection.close()
        assert await mailing == 0


async def test_an_e_mail_goes_again_only_to_whom_the_server_wanted_it_later(
    books: Books, chargeback: ChargebackService, post: tuple[Post, MailServer]
) -> None:
    """As the same message; the others have had it."""
    handler, server = post
    handler.later = ["new@acme.example"]
    ways = Ways(mail=server)
    service, deliveries = service_of(books, ways), Deliveries(books.database, ways)
    await service.create_delivery_schedule(schedule(to_folder=False, recipients=["new@acme.example", CFO]), by(ROBOT))
    await closed(books, chargeback)

    first, had = await deliveries.deliver_due(), handler.recipients
    (pending,) = await listed(service)
    handler.later = []
    await due_now(books)
    second = await deliveries.deliver_due()

    assert (first, had, second, handler.recipients) == (0, [CFO], 1, ["new@acme.example"])
    assert "450 greylisted" in pending.fault
    assert len({message["Message-ID"] for message in handler.messages}) == 1
    (delivery,) = await listed(service)
    assert (delivery.state, delivery.fault) == (pb.Delivery.STATE_DELIVERED, "")


async def test_who_was_refused_for_good_is_named_also_after_the_others_have_it(
    books: Books, chargeback: ChargebackService, post: tuple[Post, MailServer]
) -> None:
    """Somebody has to look for another address, however often the others had to be tried."""
    handler, server = post
    new = [f"new-{number}@acme.example" for number in range(9)]
    handler.unknown = "gone@acme.example"
    ways = Ways(mail=server)
    service, deliveries = service_of(books, ways), Deliveries(books.database, ways)
    recipients = ["gone@acme.example", *new, CFO]
    await service.create_delivery_schedule(schedule(to_folder=False, recipients=recipients), by(ROBOT))
    await closed(books, chargeback)

    faults = []
    for later, refusal in ((new, ""), ([], "451 full"), ([], "")):
        handler.later, handler.refusal = later, refusal
        await deliveries.deliver_due()
        (delivery,) = await listed(service)
        faults.append(delivery.fault)
        await due_now(books)

    gone = "not taken for gone@acme.example: 550 no such mailbox"
    assert faults[0].startswith("not taken for new-0@acme.example: 450 greylisted, try again later; ")
    assert faults[0].endswith(gone), "who comes later leaves no room"
    assert "451" in faults[1] and faults[1].endswith(gone)
    assert (delivery.state, faults[2], handler.recipients) == (pb.Delivery.STATE_DELIVERED, gone, new)
