"""LimitService: quotas and budgets."""

import secrets

from google.protobuf.empty_pb2 import Empty
from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import limits_pb2 as pb

from tollhouse_server.api.call import Call
from tollhouse_server.api.masks import changed_fields
from tollhouse_server.api.mutation import Change, Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.values import etag, money, nanos_of, timestamp, version_of
from tollhouse_server.database.engine import Database
from tollhouse_server.database.integrity import constraints
from tollhouse_server.errors import ResourceExists
from tollhouse_server.identity import store as identity
from tollhouse_server.ledger import limit_store as store
from tollhouse_server.ledger.tables import LimitRow
from tollhouse_server.ledger.terms import Metric, Window
from tollhouse_server.names import (
    LimitName,
    ProjectKeyName,
    ProjectName,
    TenantName,
    domain_of,
    invalid,
    parse_api_key,
    parse_scope,
)
from tollhouse_server.tenancy import store as tenancy


class LimitService:
    """Creates, reads, changes and deletes limits."""

    def __init__(self, database: Database, mutations: Mutations, pages: PageTokens) -> None:
        self._database = database
        self._mutations = mutations
        self._pages = pages

    async def create_limit(self, request: pb.CreateLimitRequest, call: Call) -> pb.Limit:
        row = _new_row(request)

        async def act(session: AsyncSession) -> Change[pb.Limit]:
            await _require_scope(session, row.scope)
            with constraints({"usage_limit_name": ResourceExists(name=_name(row))}):
                await store.create_limit(session, row)
            after = await _message(session, row)
            return Change(resource=after.name, before=None, after=after, answer=after)

        return await self._mutations.run(call, request, pb.Limit, act)

    async def get_limit(self, request: pb.GetLimitRequest, call: Call) -> pb.Limit:
        name = LimitName.parse(request.name)
        async with self._database.transaction() as session:
            return await _message(session, await store.get_limit(session, name))

    async def list_limits(self, request: pb.ListLimitsRequest, call: Call) -> pb.ListLimitsResponse:
        async with self._database.transaction() as session:
            rows = await store.list_limits(
                session,
                TenantName.parse(request.parent, "parent").tenant,
                scopes=[request.scope] if request.scope else (),
                after=self._pages.after(request),
                size=self._pages.size(request) + 1,
            )
            page, last = self._pages.split(request, rows)
            limits = [await _message(session, row) for row in page]
        token = self._pages.next(request, last.name) if last else ""
        return pb.ListLimitsResponse(limits=limits, next_page_token=token)

    async def update_limit(self, request: pb.UpdateLimitRequest, call: Call) -> pb.Limit:
        fields = changed_fields(request.limit, request.update_mask, ("amount",))
        name = LimitName.parse(request.limit.name, "limit.name")

        async def act(session: AsyncSession) -> Change[pb.Limit]:
            row = await store.get_limit(session, name)
            before = await _message(session, row)
            if "amount" in fields:
                amount = _amount(request.limit.amount, Metric(row.metric))
                version = version_of(request.limit.etag, str(name))
                row = await store.change_amount(session, row, amount, expected_version=version)
            after = await _message(session, row)
            return Change(resource=str(name), before=before, after=after, answer=after)

        return await self._mutations.run(call, request, pb.Limit, act)

    async def delete_limit(self, request: pb.DeleteLimitRequest, call: Call) -> Empty:
        name = LimitName.parse(request.name)

        async def act(session: AsyncSession) -> Change[Empty]:
            row = await store.get_limit(session, name)
            before = await _message(session, row)
            await store.delete_limit(session, row, expected_version=version_of(request.etag, str(name)))
            return Change(resource=str(name), before=before, after=None, answer=Empty())

        return await self._mutations.run(call, request, Empty, act)


def _new_row(request: pb.CreateLimitRequest) -> LimitRow:
    limit = request.limit
    if not limit.metric:
        raise invalid("limit.metric", "is required")
    if not limit.window:
        raise invalid("limit.window", "is required")
    if not limit.scope or domain_of(limit.scope) != domain_of(request.parent):
        raise invalid("limit.scope", "is required, and must be in the limit's own tenant")
    chosen = request.limit_id or f"l-{secrets.token_hex(8)}"
    name = LimitName.parse(f"{request.parent}/limits/{chosen}", "limit_id")
    metric = Metric(pb.LimitMetric.Name(limit.metric).removeprefix("LIMIT_METRIC_"))
    return LimitRow(
        tenant_id=name.tenant,
        name=name.limit,
        scope=limit.scope,
        metric=metric,
        window=Window(pb.LimitWindow.Name(limit.window).removeprefix("LIMIT_WINDOW_")),
        selector=limit.selector,
        amount=_amount(limit.amount, metric),
    )


def _amount(amount: pb.LimitAmount, metric: Metric) -> int:
    """Return an amount in the unit of its metric: nano-dollars for COST, else a count."""
    wanted = "money" if metric is Metric.COST else "units"
    if amount.WhichOneof("amount") != wanted:
        raise invalid(f"limit.amount.{wanted}", f"is required for the metric {metric}, and nothing else")
    value = nanos_of(amount.money, "limit.amount.money") if metric is Metric.COST else amount.units
    if value < 0:
        raise invalid(f"limit.amount.{wanted}", "must not be negative")
    return value


async def _require_scope(session: AsyncSession, text: str) -> None:
    if "/apiKeys/" in text:
        name = parse_api_key(text, "limit.scope")
        if isinstance(name, ProjectKeyName):
            await tenancy.active_project(session, ProjectName(name.tenant, name.department, name.project))
        await identity.get_key(session, name)
        return
    await tenancy.require_active(session, parse_scope(text, "limit.scope"))


async def _message(session: AsyncSession, row: LimitRow) -> pb.Limit:
    metric, use = Metric(row.metric), await store.limit_use(session, row)
    unbounded = row.window == Window.TOTAL
    return pb.Limit(
        name=_name(row),
        scope=row.scope,
        metric=pb.LimitMetric.Value(f"LIMIT_METRIC_{row.metric}"),
        window=pb.LimitWindow.Value(f"LIMIT_WINDOW_{row.window}"),
        selector=row.selector,
        mode=pb.LimitMode.Value(f"LIMIT_MODE_{row.mode}"),
        amount=_quantity(row.amount, metric),
        current=pb.LimitWindowUsage(
            held=_quantity(use.held, metric),
            settled=_quantity(use.settled, metric),
            start_time=None if unbounded else timestamp(use.window_start),
            reset_time=timestamp(use.resets_at),
        ),
        create_time=timestamp(row.created_at),
        update_time=timestamp(row.updated_at),
        etag=etag(row.version),
    )


def _quantity(amount: int, metric: Metric) -> pb.LimitAmount:
    return pb.LimitAmount(money=money(amount)) if metric is Metric.COST else pb.LimitAmount(units=amount)


def _name(row: LimitRow) -> str:
    return str(LimitName(row.tenant_id, row.name))
