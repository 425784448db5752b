"""LimitService: quotas and budgets."""

from google.protobuf.empty_pb2 import Empty
from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import limits_pb2 as pb

from tollhouse_server.api.call import Call
from tollhouse_server.api.limit_requests import CHANGEABLE, changes, new_limit, quantity
from tollhouse_server.api.limit_scopes import require_limit_scope, require_selected
from tollhouse_server.api.masks import changed_fields
from tollhouse_server.api.mutation import Change, Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.values import etag, timestamp, version_of
from tollhouse_server.database.engine import Database
from tollhouse_server.database.integrity import constraints
from tollhouse_server.errors import ResourceExists
from tollhouse_server.ledger import limit_store as store
from tollhouse_server.ledger.tables import LimitRow
from tollhouse_server.ledger.terms import Metric, Mode, Window
from tollhouse_server.names import LimitName, TenantName


class LimitService:
    """Creates, reads, changes and deletes limits."""

    def __init__(self, database: Database, mutations: Mutations, pages: PageTokens) -> None:
        self._database = database
        self._mutations = mutations
        self._pages = pages

    async def create_limit(self, request: pb.CreateLimitRequest, call: Call) -> pb.Limit:
        row = new_limit(request)
        name = LimitName(row.tenant_id, row.name)

        async def act(session: AsyncSession) -> Change[pb.Limit]:
            await require_limit_scope(session, row.scope, "limit.scope")
            await require_selected(session, row.selector, "limit.selector")
            with constraints({"usage_limit_name": ResourceExists(name=str(name))}):
                await store.create_limit(session, row)
            after = _message(await store.view_limit(session, name))
            return Change(resource=after.name, before=None, after=after, answer=after)

        return await self._mutations.run(call, request, pb.Limit, act)

    async def get_limit(self, request: pb.GetLimitRequest, call: Call) -> pb.Limit:
        name = LimitName.parse(request.name)
        async with self._database.within(call.domain) as session:
            return _message(await store.view_limit(session, name))

    async def list_limits(self, request: pb.ListLimitsRequest, call: Call) -> pb.ListLimitsResponse:
        async with self._database.within(call.domain) as session:
            views = await store.list_limits(
                session,
                TenantName.parse(request.parent, "parent").tenant,
                scopes=[request.scope] if request.scope else (),
                after=self._pages.after(request),
                size=self._pages.size(request) + 1,
            )
        page, last = self._pages.split(request, views)
        token = self._pages.next(request, last.row.name) if last else ""
        return pb.ListLimitsResponse(limits=map(_message, page), next_page_token=token)

    async def update_limit(self, request: pb.UpdateLimitRequest, call: Call) -> pb.Limit:
        fields = changed_fields(request.limit, request.update_mask, CHANGEABLE)
        name = LimitName.parse(request.limit.name, "limit.name")
        version = version_of(request.limit.etag, str(name))

        async def act(session: AsyncSession) -> Change[pb.Limit]:
            row = await store.lock_limit(session, name)
            before = _message(await store.view_limit(session, name))
            values = changes(row, request.limit, fields)
            await store.change_limit(session, row, values, expected_version=version)
            after = _message(await store.view_limit(session, name))
            return Change(resource=str(name), before=before, after=after, answer=after)

        return await self._mutations.run(call, request, pb.Limit, act)

    async def delete_limit(self, request: pb.DeleteLimitRequest, call: Call) -> Empty:
        name = LimitName.parse(request.name)
        version = version_of(request.etag, str(name))

        async def act(session: AsyncSession) -> Change[Empty]:
            row = await store.lock_limit(session, name)
            before = _message(await store.view_limit(session, name))
            await store.delete_limit(session, row, expected_version=version)
            return Change(resource=str(name), before=before, after=None, answer=Empty())

        return await self._mutations.run(call, request, Empty, act)


def _message(view: store.LimitView) -> pb.Limit:
    row, use, metric = view.row, view.use, Metric(view.row.metric)
    is_elastic = row.mode == Mode.ELASTIC
    return pb.Limit(
        name=_name(row),
        scope=row.scope,
        metric=pb.LimitMetric.Value(f"LIMIT_METRIC_{row.metric}"),
        window=pb.LimitWindow.Value(f"LIMIT_WINDOW_{row.window}"),
        selector=row.selector,
        mode=pb.LimitMode.Value(f"LIMIT_MODE_{row.mode}"),
        amount=quantity(row.amount, metric),
        overshoot=quantity(row.overshoot, metric) if is_elastic else None,
        thresholds=row.thresholds,
        current=pb.LimitWindowUsage(
            held=quantity(use.held, metric),
            settled=quantity(use.settled, metric),
            expected=quantity(use.expected, metric) if is_elastic else None,
            effective_amount=quantity(use.effective_amount, metric),
            start_time=None if row.window == Window.TOTAL else timestamp(use.starts_at),
            reset_time=timestamp(use.resets_at),
        ),
        create_time=timestamp(row.created_at),
        update_time=timestamp(row.updated_at),
        etag=etag(row.version),
    )


def _name(row: LimitRow) -> str:
    return str(LimitName(row.tenant_id, row.name))
