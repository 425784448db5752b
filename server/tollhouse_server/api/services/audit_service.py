"""AuditService: the trail as it is searched, followed, exported and verified. Nothing of it can be changed."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from tollhouse.admin.v1 import audit_pb2 as pb

from tollhouse_server.api.audit_messages import checkpoint_message, event_message, read_personal
from tollhouse_server.api.call import Call
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.values import moment_of
from tollhouse_server.api.witness import Witness
from tollhouse_server.audit import checkpoint_store, store
from tollhouse_server.audit.anchor import Anchor
from tollhouse_server.audit.personal import exported
from tollhouse_server.audit.store import Link, Question
from tollhouse_server.audit.verification import Verification
from tollhouse_server.database.engine import Database
from tollhouse_server.names import PLATFORM, TenantName, domain_of, invalid
from tollhouse_server.vault.signing import ALGORITHM, SigningKey

_PAGE: Final = 500
_TAIL_SECONDS: Final = 1.0


class AuditService:
    """Reads trails. Whoever takes one out leaves an event in it."""

    def __init__(
        self, database: Database, pages: PageTokens, *, witness: Witness, key: SigningKey, anchor: Anchor
    ) -> None:
        self._database = database
        self._pages = pages
        self._witness = witness
        self._personal = witness.personal
        self._key = key
        self._anchor = anchor

    async def search_audit_events(
        self, request: pb.SearchAuditEventsRequest, call: Call
    ) -> pb.SearchAuditEventsResponse:
        position = self._pages.after(request)
        sequence = int(position) if position else None
        question = Question(
            after=sequence if request.oldest_first else None,
            before=None if request.oldest_first else sequence,
            actor=request.actor or None,
            method=request.method or None,
            resource=request.resource or None,
            kind=pb.AuditEvent.Kind.Name(request.kind).removeprefix("KIND_") if request.kind else None,
            since=moment_of(request.start_time, "start_time") if request.HasField("start_time") else None,
            until=moment_of(request.end_time, "end_time") if request.HasField("end_time") else None,
        )
        async with self._database.within(call.domain) as session:
            found = await store.read_links(
                session,
                _tenant(request.parent),
                question,
                size=self._pages.size(request) + 1,
                newest_first=not request.oldest_first,
            )
        page, last = self._pages.split(request, found)
        return pb.SearchAuditEventsResponse(
            audit_events=[await event_message(link, self._personal) for link in page],
            next_page_token=self._pages.next(request, str(last.sequence)) if last else "",
        )

    async def tail_audit_events(
        self, request: pb.TailAuditEventsRequest, call: Call
    ) -> AsyncIterator[pb.TailAuditEventsResponse]:
        tenant = _tenant(request.parent)
        async with self._database.within(call.domain) as session:
            head = await store.find_head(session, tenant)
        after = request.after_sequence if request.HasField("after_sequence") else head.sequence
        while True:
            # A stream may last for hours: whose rights have ended hears no more.
            await call.permit.sure_until()
            links = await self._read(call, tenant, Question(after=after))
            events = [await event_message(link, self._personal) for link in links]
            yield pb.TailAuditEventsResponse(audit_events=events)
            after = links[-1].sequence if links else after
            if len(links) < _PAGE:
                await asyncio.sleep(_TAIL_SECONDS)

    async def export_audit_events(
        self, request: pb.ExportAuditEventsRequest, call: Call
    ) -> AsyncIterator[pb.ExportAuditEventsResponse]:
        tenant = _tenant(request.parent)
        event = await self._witness.reading(call, request.parent)
        async with self._database.within(call.domain) as session:
            # Before anything leaves: an export that nobody can know of is none. It is not itself in what it takes out.
            head = await store.find_head(session, tenant)
            event.after = {"afterSequence": str(request.after_sequence), "untilSequence": str(head.sequence)}
            await store.record(session, event)
        question = Question(
            since=moment_of(request.start_time, "start_time") if request.HasField("start_time") else None,
            until=moment_of(request.end_time, "end_time") if request.HasField("end_time") else None,
            until_sequence=head.sequence,
        )
        after = request.after_sequence
        if question.since is not None:
            after = max(after, await self._before_first(call, tenant, question))
        end = head.sequence if question.until is None else await self._last_of(call, tenant, question)
        while after < end:
            await call.permit.sure_until()
            links = await self._read(call, tenant, Question(after=after, until_sequence=end))
            if not links:
                return
            after = links[-1].sequence
            lines = [await self._exported(link) for link in links]
            yield pb.ExportAuditEventsResponse(lines=lines, last_sequence=after, end_sequence=end)

    async def verify_audit_trail(
        self, request: pb.VerifyAuditTrailRequest, call: Call
    ) -> AsyncIterator[pb.VerifyAuditTrailResponse]:
        verification = Verification(self._database, self._key, self._anchor, domain=call.domain)
        async for step in verification.run(_tenant(request.parent)):
            await call.permit.sure_until()
            yield pb.VerifyAuditTrailResponse(
                sequence=step.sequence,
                findings=[pb.AuditFinding(sequence=one.sequence, problem=one.problem) for one in step.breaks],
                finished=step.finished,
                first_sequence=step.first_sequence,
                checkpoint_count=step.checkpoints,
                signed_sequence=step.signed_sequence,
                anchored=step.anchored,
            )

    async def list_audit_checkpoints(
        self, request: pb.ListAuditCheckpointsRequest, call: Call
    ) -> pb.ListAuditCheckpointsResponse:
        after = int(self._pages.after(request) or "0")
        async with self._database.within(call.domain) as session:
            found = await checkpoint_store.list_checkpoints(
                session, _tenant(request.parent), after=after, size=self._pages.size(request) + 1
            )
        page, last = self._pages.split(request, found)
        return pb.ListAuditCheckpointsResponse(
            audit_checkpoints=map(checkpoint_message, page),
            next_page_token=self._pages.next(request, str(last.number)) if last else "",
        )

    async def get_audit_keys(self, request: pb.GetAuditKeysRequest, call: Call) -> pb.AuditKeys:
        versions = await self._key.public_keys()
        return pb.AuditKeys(
            keys=[
                pb.AuditKey(key=self._key.name, version=version, algorithm=ALGORITHM, public_key=versions[version])
                for version in sorted(versions)
            ]
        )

    async def _read(self, call: Call, tenant: str, question: Question) -> list[Link]:
        async with self._database.within(call.domain) as session:
            return list(await store.read_links(session, tenant, question, size=_PAGE))

    async def _before_first(self, call: Call, tenant: str, question: Question) -> int:
        """Return the sequence before the first event of an export by time, or where it ends when there is none."""
        async with self._database.within(call.domain) as session:
            first = await store.read_links(session, tenant, question, size=1)
        return first[0].sequence - 1 if first else question.until_sequence or 0

    async def _last_of(self, call: Call, tenant: str, question: Question) -> int:
        async with self._database.within(call.domain) as session:
            last = await store.read_links(session, tenant, question, size=1, newest_first=True)
        return last[0].sequence if last else 0

    async def _exported(self, link: Link) -> str:
        opened, _ = await read_personal(link, self._personal, "NONE" if link.sealed is None else "SEALED")
        return exported(link, opened)


def _tenant(parent: str) -> str:
    """Return whose trail is meant; who may read the platform's has his right on the platform, not on a tenant."""
    if parent == str(TenantName(PLATFORM)):
        raise invalid("parent", f"the platform's trail is called {PLATFORM}")
    return domain_of(parent)
