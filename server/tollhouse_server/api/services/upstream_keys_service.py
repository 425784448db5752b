"""UpstreamKeyService: Gemini's keys. Secrets go to Vault and nowhere else; here is their metadata."""

from collections.abc import Mapping
from typing import Protocol

from google.protobuf.empty_pb2 import Empty
from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import upstream_keys_pb2 as pb

from tollhouse_server.api.call import Call
from tollhouse_server.api.mutation import Change, MutationRequest, Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.values import etag, timestamp, version_of
from tollhouse_server.database.engine import Database
from tollhouse_server.errors import EtagMismatch, ResourceExists, ResourceNotFound
from tollhouse_server.names import AccountName, UpstreamKeyName
from tollhouse_server.routing import account_store as store
from tollhouse_server.routing.tables import UpstreamKeyRow
from tollhouse_server.vault.key_ring import upstream_key_path
from tollhouse_server.vault.secret_text import SecretFields

_DRY_RUN_VERSION = 1


class Custodian(Protocol):
    """Vault, seen as the key-custodian's role: it may write upstream keys and nothing else."""

    async def read_secret(self, path: str, *, version: int | None = None) -> SecretFields:
        """Return the secret at `path`."""

    async def write_secret(self, path: str, values: Mapping[str, str], *, cas: int) -> int:
        """Write a version if the current one is `cas`, and return its number."""

    async def delete_secret(self, path: str) -> None:
        """Destroy every version."""


class UpstreamKeyService:
    """Adds, reads, disables, enables and deletes upstream keys."""

    def __init__(self, database: Database, mutations: Mutations, pages: PageTokens, custodian: Custodian) -> None:
        self._database = database
        self._mutations = mutations
        self._pages = pages
        self._custodian = custodian

    async def add_upstream_key(self, request: pb.AddUpstreamKeyRequest, call: Call) -> pb.UpstreamKey:
        name = UpstreamKeyName.parse(f"{request.parent}/upstreamKeys/{request.upstream_key_id}", "upstream_key_id")

        async def act(session: AsyncSession) -> Change[pb.UpstreamKey]:
            await _require_free(session, name)
            # Vault first: metadata must never promise a secret that is not there. One too many does no harm.
            version = _DRY_RUN_VERSION if request.validate_only else await self._write(name, request.secret)
            row = UpstreamKeyRow(
                account_id=name.account,
                key_id=name.upstream_key,
                display_name=request.upstream_key.display_name,
                vault_version=version,
                fingerprint=store.fingerprint_of(request.secret),
            )
            after = _message(await store.create_key(session, row))
            return Change(resource=after.name, before=None, after=after, answer=after)

        return await self._mutations.run(call, request, pb.UpstreamKey, act)

    async def _write(self, name: UpstreamKeyName, secret: str) -> int:
        path, values = upstream_key_path(name.account, name.upstream_key), {"key": secret}
        try:
            return await self._custodian.write_secret(path, values, cas=0)
        except EtagMismatch:
            # Left by an attempt whose transaction did not commit: nothing refers to it.
            found = await self._custodian.read_secret(path)
            return await self._custodian.write_secret(path, values, cas=found.version)

    async def get_upstream_key(self, request: pb.GetUpstreamKeyRequest, call: Call) -> pb.UpstreamKey:
        name = UpstreamKeyName.parse(request.name)
        async with self._database.transaction() as session:
            return _message(await store.get_key(session, name.account, name.upstream_key))

    async def list_upstream_keys(self, request: pb.ListUpstreamKeysRequest, call: Call) -> pb.ListUpstreamKeysResponse:
        account = AccountName.parse(request.parent, "parent").account
        async with self._database.transaction() as session:
            await store.get_account(session, account)
            size = self._pages.size(request) + 1
            rows = await store.list_keys(session, account, after=self._pages.after(request), size=size)
        page, last = self._pages.split(request, rows)
        token = self._pages.next(request, last.key_id) if last else ""
        return pb.ListUpstreamKeysResponse(upstream_keys=map(_message, page), next_page_token=token)

    async def disable_upstream_key(self, request: pb.DisableUpstreamKeyRequest, call: Call) -> pb.UpstreamKey:
        return await self._set_state(call, request, request.name, request.etag, "DISABLED")

    async def enable_upstream_key(self, request: pb.EnableUpstreamKeyRequest, call: Call) -> pb.UpstreamKey:
        return await self._set_state(call, request, request.name, request.etag, "ACTIVE")

    async def delete_upstream_key(self, request: pb.DeleteUpstreamKeyRequest, call: Call) -> Empty:
        name = UpstreamKeyName.parse(request.name)

        async def act(session: AsyncSession) -> Change[Empty]:
            before = _message(await store.get_key(session, name.account, name.upstream_key))
            version = version_of(request.etag, request.name)
            await store.delete_key(session, name.account, name.upstream_key, version=version)
            if not request.validate_only:
                await self._custodian.delete_secret(upstream_key_path(name.account, name.upstream_key))
            return Change(resource=request.name, before=before, after=None, answer=Empty())

        return await self._mutations.run(call, request, Empty, act)

    async def _set_state(self, call: Call, request: MutationRequest, text: str, tag: str, state: str) -> pb.UpstreamKey:
        name = UpstreamKeyName.parse(text)

        async def act(session: AsyncSession) -> Change[pb.UpstreamKey]:
            before = _message(await store.get_key(session, name.account, name.upstream_key))
            row = await store.update_key(
                session, name.account, name.upstream_key, {"state": state}, version=version_of(tag, text)
            )
            after = _message(row)
            return Change(resource=text, before=before, after=after, answer=after)

        return await self._mutations.run(call, request, pb.UpstreamKey, act)


async def _require_free(session: AsyncSession, name: UpstreamKeyName) -> None:
    await store.get_account(session, name.account)
    try:
        await store.get_key(session, name.account, name.upstream_key)
    except ResourceNotFound:
        return
    raise ResourceExists(name=str(name))


def _message(row: UpstreamKeyRow) -> pb.UpstreamKey:
    return pb.UpstreamKey(
        name=str(UpstreamKeyName(row.account_id, row.key_id)),
        display_name=row.display_name,
        state=pb.UpstreamKey.State.Value(f"STATE_{row.state}"),
        vault_version=row.vault_version,
        fingerprint=row.fingerprint,
        create_time=timestamp(row.created_at),
        update_time=timestamp(row.updated_at),
        etag=etag(row.version),
    )
