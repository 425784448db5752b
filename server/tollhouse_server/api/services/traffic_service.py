"""TrafficService: where calls can go, how it is going there, and what operators order."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from google.protobuf.empty_pb2 import Empty
from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import traffic_pb2 as pb

from tollhouse_server.api.call import Call
from tollhouse_server.api.mutation import Change, Mutations
from tollhouse_server.api.pages import ListRequest, PageTokens
from tollhouse_server.api.traffic_messages import breaker_message, order_message, target_message, waiting_messages
from tollhouse_server.api.values import moment_of, timestamp, version_of
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import Topic
from tollhouse_server.errors import ModelUnknown
from tollhouse_server.names import AccountName, invalid
from tollhouse_server.routing.account_store import get_account
from tollhouse_server.routing.catalogue import Catalogue
from tollhouse_server.traffic import breaker_store as store
from tollhouse_server.traffic.breakers import BreakerKey, Forced
from tollhouse_server.traffic.traffic_view import TrafficView, view

_Entry = TypeVar("_Entry")
_OrderRequest = pb.OpenBreakerRequest | pb.CloseBreakerRequest


class TrafficService:
    """Reads what processes report, and gives and takes back orders."""

    def __init__(
        self,
        database: Database,
        mutations: Mutations,
        pages: PageTokens,
        catalogue: Callable[[], Catalogue],
    ) -> None:
        self._database = database
        self._mutations = mutations
        self._pages = pages
        self._catalogue = catalogue

    async def list_targets(self, request: pb.ListTargetsRequest, call: Call) -> pb.ListTargetsResponse:
        now = datetime.now(UTC)
        seen = await self._view(call, now)
        found = [
            one
            for one in seen.targets
            if request.tier in ("", f"tiers/{one.tier}")
            and (not request.account or (one.key is not None and request.account == f"accounts/{one.key.account_id}"))
        ]
        page, token = self._page(request, found, lambda one: one.position)
        return pb.ListTargetsResponse(
            targets=[target_message(one, seen) for one in page],
            next_page_token=token,
            process_count=len(seen.reports),
            waiting_calls=waiting_messages(seen.reports),
            read_time=timestamp(now),
        )

    async def list_breakers(self, request: pb.ListBreakersRequest, call: Call) -> pb.ListBreakersResponse:
        seen = await self._view(call, datetime.now(UTC))
        found = [
            one
            for one in seen.breakers.values()
            if request.account in ("", str(AccountName(one.key.account_id)))
            and (one.is_troubled or not request.troubled_only)
        ]
        page, token = self._page(request, found, lambda one: _position(one.key))
        return pb.ListBreakersResponse(
            breakers=map(breaker_message, page), next_page_token=token, process_count=len(seen.reports)
        )

    async def list_breaker_orders(
        self, request: pb.ListBreakerOrdersRequest, call: Call
    ) -> pb.ListBreakerOrdersResponse:
        async with self._database.within(call.domain) as session:
            rows = await store.list_orders(session)
        found = [row for row in rows if request.account in ("", str(AccountName(row.account_id)))]
        page, token = self._page(request, found, lambda row: _position(store.pattern_of(row)))
        return pb.ListBreakerOrdersResponse(breaker_orders=map(order_message, page), next_page_token=token)

    async def open_breaker(self, request: pb.OpenBreakerRequest, call: Call) -> pb.BreakerOrder:
        return await self._order(request, call, Forced.OPEN)

    async def close_breaker(self, request: pb.CloseBreakerRequest, call: Call) -> pb.BreakerOrder:
        return await self._order(request, call, Forced.CLOSED)

    async def release_breaker(self, request: pb.ReleaseBreakerRequest, call: Call) -> Empty:
        pattern = self._pattern(request, self._known_model(request.model))
        version = version_of(request.etag, store.order_name(pattern))

        async def act(session: AsyncSession) -> Change[Empty]:
            before = order_message(await store.drop_order(session, pattern, version=version))
            return Change(resource=request.account, before=before, after=None, answer=Empty())

        return await self._mutations.run(call, request, Empty, act, Topic.BREAKERS)

    async def _order(self, request: _OrderRequest, call: Call, forced: Forced) -> pb.BreakerOrder:
        # A model that does not exist is refused: an order on it would hold nothing.
        model = self._catalogue().get_model(_bare(request.model)).model if request.model else ""
        pattern, expire_at = self._pattern(request, model), _expiry(request)
        version = version_of(request.etag, store.order_name(pattern))

        async def act(session: AsyncSession) -> Change[pb.BreakerOrder]:
            account = await get_account(session, pattern.account_id)
            if pattern.region not in ("", account.region):
                raise invalid("region", f"the account is in {account.region}" if account.region else "it has none")
            found = await store.find_order(session, pattern)
            before = None if found is None else order_message(found)
            row = await store.put_order(
                session,
                pattern,
                forced,
                reason=request.reason,
                actor=call.principal.name,
                expire_at=expire_at,
                version=version,
            )
            after = order_message(row)
            return Change(resource=request.account, before=before, after=after, answer=after)

        return await self._mutations.run(call, request, pb.BreakerOrder, act, Topic.BREAKERS)

    def _known_model(self, name: str) -> str:
        """Return a model's id; a name that the catalogue no longer has may still be in an order, as it is."""
        try:
            return self._catalogue().get_model(_bare(name)).model if name else ""
        except ModelUnknown:
            return _bare(name)

    @staticmethod
    def _pattern(request: _OrderRequest | pb.ReleaseBreakerRequest, model: str) -> BreakerKey:
        return BreakerKey(AccountName.parse(request.account, "account").account, request.region, model)

    async def _view(self, call: Call, now: datetime) -> TrafficView:
        async with self._database.within(call.domain) as session:
            return await view(session, self._catalogue(), now)

    def _page(
        self, request: ListRequest, entries: Sequence[_Entry], position: Callable[[_Entry], str]
    ) -> tuple[Sequence[_Entry], str]:
        after = self._pages.after(request)
        ordered = sorted(entries, key=position)
        page, last = self._pages.split(request, [one for one in ordered if position(one) > after])
        return page, "" if last is None else self._pages.next(request, position(last))


def _bare(model: str) -> str:
    return model.removeprefix("models/")


def _position(key: BreakerKey) -> str:
    return "\t".join(key)


def _expiry(request: _OrderRequest) -> datetime | None:
    if not request.HasField("expire_time"):
        return None
    moment = moment_of(request.expire_time, "expire_time")
    if moment <= datetime.now(UTC):
        raise invalid("expire_time", "must be in the future")
    return moment
