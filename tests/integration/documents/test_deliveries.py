"""Statements of tenant acme go out: into a directory, and by e-mail to a real server on this machine."""

import email
from collections.abc import Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from tollhouse.admin.v1 import deliveries_pb2
from tollhouse_server.api.mutation import Mutations
from tollhouse_server.api.services.chargeback_service import ChargebackService
from tollhouse_server.api.services.deliveries_service import DeliveryService
from tollhouse_server.database.rows import run_sql
from tollhouse_server.documents import delivery_store as store
from tollhouse_server.documents.bucket import Bucket
from tollhouse_server.documents.deliveries import MOST_ATTEMPTS, WAYS, Deliveries
from tollhouse_server.documents.mail import MailServer, Taken, send
from tollhouse_server.documents.ways import Ways
from tollhouse_server.errors import (
    DeliveryNotSetUp,
    EtagMismatch,
    InvalidRequest,
    ResourceExists,
    ResourceNotFound,
    WrongState,
)

from tests.drivers.books import Books
from tests.drivers.object_store import NAME, open_object_store
from tests.drivers.post import Post
from tests.integration.api.callers import PAGES, ROBOT, by
from tests.integration.chargeback.test_close import closed

pb = deliveries_pb2
PARENT = "tenants/acme"
CFO = "cfo@acme.example"
DELETED = "state = 'DELETED', state_before = 'ACTIVE', purge_at = now() + interval '30 days', deleted_at = now()"


def service_of(books: Books, ways: Ways) -> DeliveryService:
    return DeliveryService(books.database, Mutations(books.database, b"fingerprints"), PAGES, ways)


def schedule(**changes: Any) -> deliveries_pb2.CreateDeliveryScheduleRequest:
    values: dict[str, Any] = {"formats": ["json", "html"], "to_folder": True} | changes
    wanted = pb.DeliverySchedule(**values)
    return pb.CreateDeliveryScheduleRequest(parent=PARENT, delivery_schedule_id="monthly", delivery_schedule=wanted)


async def listed(service: DeliveryService, **values: Any) -> list[deliveries_pb2.Delivery]:
    request = pb.ListDeliveriesRequest(parent=PARENT, **values)
    return list((await service.list_deliveries(request, by(ROBOT))).deliveries)


async def test_a_closed_statement_goes_out_once_into_a_folder_of_its_own(
    books: Books, chargeback: ChargebackService, tmp_path: Path
) -> None:
    """However often the rounds look, and whoever else does, the files are written once."""
    ways = Ways(folder=tmp_path)
    service, deliveries = service_of(books, ways), Deliveries(books.database, ways)
    await service.create_delivery_schedule(schedule(), by(ROBOT))
    assert await deliveries.deliver_due() == 0

    answer = await closed(books, chargeback)
    counts = [await deliveries.deliver_due() for _ in range(3)]

    place = tmp_path / "acme" / "monthly" / "2026-05"
    assert counts == [1, 0, 0]
    assert sorted(path.name for path in place.iterdir()) == [
        "statement-acme-2026-05-en.html",
        "statement-acme-2026-05-en.json",
    ]
    assert answer.period.sha256.encode() in (place / "statement-acme-2026-05-en.json").read_bytes()
    (delivery,) = await listed(service)
    assert (delivery.state, delivery.sha256) == (pb.Delivery.STATE_DELIVERED, answer.period.sha256)
    assert (delivery.attempts, delivery.month, delivery.way) == (1, "2026-05", pb.Delivery.WAY_FOLDER)


async def test_a_closed_statement_goes_into_the_bucket(books: Books, chargeback: ChargebackService) -> None:
    """Below the deployment's prefix, at a place of the schedule's own."""
    with open_object_store() as opened:
        bucket = Bucket(
            endpoint=opened.endpoint,
            name=NAME,
            region="us-east-1",
            prefix="tollhouse",
            access_key_id=opened.access_key_id,
            secret_access_key=opened.secret_access_key,
        )
        service, deliveries = service_of(books, ways := Ways(bucket=bucket)), Deliveries(books.database, ways)
        made = await service.create_delivery_schedule(schedule(to_folder=False, to_bucket=True), by(ROBOT))
        answer = await closed(books, chargeback)

        delivered = await deliveries.deliver_due()
        objects = opened.objects()

    place = "tollhouse/acme/monthly/2026-05/statement-acme-2026-05-en"
    (delivery,) = await listed(service)
    assert (delivered, delivery.way, made.to_bucket, made.to_folder) == (1, pb.Delivery.WAY_BUCKET, True, False)
    assert set(objects) == {f"{place}.html", f"{place}.json"}
    assert answer.period.sha256.encode() in objects[f"{place}.json"][1]


async def test_an_e_mail_has_every_document_and_goes_to_whom_the_schedule_says(
    books: Books, chargeback: ChargebackService, post: tuple[Post, MailServer]
) -> None:
    """One message with all documents, in the reader's language."""
    handler, server = post
    ways = Ways(mail=server)
    wanted = schedule(to_folder=False, recipients=[CFO], language="zh-CN", formats=["xlsx", "focus"])
    await service_of(books, ways).create_delivery_schedule(wanted, by(ROBOT))
    await closed(books, chargeback)

    delivered = await Deliveries(books.database, ways).deliver_due()

    (message,) = handler.messages
    assert (delivered, handler.recipients, message["To"]) == (1, [CFO], CFO)
    assert str(email.header.make_header(email.header.decode_header(message["Subject"]))).endswith("2026年5月账单")
    names = [part.get_filename() for part in message.walk() if part.get_filename()]
    assert names == ["statement-acme-2026-05-zh-Hans.xlsx", "statement-acme-2026-05-zh-Hans.focus.csv"]


async def test_a_recipient_whose_mailbox_is_refused_is_named_beside_what_went_to_the_others(
    books: Books, chargeback: ChargebackService, post: tuple[Post, MailServer]
) -> None:
    """It is delivered once and for all, and somebody can see for whom it was not."""
    handler, server = post
    handler.unknown = "gone@acme.example"
    ways = Ways(mail=server)
    service = service_of(books, ways)
    await service.create_delivery_schedule(schedule(to_folder=False, recipients=[handler.unknown, CFO]), by(ROBOT))
    await closed(books, chargeback)

    delivered = await Deliveries(books.database, ways).deliver_due()

    (delivery,) = await listed(service, state=pb.Delivery.STATE_DELIVERED)
    assert (delivered, handler.recipients) == (1, [CFO])
    assert delivery.fault == "not taken for gone@acme.example: 550 no such mailbox"


async def test_a_delivery_whose_attempts_all_ended_their_process_is_given_up(
    books: Books, chargeback: ChargebackService, tmp_path: Path
) -> None:
    """Else it would end the housekeeper for ever, and keep the deliveries of others waiting."""
    ways = Ways(folder=tmp_path)
    service = service_of(books, ways)
    await service.create_delivery_schedule(schedule(), by(ROBOT))
    await closed(books, chargeback)
    async with books.database.transaction() as session:
        await store.plan_closed(session, WAYS)
        await run_sql(session, "UPDATE delivery SET attempts = :attempts", {"attempts": MOST_ATTEMPTS})

    delivered = await Deliveries(books.database, ways).deliver_due()

    (delivery,) = await listed(service, state=pb.Delivery.STATE_FAILED)
    assert (delivered, _names(tmp_path)) == (0, [])
    assert "ended the process" in delivery.fault


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_a_delivery_that_fails_is_tried_again_later_and_then_waits_for_somebody(
    books: Books, chargeback: ChargebackService, post: tuple[Post, MailServer]
) -> None:
    """What stands against it is to be seen; after the last attempt somebody has it tried anew."""
    handler, server = post
    handler.refusal = "451 mailbox is full"
    ways = Ways(mail=server)
    service, deliveries = service_of(books, ways), Deliveries(books.database, ways)
    await service.create_delivery_schedule(schedule(to_folder=False, recipients=[CFO]), by(ROBOT))
    await closed(books, chargeback)

    assert await deliveries.deliver_due() == 0
    (pending,) = await listed(service, state=pb.Delivery.STATE_PENDING)
    assert "mailbox is full" in pending.fault
    assert pending.next_attempt_time.ToDatetime(UTC) > datetime.now(UTC)
    with pytest.raises(WrongState):
        await service.retry_delivery(pb.RetryDeliveryRequest(name=pending.name), by(ROBOT))
    async with books.database.transaction() as session:
        values = {"attempts": MOST_ATTEMPTS - 1}
        await run_sql(session, "UPDATE delivery SET attempts = :attempts, next_attempt_at = now()", values)
    assert await deliveries.deliver_due() == 0
    (failed,) = await listed(service, state=pb.Delivery.STATE_FAILED)
    handler.refusal = ""
    await service.retry_delivery(pb.RetryDeliveryRequest(name=failed.name, etag=failed.etag), by(ROBOT))

    assert await deliveries.deliver_due() == 1
    assert len(handler.messages) == 1


async def due_now(books: Books) -> None:
    """Let what is under way be taken up again at once, as after the end of its process."""
    async with books.database.transaction() as session:
        await run_sql(session, "UPDATE delivery SET next_attempt_at = now() WHERE state = 'PENDING'")


async def test_an_e_mail_of_unknown_fate_goes_once_more_with_the_same_id_and_not_a_third_time(
    books: Books, chargeback: ChargebackService, post: tuple[Post, MailServer]
) -> None:
    """A receiver can tell the second for what it is; then somebody has to ask, and may have it sent anew."""
    handler, server = post
    handler.hangs_up = True
    ways = Ways(mail=server)
    service, deliveries = service_of(books, ways), Deliveries(books.database, ways)
    await service.create_delivery_schedule(schedule(to_folder=False, recipients=[CFO]), by(ROBOT))
    await closed(books, chargeback)

    for _ in range(4):
        await deliveries.deliver_due()
        await due_now(books)
    (failed,) = await listed(service)
    repeated = [message["Message-ID"] for message in handler.messages]
    handler.hangs_up = False
    await service.retry_delivery(pb.RetryDeliveryRequest(name=failed.name), by(ROBOT))

    assert (failed.state, len(repeated), len(set(repeated))) == (pb.Delivery.STATE_FAILED, 2, 1)
    assert "handed over twice" in failed.fault
    assert await deliveries.deliver_due() == 1


class _Died(BaseException):
    """What ends a process in the middle of a delivery."""


@pytest.mark.parametrize(("dies_at", "messages"), [("before", 1), ("after", 2)])
async def test_a_process_that_dies_about_the_hand_over_repeats_it_at_most_once(
    books: Books,
    chargeback: ChargebackService,
    post: tuple[Post, MailServer],
    monkeypatch: pytest.MonkeyPatch,
    dies_at: str,
    messages: int,
) -> None:
    """Each process dies with it: three of them have sent two at the most, as it is noted before it is sent."""
    handler, server = post
    ways = Ways(mail=server)
    service, deliveries = service_of(books, ways), Deliveries(books.database, ways)
    await service.create_delivery_schedule(schedule(to_folder=False, recipients=[CFO]), by(ROBOT))
    await closed(books, chargeback)

    def dying(server: MailServer, message: EmailMessage, recipients: Sequence[str]) -> Taken:
        if dies_at == "after":
            send(server, message, recipients)
        raise _Died

    with monkeypatch.context() as patched:
        patched.setattr("tollhouse_server.documents.deliveries.send", dying)
        for _ in range(1 if dies_at == "before" else 2):
            with pytest.raises(_Died):
                await deliveries.deliver_due()
            await due_now(books)
    await deliveries.deliver_due()

    assert len(handler.messages) == messages


async def test_a_schedule_by_date_sends_the_month_behind_once_closed_or_not(
    books: Books, chargeback: ChargebackService, tmp_path: Path
) -> None:
    """The last month goes out on its day; what was due before the schedule does not."""
    ways = Ways(folder=tmp_path)
    service, deliveries = service_of(books, ways), Deliveries(books.database, ways)
    await service.create_delivery_schedule(schedule(day=1), by(ROBOT))
    assert await deliveries.deliver_due() == 0
    async with books.database.transaction() as session:
        await _begin_earlier(session)

    counts = [await deliveries.deliver_due() for _ in range(2)]

    assert counts == [1, 0]
    (delivery,) = await listed(service)
    assert (delivery.state, delivery.sha256) == (pb.Delivery.STATE_DELIVERED, "")


async def test_what_was_due_while_nobody_was_there_is_made_up_for(
    books: Books, chargeback: ChargebackService, tmp_path: Path
) -> None:
    """Also the month before the last one: a server that stood still over the end of a month loses no statement."""
    ways = Ways(folder=tmp_path)
    service, deliveries = service_of(books, ways), Deliveries(books.database, ways)
    await service.create_delivery_schedule(schedule(day=1), by(ROBOT))
    async with books.database.transaction() as session:
        await _begin_earlier(session, months=2)

    counts = [await deliveries.deliver_due() for _ in range(2)]

    assert counts == [3, 0]
    assert len({delivery.month for delivery in await listed(service)}) == 3


@pytest.mark.parametrize("day", [0, 1])
async def test_nothing_goes_out_for_a_tenant_that_is_deleted(
    books: Books, chargeback: ChargebackService, tmp_path: Path, day: int
) -> None:
    """Neither what was closed nor what is due by its date."""
    ways = Ways(folder=tmp_path)
    await service_of(books, ways).create_delivery_schedule(schedule(day=day), by(ROBOT))
    await closed(books, chargeback)
    async with books.database.transaction() as session:
        await _begin_earlier(session)
        await run_sql(session, f"UPDATE tenant SET {DELETED} WHERE tenant_id = 'acme'")  # noqa: S608

    assert await Deliveries(books.database, ways).deliver_due() == 0
    assert _names(tmp_path) == []


async def _begin_earlier(session: Any, months: int = 0) -> None:
    """Begin a schedule on the last day before this month, or so many months earlier."""
    insert = """
INSERT INTO delivery_schedule
    (tenant_id, schedule_id, formats, language, day, to_folder, recipients, creator, created_at)
SELECT tenant_id, 'earlier', formats, language, day, to_folder, recipients, creator,
    date_trunc('month', now(), 'UTC') - make_interval(months => :months) - interval '1 day'
FROM delivery_schedule"""
    await run_sql(session, insert, {"months": months})


async def test_schedules_are_read_listed_and_end(books: Books, chargeback: ChargebackService, tmp_path: Path) -> None:
    """One that has ended sends nothing any more, and its id stays taken."""
    ways = Ways(folder=tmp_path)
    service = service_of(books, ways)
    made = await service.create_delivery_schedule(schedule(scope=f"{PARENT}/departments/sales", day=3), by(ROBOT))

    assert await service.get_delivery_schedule(pb.GetDeliveryScheduleRequest(name=made.name), by(ROBOT)) == made
    page = await service.list_delivery_schedules(pb.ListDeliverySchedulesRequest(parent=PARENT), by(ROBOT))
    assert list(page.delivery_schedules) == [made]
    with pytest.raises(EtagMismatch):
        stale = pb.DeleteDeliveryScheduleRequest(name=made.name, etag="9")
        await service.delete_delivery_schedule(stale, by(ROBOT))
    gone = pb.DeleteDeliveryScheduleRequest(name=made.name, etag=made.etag)
    await service.delete_delivery_schedule(gone, by(ROBOT))
    with pytest.raises(ResourceNotFound):
        await service.get_delivery_schedule(pb.GetDeliveryScheduleRequest(name=made.name), by(ROBOT))
    with pytest.raises(ResourceExists):
        await service.create_delivery_schedule(schedule(), by(ROBOT))
    await closed(books, chargeback)
    assert await Deliveries(books.database, ways).deliver_due() == 0


_NEVER: tuple[tuple[dict[str, Any], type[Exception]], ...] = (
    ({"recipients": [CFO]}, DeliveryNotSetUp),
    ({"to_bucket": True}, DeliveryNotSetUp),
    ({"to_folder": False}, InvalidRequest),
    ({"formats": ["docx"]}, InvalidRequest),
    ({"language": "fr"}, InvalidRequest),
    ({"scope": "tenants/globex"}, InvalidRequest),
    ({"scope": "tenants/acme/departments/nobody"}, ResourceNotFound),
)


async def test_what_could_never_be_delivered_is_refused_at_once(
    books: Books, chargeback: ChargebackService, tmp_path: Path
) -> None:
    """Not at the end of the month, when nobody looks."""
    service = service_of(books, Ways(folder=tmp_path))

    for changes, error in _NEVER:
        with pytest.raises(error):
            await service.create_delivery_schedule(schedule(**changes), by(ROBOT))


def test_e_mail_goes_only_where_the_deployment_lets_it(post: tuple[Post, MailServer]) -> None:
    """A tenant's finance cannot send figures to whom the company does not know."""
    ways = Ways(mail=post[1])

    ways.check(to_folder=False, recipients=[CFO], field="recipients")
    with pytest.raises(InvalidRequest) as caught:
        ways.check(to_folder=False, recipients=["a@evil.example"], field="recipients")

    assert "acme.example" in caught.value.violations[0].description
