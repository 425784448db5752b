"""AccountService: the Google Cloud projects behind which Gemini is reached."""

from collections.abc import Collection

from google.protobuf.empty_pb2 import Empty
from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import accounts_pb2 as pb

from tollhouse_server.api.call import Call
from tollhouse_server.api.masks import changed_fields
from tollhouse_server.api.mutation import Change, MutationRequest, Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.values import etag, timestamp, version_of
from tollhouse_server.database.engine import Database
from tollhouse_server.names import AccountName
from tollhouse_server.routing import account_store as store
from tollhouse_server.routing.tables import AccountRow

_COLUMNS = {"display_name": "display_name", "google_project": "project", "endpoint": "base_url_key", "region": "region"}


class AccountService:
    """Creates, reads, changes, disables and deletes accounts; `endpoints` are the addresses that settings allow."""

    def __init__(
        self,
        database: Database,
        mutations: Mutations,
        pages: PageTokens,
        *,
        endpoints: Collection[str],
        default_endpoint: str,
    ) -> None:
        self._database = database
        self._mutations = mutations
        self._pages = pages
        self._endpoints = endpoints
        self._default_endpoint = default_endpoint

    async def create_account(self, request: pb.CreateAccountRequest, call: Call) -> pb.Account:
        name = AccountName.parse(f"accounts/{request.account_id}", "account_id")

        async def act(session: AsyncSession) -> Change[pb.Account]:
            row = AccountRow(
                account_id=name.account,
                display_name=request.account.display_name,
                kind="gemini_api",
                project=request.account.google_project,
                base_url_key=request.account.endpoint or self._default_endpoint,
                region=request.account.region,
            )
            after = _message(await store.create_account(session, row, base_url_keys=self._endpoints))
            return Change(resource=after.name, before=None, after=after, answer=after)

        return await self._mutations.run(call, request, pb.Account, act)

    async def get_account(self, request: pb.GetAccountRequest, call: Call) -> pb.Account:
        async with self._database.transaction() as session:
            return _message(await store.get_account(session, AccountName.parse(request.name).account))

    async def list_accounts(self, request: pb.ListAccountsRequest, call: Call) -> pb.ListAccountsResponse:
        async with self._database.transaction() as session:
            size = self._pages.size(request) + 1
            rows = await store.list_accounts(session, after=self._pages.after(request), size=size)
        page, last = self._pages.split(request, rows)
        token = self._pages.next(request, last.account_id) if last else ""
        return pb.ListAccountsResponse(accounts=map(_message, page), next_page_token=token)

    async def update_account(self, request: pb.UpdateAccountRequest, call: Call) -> pb.Account:
        fields = changed_fields(request.account, request.update_mask, _COLUMNS)
        values = {_COLUMNS[field]: getattr(request.account, field) for field in fields}
        return await self._change(call, request, request.account.name, request.account.etag, values)

    async def disable_account(self, request: pb.DisableAccountRequest, call: Call) -> pb.Account:
        return await self._change(call, request, request.name, request.etag, {"state": "DISABLED"})

    async def enable_account(self, request: pb.EnableAccountRequest, call: Call) -> pb.Account:
        return await self._change(call, request, request.name, request.etag, {"state": "ACTIVE"})

    async def delete_account(self, request: pb.DeleteAccountRequest, call: Call) -> Empty:
        account = AccountName.parse(request.name).account

        async def act(session: AsyncSession) -> Change[Empty]:
            before = _message(await store.get_account(session, account))
            await store.delete_account(session, account, version=version_of(request.etag, request.name))
            return Change(resource=request.name, before=before, after=None, answer=Empty())

        return await self._mutations.run(call, request, Empty, act)

    async def _change(
        self, call: Call, request: MutationRequest, text: str, tag: str, values: dict[str, str]
    ) -> pb.Account:
        account = AccountName.parse(text).account

        async def act(session: AsyncSession) -> Change[pb.Account]:
            before = _message(await store.get_account(session, account))
            row = await store.update_account(
                session, account, values, base_url_keys=self._endpoints, version=version_of(tag, text)
            )
            after = _message(row)
            return Change(resource=text, before=before, after=after, answer=after)

        return await self._mutations.run(call, request, pb.Account, act)


def _message(row: AccountRow) -> pb.Account:
    return pb.Account(
        name=str(AccountName(row.account_id)),
        display_name=row.display_name,
        upstream=pb.Account.UPSTREAM_GEMINI_API if row.kind == "gemini_api" else pb.Account.UPSTREAM_UNSPECIFIED,
        google_project=row.project,
        endpoint=row.base_url_key,
        region=row.region,
        state=pb.Account.State.Value(f"STATE_{row.state}"),
        create_time=timestamp(row.created_at),
        update_time=timestamp(row.updated_at),
        etag=etag(row.version),
    )
