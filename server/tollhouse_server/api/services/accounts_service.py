"""AccountService: the Google Cloud projects and model servers behind which models are reached."""

from collections.abc import Sequence
from typing import Any

from google.protobuf.empty_pb2 import Empty
from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import accounts_pb2 as pb

from tollhouse_server.api.account_requests import (
    CHANGEABLE,
    account_message,
    column_values,
    limits_in,
    new_row,
)
from tollhouse_server.api.call import Call
from tollhouse_server.api.masks import changed_fields
from tollhouse_server.api.mutation import Change, MutationRequest, Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.values import version_of
from tollhouse_server.database.engine import Database
from tollhouse_server.names import AccountName
from tollhouse_server.routing import account_store as store
from tollhouse_server.routing.addresses import Addresses
from tollhouse_server.routing.tables import AccountRow
from tollhouse_server.routing.targets import AccountLimit


class AccountService:
    """Creates, reads, changes, disables and deletes accounts; `addresses` are what settings allow."""

    def __init__(self, database: Database, mutations: Mutations, pages: PageTokens, addresses: Addresses) -> None:
        self._database = database
        self._mutations = mutations
        self._pages = pages
        self._addresses = addresses

    async def create_account(self, request: pb.CreateAccountRequest, call: Call) -> pb.Account:
        name = AccountName.parse(f"accounts/{request.account_id}", "account_id")
        account = request.account

        async def act(session: AsyncSession) -> Change[pb.Account]:
            row = new_row(name.account, account)
            await store.create_account(session, row, addresses=self._addresses, limits=limits_in(account))
            after = await _read(session, row)
            return Change(resource=after.name, before=None, after=after, answer=after)

        return await self._mutations.run(call, request, pb.Account, act)

    async def get_account(self, request: pb.GetAccountRequest, call: Call) -> pb.Account:
        async with self._database.within(call.domain) as session:
            return await _read(session, await store.get_account(session, AccountName.parse(request.name).account))

    async def list_accounts(self, request: pb.ListAccountsRequest, call: Call) -> pb.ListAccountsResponse:
        async with self._database.within(call.domain) as session:
            size = self._pages.size(request) + 1
            rows = await store.list_accounts(session, after=self._pages.after(request), size=size)
            page, last = self._pages.split(request, rows)
            limits = await store.limits_of(session, [row.account_id for row in page])
        token = self._pages.next(request, last.account_id) if last else ""
        accounts = [account_message(row, limits.get(row.account_id, ())) for row in page]
        return pb.ListAccountsResponse(accounts=accounts, next_page_token=token)

    async def update_account(self, request: pb.UpdateAccountRequest, call: Call) -> pb.Account:
        account = request.account
        fields = changed_fields(account, request.update_mask, CHANGEABLE)
        values = column_values(account, sorted(fields))
        limits = limits_in(account) if "limits" in fields else None
        return await self._change(call, request, text=account.name, tag=account.etag, values=values, limits=limits)

    async def disable_account(self, request: pb.DisableAccountRequest, call: Call) -> pb.Account:
        return await self._set_state(call, request, "DISABLED")

    async def enable_account(self, request: pb.EnableAccountRequest, call: Call) -> pb.Account:
        return await self._set_state(call, request, "ACTIVE")

    async def delete_account(self, request: pb.DeleteAccountRequest, call: Call) -> Empty:
        account = AccountName.parse(request.name).account

        async def act(session: AsyncSession) -> Change[Empty]:
            before = await _read(session, await store.get_account(session, account))
            await store.delete_account(session, account, version=version_of(request.etag, request.name))
            return Change(resource=request.name, before=before, after=None, answer=Empty())

        return await self._mutations.run(call, request, Empty, act)

    async def _set_state(
        self, call: Call, request: pb.DisableAccountRequest | pb.EnableAccountRequest, state: str
    ) -> pb.Account:
        return await self._change(call, request, text=request.name, tag=request.etag, values={"state": state})

    async def _change(
        self,
        call: Call,
        request: MutationRequest,
        *,
        text: str,
        tag: str,
        values: dict[str, Any],
        limits: Sequence[AccountLimit] | None = None,
    ) -> pb.Account:
        account = AccountName.parse(text).account

        async def act(session: AsyncSession) -> Change[pb.Account]:
            before = await _read(session, await store.get_account(session, account))
            row = await store.update_account(
                session,
                account,
                values,
                addresses=self._addresses,
                limits=limits,
                version=version_of(tag, text),
            )
            after = await _read(session, row)
            return Change(resource=text, before=before, after=after, answer=after)

        return await self._mutations.run(call, request, pb.Account, act)


async def _read(session: AsyncSession, row: AccountRow) -> pb.Account:
    limits = await store.limits_of(session, [row.account_id])
    return account_message(row, limits.get(row.account_id, ()))
