"""LimitIncreaseService: temporary increases, asked for by one person and approved by another."""

import secrets
from datetime import datetime, timedelta
from typing import Final, TypeAlias

from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import limit_increases_pb2 as pb

from tollhouse_server.api.call import Call
from tollhouse_server.api.limit_requests import positive_amount, quantity
from tollhouse_server.api.mutation import Change, Mutations
from tollhouse_server.api.pages import PageTokens, moment_and_key, position_at
from tollhouse_server.api.values import etag, moment_of, timestamp, version_of
from tollhouse_server.database.decisions import APPROVE, REJECT, REVOKE, WITHDRAW, Decision, Step
from tollhouse_server.database.engine import Database
from tollhouse_server.errors import ResourceNotFound
from tollhouse_server.ledger import increase_store as store
from tollhouse_server.ledger.increase_store import IncreaseView
from tollhouse_server.ledger.limit_store import get_limit
from tollhouse_server.ledger.tables import LimitIncreaseRow, LimitRow
from tollhouse_server.ledger.terms import Metric
from tollhouse_server.names import LimitIncreaseName, LimitName, TenantName, domain_of, invalid
from tollhouse_server.tenancy.store import read_clock

LONGEST: Final = timedelta(days=400)
"""How far ahead an increase may end: what is needed for longer is another limit."""

StepRequest: TypeAlias = (
    pb.ApproveLimitIncreaseRequest
    | pb.RejectLimitIncreaseRequest
    | pb.WithdrawLimitIncreaseRequest
    | pb.RevokeLimitIncreaseRequest
)


class LimitIncreaseService:
    """Asks for increases, reads them, and takes the steps that decide on them."""

    def __init__(self, database: Database, mutations: Mutations, pages: PageTokens) -> None:
        self._database = database
        self._mutations = mutations
        self._pages = pages

    async def request_limit_increase(self, request: pb.RequestLimitIncreaseRequest, call: Call) -> pb.LimitIncrease:
        name = _limit_name(request.limit_increase.limit, request.parent, "limit_increase.limit")

        async def act(session: AsyncSession) -> Change[pb.LimitIncrease]:
            limit = await get_limit(session, name)
            if request.scope and limit.scope != request.scope:
                raise ResourceNotFound(name=str(name))
            now = (await read_clock(session, name.tenant)).now
            row = _new_row(request, limit, requester=call.principal.name, now=now)
            after = _message(await store.create_increase(session, row, limit))
            return Change(resource=after.name, before=None, after=after, answer=after)

        return await self._mutations.run(call, request, pb.LimitIncrease, act)

    async def get_limit_increase(self, request: pb.GetLimitIncreaseRequest, call: Call) -> pb.LimitIncrease:
        name = LimitIncreaseName.parse(request.name)
        async with self._database.within(call.domain) as session:
            return _message(await store.view_increase(session, name, scope=request.scope))

    async def list_limit_increases(
        self, request: pb.ListLimitIncreasesRequest, call: Call
    ) -> pb.ListLimitIncreasesResponse:
        narrowed = store.Narrowed(
            scope=request.scope,
            limit=_limit_name(request.limit, request.parent, "limit").limit if request.limit else "",
            state=pb.LimitIncrease.State.Name(request.state).removeprefix("STATE_") if request.state else "",
        )
        async with self._database.within(call.domain) as session:
            views = await store.list_increases(
                session,
                TenantName.parse(request.parent, "parent").tenant,
                narrowed,
                after=moment_and_key(self._pages.after(request)),
                size=self._pages.size(request) + 1,
            )
        page, last = self._pages.split(request, views)
        token = self._pages.next(request, position_at(last.row.created_at, last.row.increase_id)) if last else ""
        return pb.ListLimitIncreasesResponse(limit_increases=map(_message, page), next_page_token=token)

    async def approve_limit_increase(self, request: pb.ApproveLimitIncreaseRequest, call: Call) -> pb.LimitIncrease:
        return await self._take(APPROVE, request, call)

    async def reject_limit_increase(self, request: pb.RejectLimitIncreaseRequest, call: Call) -> pb.LimitIncrease:
        return await self._take(REJECT, request, call)

    async def withdraw_limit_increase(self, request: pb.WithdrawLimitIncreaseRequest, call: Call) -> pb.LimitIncrease:
        return await self._take(WITHDRAW, request, call)

    async def revoke_limit_increase(self, request: pb.RevokeLimitIncreaseRequest, call: Call) -> pb.LimitIncrease:
        return await self._take(REVOKE, request, call)

    async def _take(self, step: Step, request: StepRequest, call: Call) -> pb.LimitIncrease:
        name = LimitIncreaseName.parse(request.name)
        decision = Decision(
            step=step,
            by=call.principal.name,
            reason=_storable(request.decision_reason, "decision_reason"),
            expected_version=version_of(request.etag, str(name)),
        )

        async def act(session: AsyncSession) -> Change[pb.LimitIncrease]:
            increase = await store.lock_increase(session, name, scope=request.scope)
            before = _message(increase)
            after = _message(await store.decide(session, increase, decision))
            return Change(resource=str(name), before=before, after=after, answer=after)

        return await self._mutations.run(call, request, pb.LimitIncrease, act)


def _limit_name(text: str, parent: str, field: str) -> LimitName:
    name = LimitName.parse(text, field)
    if name.tenant != domain_of(parent):
        raise invalid(field, "must be in the tenant that the request names")
    return name


def _new_row(
    request: pb.RequestLimitIncreaseRequest, limit: LimitRow, *, requester: str, now: datetime
) -> LimitIncreaseRow:
    asked = request.limit_increase
    chosen = request.limit_increase_id or f"li-{secrets.token_hex(8)}"
    name = LimitIncreaseName.parse(f"{request.parent}/limitIncreases/{chosen}", "limit_increase_id")
    starts_at, expires_at = _period(asked, now)
    reason = _storable(asked.reason, "limit_increase.reason")
    if not reason:
        raise invalid("limit_increase.reason", "is required: who decides, and who audits, must know why")
    assert limit.limit_id is not None  # noqa: S101 - the row was read
    return LimitIncreaseRow(
        tenant_id=name.tenant,
        increase_id=name.limit_increase,
        limit_id=limit.limit_id,
        amount=positive_amount(
            asked.amount, Metric(limit.metric), "limit_increase.amount", beside=limit.amount + limit.overshoot
        ),
        reason=reason,
        requested_by=requester,
        starts_at=starts_at,
        expires_at=expires_at,
    )


def _period(asked: pb.LimitIncrease, now: datetime) -> tuple[datetime | None, datetime]:
    """Return the start, if one is asked for, and the expiry; `now` is the database's."""
    if not asked.HasField("expire_time"):
        raise invalid("limit_increase.expire_time", "is required: an increase without an end is another limit")
    expires_at = moment_of(asked.expire_time, "limit_increase.expire_time")
    if not now < expires_at <= now + LONGEST:
        raise invalid("limit_increase.expire_time", f"must be in the future and at most {LONGEST.days} days ahead")
    if not asked.HasField("start_time"):
        return None, expires_at
    starts_at = moment_of(asked.start_time, "limit_increase.start_time")
    if starts_at >= expires_at:
        raise invalid("limit_increase.start_time", "must be before the expiry")
    return starts_at, expires_at


def _storable(text: str, field: str) -> str:
    """Return what a person has written, without the white space around it."""
    if "\0" in text:
        raise invalid(field, "must not have a NUL character")
    return text.strip()


def _message(view: IncreaseView) -> pb.LimitIncrease:
    row, limit = view.row, view.limit
    return pb.LimitIncrease(
        name=str(LimitIncreaseName(row.tenant_id, row.increase_id)),
        limit=str(LimitName(limit.tenant_id, limit.name)),
        amount=quantity(row.amount, Metric(limit.metric)),
        reason=row.reason,
        start_time=timestamp(row.starts_at),
        expire_time=timestamp(row.expires_at),
        state=pb.LimitIncrease.State.Value(f"STATE_{view.state}"),
        scope=limit.scope,
        requester=row.requested_by,
        decider=row.decided_by or "",
        decide_time=timestamp(row.decided_at),
        decision_reason=row.decision_reason,
        create_time=timestamp(row.created_at),
        update_time=timestamp(row.updated_at),
        etag=etag(row.version),
    )
