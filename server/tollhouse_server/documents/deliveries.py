"""Deliveries in rounds: what is due is planned, made and sent, each statement once on each of its ways.

A file is written so that doing it twice is doing it once. An e-mail is handed over at most once unless the process ends
between that and writing it down; then it goes again, with the id that it had.
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
from tollhouse_server.documents.formats import file_name, format_of
from tollhouse_server.documents.language import language_of
from tollhouse_server.documents.tables import DeliveryRow, DeliveryScheduleRow
from tollhouse_server.documents.ways import Document, MailServer, Ways, message_of, send, write_files
from tollhouse_server.errors import StoreUnavailable, TollhouseError
from tollhouse_server.names import DeliveryName, DepartmentName, Scope, TenantName
from tollhouse_server.reporting.store import begin_snapshot
from tollhouse_server.tenancy.store import read_clocks

_log = structlog.get_logger(__name__)

ROUND_SECONDS: Final = 60.0
MOST_ATTEMPTS: Final = 12
"""With the pauses between them about two days."""

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

    async def _failed(self, name: DeliveryName, fault: str) -> None:
        async with self.database.within(name.tenant) as session:
            row = await store.get_delivery(session, name, lock=True)
            state = "FAILED" if row.attempts >= MOST_ATTEMPTS else "PENDING"
            at = datetime.now(UTC) + pause_after(row.attempts)
            await change(session, row, state=state, next_attempt_at=at, fault=fault.replace("\0", "")[:_FAULT_MOST])
        _log.warning("delivery_failed", delivery=str(name), attempts=row.attempts, state=state, fault=fault)

    async def _deliver(self, row: DeliveryRow, schedule: DeliveryScheduleRow) -> str:
        """Deliver, and return for whom an e-mail was not taken; empty where it was for all."""
        recipients = schedule.recipients if row.way == "MAIL" else []
        self.ways.check(to_folder=row.way == "FOLDER", recipients=recipients, field="recipients")
        async with self.database.within(row.tenant_id, begin=begin_snapshot) as session:
            statement = await make_statement(session, StatementQuestion(scope=_scope(schedule), month=row.month))
        return await asyncio.to_thread(self._hand_over, row, schedule, statement)

    def _hand_over(self, row: DeliveryRow, schedule: DeliveryScheduleRow, statement: Statement) -> str:
        documents = [_document(statement, wanted, schedule.language) for wanted in schedule.formats]
        if row.way == "FOLDER" and self.ways.folder is not None:
            # Only ids: whoever makes a schedule has no say in where the files are.
            write_files(self.ways.folder, (row.tenant_id, row.schedule_id, row.month), documents)
        elif row.way == "MAIL" and self.ways.mail is not None:
            return send(self.ways.mail, _message(self.ways.mail, row, schedule, statement, documents))
        return ""


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


def _document(statement: Statement, wanted: str, language: str) -> Document:
    form = format_of(wanted)
    name = file_name(statement, form, language)
    return Document(file_name=name, media_type=form.media_type, content=form.document(statement, language))
