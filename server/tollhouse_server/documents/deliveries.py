"""Deliveries in rounds: what is due is planned, made and sent, each statement once on each of its ways.

A file or an object is written so that doing it twice is doing it once. An e-mail is noted before it is handed over, and
again when the server has answered. Where the second note is missing, because the process or the connection ended in
between, it goes once more with the Message-ID that it had, by which receivers know it; then a person has to look.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from functools import partial
from typing import Final

import structlog

from tollhouse_server.chargeback.statement import Statement
from tollhouse_server.chargeback.statements import StatementQuestion, make_statement
from tollhouse_server.database.engine import Database
from tollhouse_server.database.rounds import in_rounds
from tollhouse_server.database.rows import change
from tollhouse_server.documents import delivery_store as store
from tollhouse_server.documents.delivery_store import Claim
from tollhouse_server.documents.document import Document
from tollhouse_server.documents.folder import write_files
from tollhouse_server.documents.formats import file_name, format_of
from tollhouse_server.documents.language import language_of
from tollhouse_server.documents.mail import HandOverUnknown, MailServer, MailTooLarge, Taken, message_of, send
from tollhouse_server.documents.planning import plan
from tollhouse_server.documents.tables import DeliveryRow, DeliveryScheduleRow
from tollhouse_server.documents.ways import Ways
from tollhouse_server.errors import StoreUnavailable, TollhouseError
from tollhouse_server.names import DeliveryName, DepartmentName, Scope, TenantName
from tollhouse_server.reporting.store import begin_snapshot

_log = structlog.get_logger(__name__)

WAYS: Final = ("FOLDER", "BUCKET", "MAIL")

ROUND_SECONDS: Final = 60.0
MOST_ATTEMPTS: Final = 12
"""With the pauses between them about two days."""

MOST_HAND_OVERS: Final = 2
"""How often an e-mail is handed over whose fate nobody knows: once, and one repetition."""

_FAULT_MOST: Final = 500
_LEASE: Final = timedelta(minutes=15)

_FIRST_PAUSE: Final = timedelta(minutes=1)
_LONGEST_PAUSE: Final = timedelta(hours=6)


class _OvertakenError(Exception):
    """Somebody else has taken a delivery up, or ended it: the lease of this attempt has run out."""


@dataclass(frozen=True, slots=True)
class Deliveries:
    """Plans and makes deliveries: what the housekeeper does for statements. Several at once do no harm."""

    database: Database
    ways: Ways

    async def run(self, way: str) -> None:
        """Deliver what is due on a way, for ever: one that hangs keeps no other waiting."""
        await in_rounds(partial(self.deliver_due, way), f"deliveries of statements, {way}", pause_seconds=ROUND_SECONDS)

    async def deliver_due(self, *ways: str) -> int:
        """Plan what has become due on these ways, or on all, and try all that is to be tried; return how many went out.

        Raises:
            StoreUnavailable: PostgreSQL is gone; the next round goes on.
        """
        ways = ways or WAYS
        async with self.database.transaction() as session:
            planned = await plan(session, ways)
        if planned:
            _log.info("deliveries_planned", count=planned)
        delivered = 0
        while claim := await self._claim(ways):
            delivered += await self._try(claim)
        return delivered

    async def _claim(self, ways: Sequence[str]) -> Claim | None:
        async with self.database.transaction() as session:
            return await store.claim(session, ways, lease=_LEASE)

    async def _try(self, claim: Claim) -> bool:
        async with self.database.within(claim.name.tenant) as session:
            row = await store.get_delivery(session, claim.name)
            schedule = await store.schedule_of(session, row)
        if fault := _hopeless(row):
            await self._failed(claim, fault, refused=row.refused, for_good=True)
            return False
        try:
            taken = await self._deliver(claim, row, schedule)
            return await self._delivered(claim, taken, refused_before=row.refused)
        except StoreUnavailable:
            raise
        except _OvertakenError:
            # Whoever has it now tells what becomes of it.
            _log.warning("delivery_overtaken", delivery=str(claim.name), attempt=claim.attempt)
        except MailTooLarge as error:
            await self._failed(claim, str(error), refused=row.refused, for_good=True)
        except TollhouseError as error:
            await self._failed(claim, error.message(), refused=row.refused)
        except OSError as error:
            # Of a mail server its answer, of a directory what the system says.
            await self._failed(claim, f"{type(error).__name__}: {error}", refused=row.refused)
        return False

    async def _delivered(self, claim: Claim, taken: Taken, *, refused_before: str) -> bool:
        refused = self._told(refused_before, taken.refused)
        if taken.later:
            # It has been taken for the others; who is asked to come again later does so.
            await self._failed(claim, taken.postponed, refused=refused, recipients_left=list(taken.later))
            return False
        ended = {"state": "DELIVERED", "delivered_at": datetime.now(UTC)}
        await self._change(claim, **ended, fault=refused, refused=refused, recipients_left=[])
        if refused:
            _log.warning("delivery_not_taken_for_all", delivery=str(claim.name), fault=refused)
        _log.info("statement_delivered", delivery=str(claim.name))
        return True

    async def _failed(
        self, claim: Claim, fault: str, *, refused: str, for_good: bool = False, **values: object
    ) -> None:
        state = "FAILED" if for_good or claim.attempt >= MOST_ATTEMPTS else "PENDING"
        at = datetime.now(UTC) + pause_after(claim.attempt)
        told = self._told(fault, refused)
        with suppress(_OvertakenError):
            await self._change(claim, state=state, next_attempt_at=at, fault=told, refused=refused, **values)
        _log.warning("delivery_failed", delivery=str(claim.name), attempts=claim.attempt, state=state, fault=told)

    def _told(self, *texts: str) -> str:
        """Return what others have said as it may be shown and stored: no secrets, no NUL, not too long."""
        said = [self.ways.without_secrets(text).replace("\0", "") for text in texts if text]
        # Each has its share of the room: a long one leaves what comes behind it.
        return "; ".join(one[: _FAULT_MOST // len(said)] for one in said)[:_FAULT_MOST]

    async def _change(self, claim: Claim, **values: object) -> None:
        """Write to a delivery that is still the claimer's.

        Raises:
            _OvertakenError: it is not.
        """
        async with self.database.within(claim.name.tenant) as session:
            row = await store.find_claimed(session, claim)
            if row is None:
                raise _OvertakenError
            await change(session, row, **values)

    async def _deliver(self, claim: Claim, row: DeliveryRow, schedule: DeliveryScheduleRow) -> Taken:
        """Deliver, and return for whom an e-mail was not taken."""
        recipients = schedule.recipients if row.way == "MAIL" else []
        to_folder, to_bucket = row.way == "FOLDER", row.way == "BUCKET"
        self.ways.check(to_folder=to_folder, to_bucket=to_bucket, recipients=recipients, field="recipients")
        async with self.database.within(row.tenant_id, begin=begin_snapshot) as session:
            statement = await make_statement(session, StatementQuestion(scope=_scope(schedule), month=row.month))
        documents = await asyncio.to_thread(_documents, statement, schedule, self.ways.mail if recipients else None)
        # Only ids: whoever makes a schedule has no say in where the files are.
        place = (row.tenant_id, row.schedule_id, row.month)
        if to_folder and self.ways.folder is not None:
            await asyncio.to_thread(write_files, self.ways.folder, place, documents)
        elif to_bucket and self.ways.bucket is not None:
            # From here on it is nobody else's for as long as that may take.
            until = datetime.now(UTC) + _LEASE + self.ways.bucket.longest(documents)
            await self._change(claim, next_attempt_at=until)
            await self.ways.bucket.put(place, documents)
        elif self.ways.mail is not None:
            message = _message(self.ways.mail, row, schedule, statement, documents)
            return await self._mail(claim, row, self.ways.mail, message, row.recipients_left or recipients)
        return Taken()

    async def _mail(
        self, claim: Claim, row: DeliveryRow, server: MailServer, message: EmailMessage, recipients: Sequence[str]
    ) -> Taken:
        """Hand a message over, noted before; an answer, be it a no, takes the note back."""
        # From here on it is nobody else's for as long as a server may take.
        until = datetime.now(UTC) + _LEASE
        await self._change(claim, hand_overs=row.hand_overs + 1, next_attempt_at=until)
        try:
            taken = await asyncio.to_thread(send, server, message, recipients)
        except HandOverUnknown:
            raise
        except OSError:
            await self._change(claim, hand_overs=row.hand_overs)
            raise
        if taken.later:
            await self._change(claim, hand_overs=row.hand_overs)
        return taken


def _hopeless(row: DeliveryRow) -> str:
    """Return why a delivery is not tried again, empty where it is."""
    if row.attempts > MOST_ATTEMPTS:
        # A defect that ends the process must not do so for ever, and keep the deliveries of others waiting.
        return "each attempt has ended the process that made it; its log says why"
    if row.way == "MAIL" and row.hand_overs >= MOST_HAND_OVERS:
        return "handed over twice, and both times nobody heard what became of it: ask a recipient, then retry"
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


def _documents(statement: Statement, schedule: DeliveryScheduleRow, mail: MailServer | None) -> list[Document]:
    """Return the documents of a schedule.

    Raises:
        MailTooLarge: they are for an e-mail, and do not fit into it; further ones are not made.
    """
    documents: list[Document] = []
    for wanted in schedule.formats:
        documents.append(_document(statement, wanted, schedule.language))
        if mail is not None:
            mail.check_size(documents)
    return documents


def _document(statement: Statement, wanted: str, language: str) -> Document:
    form = format_of(wanted)
    name = file_name(statement, form, language)
    return Document(file_name=name, media_type=form.media_type, content=form.document(statement, language))
