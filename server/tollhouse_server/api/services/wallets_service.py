"""WalletService: money paid in advance."""

import secrets

from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import wallets_pb2 as pb

from tollhouse_server.api.call import Call
from tollhouse_server.api.limit_scopes import require_limit_scope
from tollhouse_server.api.mutation import Change, Mutations
from tollhouse_server.api.pages import PageTokens, moment_and_key, position_at
from tollhouse_server.api.values import etag, moment_of, money, nanos_of, timestamp, version_of
from tollhouse_server.chargeback import wallet_store as store
from tollhouse_server.chargeback.charge_tables import TopUpRow, WalletRow
from tollhouse_server.chargeback.wallet_store import WalletView
from tollhouse_server.database.engine import Database
from tollhouse_server.ledger.tables import LimitRow
from tollhouse_server.ledger.terms import Metric, Mode, Window
from tollhouse_server.names import LimitName, TenantName, WalletName, domain_of, invalid

_LOW_BALANCE_PERCENT = 20


class WalletService:
    """Makes wallets, reads them, and puts money in."""

    def __init__(self, database: Database, mutations: Mutations, pages: PageTokens) -> None:
        self._database = database
        self._mutations = mutations
        self._pages = pages

    async def create_wallet(self, request: pb.CreateWalletRequest, call: Call) -> pb.Wallet:
        row, limit = _new_wallet(request)

        async def act(session: AsyncSession) -> Change[pb.Wallet]:
            await require_limit_scope(session, limit.scope, "wallet.scope")
            after = _message(await store.create_wallet(session, row, limit))
            return Change(resource=after.name, before=None, after=after, answer=after)

        return await self._mutations.run(call, request, pb.Wallet, act)

    async def get_wallet(self, request: pb.GetWalletRequest, call: Call) -> pb.Wallet:
        name = WalletName.parse(request.name)
        async with self._database.within(call.domain) as session:
            return _message(await store.view_wallet(session, name))

    async def list_wallets(self, request: pb.ListWalletsRequest, call: Call) -> pb.ListWalletsResponse:
        async with self._database.within(call.domain) as session:
            views = await store.list_wallets(
                session,
                TenantName.parse(request.parent, "parent").tenant,
                scope=request.scope,
                after_id=self._pages.after(request),
                size=self._pages.size(request) + 1,
            )
        page, last = self._pages.split(request, views)
        token = self._pages.next(request, last.row.wallet_id) if last else ""
        return pb.ListWalletsResponse(wallets=map(_message, page), next_page_token=token)

    async def top_up_wallet(self, request: pb.TopUpWalletRequest, call: Call) -> pb.WalletTopUp:
        name = WalletName.parse(request.name)
        version = version_of(request.etag, request.name)
        row = _new_top_up(request, name, creator=call.principal.name)

        async def act(session: AsyncSession) -> Change[pb.WalletTopUp]:
            answer = _top_up_message(await store.top_up(session, name, row, expected_version=version))
            return Change(resource=request.name, before=None, after=answer, answer=answer)

        return await self._mutations.run(call, request, pb.WalletTopUp, act)

    async def list_wallet_top_ups(self, request: pb.ListWalletTopUpsRequest, call: Call) -> pb.ListWalletTopUpsResponse:
        name = WalletName.parse(request.name)
        place = moment_and_key(self._pages.after(request))
        async with self._database.within(call.domain) as session:
            view = await store.view_wallet(session, name)
            rows = await store.list_top_ups(session, name, place=place, size=self._pages.size(request) + 1)
        page, last = self._pages.split(request, rows)
        token = self._pages.next(request, position_at(last.created_at, last.top_up_id)) if last else ""
        return pb.ListWalletTopUpsResponse(top_ups=[_as_of_now(row, view) for row in page], next_page_token=token)


def _new_wallet(request: pb.CreateWalletRequest) -> tuple[WalletRow, LimitRow]:
    asked = request.wallet
    if not asked.scope or domain_of(asked.scope) != domain_of(request.parent):
        raise invalid("wallet.scope", "is required, and must be in the wallet's own tenant")
    chosen = request.wallet_id or f"w-{secrets.token_hex(8)}"
    name = WalletName.parse(f"{request.parent}/wallets/{chosen}", "wallet_id")
    percent = asked.low_balance_percent or _LOW_BALANCE_PERCENT
    limit = LimitRow(
        tenant_id=name.tenant,
        name=name.wallet,
        scope=asked.scope,
        metric=Metric.COST,
        window=Window.TOTAL,
        mode=Mode.STRICT,
        amount=0,
        thresholds=[100 - percent],
        kept_by=str(name),
    )
    row = WalletRow(
        tenant_id=name.tenant,
        wallet_id=name.wallet,
        limit_id=0,
        display_name=asked.display_name,
        low_balance_percent=percent,
    )
    return row, limit


def _new_top_up(request: pb.TopUpWalletRequest, name: WalletName, *, creator: str) -> TopUpRow:
    asked = request.top_up
    amount = nanos_of(asked.amount, "top_up.amount")
    if amount <= 0:
        raise invalid("top_up.amount", "must be more than zero")
    return TopUpRow(
        tenant_id=name.tenant,
        wallet_id=name.wallet,
        top_up_id=request.top_up_id or f"tu-{secrets.token_hex(8)}",
        amount_nanos=amount,
        expires_at=moment_of(asked.expire_time, "top_up.expire_time") if asked.HasField("expire_time") else None,
        reference=asked.reference,
        creator=creator,
    )


def _message(view: WalletView) -> pb.Wallet:
    row = view.row
    return pb.Wallet(
        name=str(view.name),
        scope=view.scope,
        display_name=row.display_name,
        low_balance_percent=row.low_balance_percent,
        limit=str(LimitName(row.tenant_id, row.wallet_id)),
        paid=money(sum(fund.amount_nanos for fund in view.funds.funds)),
        expired=money(sum(fund.expired_nanos for fund in view.funds.funds)),
        spent=money(view.settled_nanos),
        held=money(view.held_nanos),
        balance=money(view.funds.amount_nanos - view.settled_nanos - view.held_nanos),
        create_time=timestamp(row.created_at),
        update_time=timestamp(row.updated_at),
        etag=etag(row.version),
    )


def _as_of_now(row: TopUpRow, view: WalletView) -> pb.WalletTopUp:
    fund = next((fund for fund in view.funds.funds if fund.top_up_id == row.top_up_id), None)
    if fund is None:
        return _top_up_message(row)
    return _top_up_message(row, spent_nanos=fund.spent_nanos, expired_nanos=fund.expired_nanos)


def _top_up_message(
    row: TopUpRow, *, spent_nanos: int | None = None, expired_nanos: int | None = None
) -> pb.WalletTopUp:
    spent = row.spent_nanos if spent_nanos is None else spent_nanos
    expired = row.expired_nanos if expired_nanos is None else expired_nanos
    return pb.WalletTopUp(
        wallet=str(WalletName(row.tenant_id, row.wallet_id)),
        top_up_id=row.top_up_id,
        amount=money(row.amount_nanos),
        expire_time=timestamp(row.expires_at),
        reference=row.reference,
        spent=money(spent),
        expired=money(expired),
        remaining=money(row.amount_nanos - spent - expired),
        creator=row.creator,
        create_time=timestamp(row.created_at),
    )
