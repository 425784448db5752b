"""Deliveries in rounds: what is due is planned, made and sent, each statement once on each of its ways.

A file or an object is written so that doing it twice is doing it once. An e-mail is noted before it is handed over, and
again when the server has answered. Where the second note is missing, because the process or the connection ended in
between, it goes once more with the Message-ID that it had, by which receivers know it; then a person has to look.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from typing import Final

import structlog

from tollhouse_server.chargeback.periods import current_month, month_before, tenant_month
from tollhouse_server.chargeback.statement import Statement
from tollhouse_server.chargeback.statements import StatementQuestion, make_statement
from tollhouse_server.database.engine import Database
from tollhouse_server.database.rounds import in_rounds
from tollhouse_server.database.rows import change
from tollhouse_server.documents import delivery_store as store
from tollhouse_server.documents.document import Document
from tollhouse_server.documents.formats import file_name, format_of
from tollhouse_server.documents.language import language_of
from tollhouse_server.documents.mail import HandOverUnknown, MailServer, message_of, send
from tollhouse_server.documents.tables import DeliveryRow, DeliveryScheduleRow
from tollhouse_server.documents.ways import Ways, write_files
from tollhouse_server.errors import StoreUnavailable, TollhouseError
from tollhouse_server.names import DeliveryName, DepartmentName, Scope, TenantName
from tollhouse_server.reporting.store import begin_snapshot
from tollhouse_server.tenancy.store import read_clocks

_log = structlog.get_logger(__name__)

ROUND_SECONDS: Final = 60.0
MOST_ATTEMPTS: Final = 12
"""With the pauses between them about two days."""

MOST_HAND_OVERS: Final = 2
"""How often an e-mail is handed over whose fate nobody knows: once, and one repetition."""

_FAULT_MOST: Final = 500
_LEASE: Final = timedelta(minutes=10)
_FIRST_PAUSE: Final = timedelta(minutes=1)
_LONGEST_PAUSE: Final = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class Deliveries:
    """Plans and makes deliveries: what the housekeeper does for statements. Several at once do no harm."""

    database: Database
    ways: Ways

    async def run(self) -> None:
        """Deliver what is due, for ever."""
        await in_rounds(self.deliver_due, "deliveries of statements", pause_seconds=ROUND_SECONDS)

    async def deliver_due(self) -> int:
        """Plan what has become due and try all that is to be tried now; return how many went out.

        Raises:
            StoreUnavailable: PostgreSQL is gone; the next round goes on.
        """
        await self._plan()
        delivered = 0
        while name := await self._claim():
            delivered += await self._try(name)
        return delivered

    async def _plan(self) -> None:
        async with self.database.transaction() as session:
            planned = await store.plan_closed(session)
            dated = await store.dated_schedules(session)
            clocks = await read_clocks(session, {schedule.tenant_id for schedule in dated})
            for schedule in dated:
                clock = clocks[schedule.tenant_id]
                month = month_before(current_month(clock))
                due = tenant_month(month, clock).period.end + timedelta(days=schedule.day - 1)
                # A schedule does not begin with what was due before there was one.
                if clock.now >= due and (schedule.created_at is None or due >= schedule.created_at):
                    planned += await store.plan_dated(session, schedule, month)
        if planned:
            _log.info("deliveries_planned", count=planned)

    async def _claim(self) -> DeliveryName | None:
        async with self.database.transaction() as session:
            return await store.claim(session, lease=_LEASE)

    async def _try(self, name: DeliveryName) -> bool:
        async with self.database.within(name.tenant) as session:
            row = await store.get_delivery(session, name)
            schedule = await store.schedule_of(session, row)
        if row.attempts > MOST_ATTEMPTS:
            # A defect that ends the process must not do so for ever, and keep the deliveries of others waiting.
            await self._failed(name, "each attempt has ended the process that made it; its log says why")
            return False
        if row.way == "MAIL" and row.hand_overs >= MOST_HAND_OVERS:
            fault = "handed over twice, and both times nobody heard what became of it: ask a recipient, then retry"
            await self._failed(name, fault, for_good=True)
            return False
        try:
            refused = await self._deliver(row, schedule)
        except StoreUnavailable:
            raise
        except TollhouseError as error:
            await self._failed(name, error.message())
            return False
        except OSError as error:
            # Of a mail server its answer, of a directory what the system says; neither has a password in it.
            await self._failed(name, f"{type(error).__name__}: {error}")
            return False
        async with self.database.within(name.tenant) as session:
            row = await store.get_delivery(session, name, lock=True)
            await change(session, row, state="DELIVERED", delivered_at=datetime.now(UTC), fault=refused[:_FAULT_MOST])
        if refused:
            _log.warning("delivery_not_taken_for_all", delivery=str(name), fault=refused)
        _log.info("statement_delivered", delivery=str(name), way=row.way, month=row.month)
        return True

    async def _failed(self, name: DeliveryName, fault: str, *, for_good: bool = False) -> None:
        async with self.database.within(name.tenant) as session:
            row = await store.get_delivery(session, name, lock=True)
            state = "FAILED" if for_good or row.attempts >= MOST_ATTEMPTS else "PENDING"
            at = datetime.now(UTC) + pause_after(row.attempts)
            await change(session, row, state=state, next_attempt_at=at, fault=fault.replace("\0", "")[:_FAULT_MOST])
        _log.warning("delivery_failed", delivery=str(name), attempts=row.attempts, state=state, fault=fault)

    async def _deliver(self, row: DeliveryRow, schedule: DeliveryScheduleRow) -> str:
        """Deliver, and return for whom an e-mail was not taken; empty where it was for all."""
        recipients = schedule.recipients if row.way == "MAIL" else []
        to_folder, to_bucket = row.way == "FOLDER", row.way == "BUCKET"
        self.ways.check(to_folder=to_folder, to_bucket=to_bucket, recipients=recipients, field="recipients")
        async with self.database.within(row.tenant_id, begin=begin_snapshot) as session:
            statement = await make_statement(session, StatementQuestion(scope=_scope(schedule), month=row.month))
        documents = await asyncio.to_thread(_documents, statement, schedule)
        # Only ids: whoever makes a schedule has no say in where the files are.
        place = (row.tenant_id, row.schedule_id, row.month)
        if to_folder and self.ways.folder is not None:
            await asyncio.to_thread(write_files, self.ways.folder, place, documents)
        elif to_bucket and self.ways.bucket is not None:
            await self.ways.bucket.put(place, documents)
        elif self.ways.mail is not None:
            return await self._mail(row, self.ways.mail, _message(self.ways.mail, row, schedule, statement, documents))
        return ""

    async def _mail(self, row: DeliveryRow, server: MailServer, message: EmailMessage) -> str:
        """Hand a message over, noted before; a server that says no takes the note back."""
        await self._note_hand_overs(row, row.hand_overs + 1)
        try:
            return await asyncio.to_thread(send, server, message)
        except HandOverUnknown:
            raise
        except OSError:
            await self._note_hand_overs(row, row.hand_overs)
            raise

    async def _note_hand_overs(self, row: DeliveryRow, count: int) -> None:
        async with self.database.within(row.tenant_id) as session:
            locked = await store.get_delivery(session, DeliveryName(row.tenant_id, row.delivery_id), lock=True)
            await change(session, locked, hand_overs=count)


def pause_after(attempts: int) -> timedelta:
    """Return how long to wait after so many attempts have failed."""
    doublings = min(max(attempts - 1, 0), 20)
    return min(_FIRST_PAUSE * (1 << doublings), _LONGEST_PAUSE)


def _scope(schedule: DeliveryScheduleRow) -> Scope:
    if schedule.department_id:
        return DepartmentName(schedule.tenant_id, schedule.department_id)
    return TenantName(schedule.tenant_id)


def _message(
    server: MailServer,
    row: DeliveryRow,
    schedule: DeliveryScheduleRow,
    statement: Statement,
    documents: Sequence[Document],
) -> EmailMessage:
    language = language_of(schedule.language)
    month = language.month(statement.month)
    charge = language.money(statement.totals.charge_nanos)
    return message_of(
        key=str(DeliveryName(row.tenant_id, row.delivery_id)),
        server=server,
        recipients=schedule.recipients,
        subject=f"{statement.display_name}: {language.say('title_of', month=month)}",
        text=language.say("mail_text", name=statement.display_name, month=month, charge=charge),
        documents=documents,
    )


def _documents(statement: Statement, schedule: DeliveryScheduleRow) -> list[Document]:
    return [_document(statement, wanted, schedule.language) for wanted in schedule.formats]


def _document(statement: Statement, wanted: str, language: str) -> Document:
    form = format_of(wanted)
    name = file_name(statement, form, language)
    return Document(file_name=name, media_type=form.media_type, content=form.document(statement, language))
