"""How every change is made: one transaction holds the claim of the request id, the act, its audit row, and its epochs.

A dry run is the same transaction, rolled back: what it answers is what the change would have answered.
"""

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar, cast
from uuid import UUID

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.api.call import Call
from tollhouse_server.api.permissions import rule_of_mutation
from tollhouse_server.api.witness import Witness
from tollhouse_server.audit.store import claim_request, record, record_all, save_answer
from tollhouse_server.audit.tables import AuditEventRow
from tollhouse_server.database.engine import Database, RollBack
from tollhouse_server.database.epochs import Topic, bump
from tollhouse_server.errors import StoreUnavailable
from tollhouse_server.names import domain_of, invalid, scope_of

Answer = TypeVar("Answer", bound=Message)

_PORTION: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Change(Generic[Answer]):
    """What an act did: the resource before and after it, for the trail, and the answer.

    `kept` is what a repetition of the request is answered with, where the answer itself has a secret. `parts` are the
    changes that an act is made of, where it is several: each with the request that would have made it alone, by which
    the trail names its method. `topics` are those that the act has found to be concerned.
    """

    resource: str
    before: Message | None
    after: Message | None
    answer: Answer
    kept: Answer | None = None
    parts: Sequence["tuple[MutationRequest, Change[Any]]"] = ()
    topics: Collection[Topic] = ()


Act: TypeAlias = Callable[[AsyncSession], Awaitable[Change[Answer]]]

Seal: TypeAlias = Callable[[AuditEventRow], None]
"""Takes what is personal out of an event that is not written yet."""


class MutationRequest(Protocol):
    """What every request for a change has; it is a protobuf message."""

    request_id: str
    validate_only: bool


class Mutations:
    """Runs changes.

    `key` keeps fingerprints of requests, which may hold secrets, from telling anything. `catch_up` returns when this
    process knows what the database had when it was asked: who changes something finds it in force where he changed it.
    """

    def __init__(
        self,
        database: Database,
        key: bytes,
        witness: Witness | None = None,
        catch_up: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._database = database
        self._key = key
        self._witness = witness
        self._catch_up = catch_up

    async def run(
        self, call: Call, request: MutationRequest, answer: type[Answer], act: Act[Answer], *topics: Topic
    ) -> Answer:
        """Run `act` and return its answer, or the answer that the same request id had before.

        Raises:
            RequestIdReused: the id was used for another request within 24 hours.
            StoreUnavailable: the database is gone; whether the change was made is told by repeating the request id.
            TollhouseError: what `act` raises; nothing is changed then.
        """
        result: Answer | None = None
        # Before anything is locked: Vault may be asked for the key that personal data is sealed under.
        seal = _as_it_is if self._witness is None else await self._witness.sealing(call)
        try:
            async with self._database.within(call.domain, actor=call.principal.tenant_id) as session:
                result = await self._run(session, call, request, answer=answer, act=act, topics=topics, seal=seal)
                if request.validate_only:
                    raise RollBack
        except RollBack:
            return cast(Answer, result)
        if self._catch_up is not None:
            # The change is made, whether it can be read back or not; all processes hear of it soon.
            with suppress(StoreUnavailable):
                await self._catch_up()
        return result

    async def _run(
        self,
        session: AsyncSession,
        call: Call,
        request: MutationRequest,
        *,
        answer: type[Answer],
        act: Act[Answer],
        topics: tuple[Topic, ...],
        seal: Seal,
    ) -> Answer:
        # A dry run claims nothing: the same id must be free for the real one.
        claimed = None if request.validate_only else _request_id(request)
        tenant = call.principal.tenant_id
        if claimed is not None:
            before = await claim_request(session, tenant, claimed, self._fingerprint(call, request))
            if before is not None:
                return answer.FromString(before)
        change = await act(session)
        # In portions: between two the process serves others, and the database sees that this one is alive.
        for start in range(0, len(change.parts), _PORTION):
            portion = change.parts[start : start + _PORTION]
            await record_all(session, [_event(call, part, made, seal) for part, made in portion])
        await record(session, _event(call, request, change, seal))
        if claimed is not None:
            await save_answer(session, tenant, claimed, (change.kept or change.answer).SerializeToString())
        # Whose rights have ended while this waited, or stood still, changes nothing any more.
        await call.permit.sure_until()
        # Last and in one order: everyone who changes a topic waits on its row until the commit.
        for topic in sorted({*topics, *change.topics}):
            await bump(session, topic)
        return change.answer

    def _fingerprint(self, call: Call, request: MutationRequest) -> bytes:
        message = cast(Message, request)
        body = type(message)()
        body.CopyFrom(message)
        body.ClearField("request_id")
        who = f"{message.DESCRIPTOR.full_name}\0{call.principal.name}\0".encode()
        return hmac.digest(self._key, who + body.SerializeToString(deterministic=True), hashlib.sha256)


def _request_id(request: MutationRequest) -> UUID | None:
    try:
        return UUID(request.request_id) if request.request_id else None
    except ValueError:
        raise invalid("request_id", "must be a UUID") from None


def _event(call: Call, request: MutationRequest, change: Change[Any], seal: Seal) -> AuditEventRow:
    rule = rule_of_mutation(cast(Message, request))
    event = AuditEventRow(
        tenant_id=domain_of(scope_of(change.resource)),
        actor=call.principal.name,
        credential_id=call.principal.credential_id,
        method=rule.rpc,
        permission=rule.permission or "",
        resource=change.resource,
        before=_json(change.before),
        after=_json(change.after),
        request_id=request.request_id,
        correlation_id=call.correlation_id,
    )
    seal(event)
    return event


def _as_it_is(_: AuditEventRow) -> None:
    """Seal nothing."""


def _json(message: Message | None) -> dict[str, Any] | None:
    return None if message is None else MessageToDict(message)
