"""UpstreamKeyService: Gemini's keys. Secrets go to Vault and nowhere else; here is their metadata."""

from google.protobuf.empty_pb2 import Empty
from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import upstream_keys_pb2 as pb

from tollhouse_server.api.call import Call
from tollhouse_server.api.key_messages import key_message
from tollhouse_server.api.mutation import Change, MutationRequest
from tollhouse_server.api.services.key_custody import KeyCustodyHandlers, start_rotation
from tollhouse_server.api.values import version_of
from tollhouse_server.custody.rotation_store import bring_key, name_of, open_rotation
from tollhouse_server.custody.status import standing_of
from tollhouse_server.custody.terms import ROTATABLE, KeyState, Kind
from tollhouse_server.errors import EtagMismatch, ResourceExists, ResourceNotFound, RotationUnderWay, WrongState
from tollhouse_server.names import AccountName, UpstreamKeyName, invalid
from tollhouse_server.routing import account_store as store
from tollhouse_server.routing.tables import AccountRow, UpstreamKeyRow
from tollhouse_server.upstream.keys import UnusableKeyError, require_usable
from tollhouse_server.upstream.protocol import UpstreamKind
from tollhouse_server.vault.key_ring import KEY_FIELD, upstream_key_path

_DRY_RUN_VERSION = 1


class UpstreamKeyService(KeyCustodyHandlers):
    """Adds, reads, disables, enables and deletes upstream keys, and lets them be rotated and revoked."""

    async def add_upstream_key(self, request: pb.AddUpstreamKeyRequest, call: Call) -> pb.UpstreamKey:
        name = UpstreamKeyName.parse(f"{request.parent}/upstreamKeys/{request.upstream_key_id}", "upstream_key_id")

        async def act(session: AsyncSession) -> Change[pb.UpstreamKey]:
            account = await _require_free(session, name)
            _require_usable(request.secret, account)
            # Vault first: metadata must never promise a secret that is not there. One too many does no harm.
            version = _DRY_RUN_VERSION if request.validate_only else await self._write(name, request.secret)
            row = UpstreamKeyRow(
                account_id=name.account,
                key_id=name.upstream_key,
                display_name=request.upstream_key.display_name,
                vault_version=version,
                fingerprint=store.fingerprint_of(request.secret),
            )
            if request.replaces:
                row.state = KeyState.STAGED.value
                await _bring(session, UpstreamKeyName(name.account, request.replaces), row, call)
            after = key_message(await store.create_key(session, row))
            return Change(resource=after.name, before=None, after=after, answer=after)

        return await self._mutations.run(call, request, pb.UpstreamKey, act)

    async def _write(self, name: UpstreamKeyName, secret: str) -> int:
        path, values = upstream_key_path(name.account, name.upstream_key), {KEY_FIELD: secret}
        try:
            return await self._custodian.write_secret(path, values, cas=0)
        except EtagMismatch:
            # Left by an attempt whose transaction did not commit: nothing refers to it.
            found = await self._custodian.read_secret(path)
            return await self._custodian.write_secret(path, values, cas=found.version)

    async def get_upstream_key(self, request: pb.GetUpstreamKeyRequest, call: Call) -> pb.UpstreamKey:
        name = UpstreamKeyName.parse(request.name)
        async with self._database.within(call.domain) as session:
            row = await store.get_key(session, name.account, name.upstream_key)
            return key_message(row, (await standing_of(session, name.account)).of(row))

    async def list_upstream_keys(self, request: pb.ListUpstreamKeysRequest, call: Call) -> pb.ListUpstreamKeysResponse:
        account = AccountName.parse(request.parent, "parent").account
        async with self._database.within(call.domain) as session:
            await store.get_account(session, account)
            size = self._pages.size(request) + 1
            rows = await store.list_keys(session, account, after=self._pages.after(request), size=size)
            standing = await standing_of(session, account)
        page, last = self._pages.split(request, rows)
        token = self._pages.next(request, last.key_id) if last else ""
        keys = [key_message(row, standing.of(row)) for row in page]
        return pb.ListUpstreamKeysResponse(upstream_keys=keys, next_page_token=token)

    async def disable_upstream_key(self, request: pb.DisableUpstreamKeyRequest, call: Call) -> pb.UpstreamKey:
        return await self._set_state(call, request, request.name, request.etag, KeyState.DISABLED)

    async def enable_upstream_key(self, request: pb.EnableUpstreamKeyRequest, call: Call) -> pb.UpstreamKey:
        return await self._set_state(call, request, request.name, request.etag, KeyState.ACTIVE)

    async def delete_upstream_key(self, request: pb.DeleteUpstreamKeyRequest, call: Call) -> Empty:
        name = UpstreamKeyName.parse(request.name)

        async def act(session: AsyncSession) -> Change[Empty]:
            before = key_message(await store.lock_key(session, name, version=version_of(request.etag, request.name)))
            running = await open_rotation(session, name.account, name.upstream_key)
            if running is not None:
                raise RotationUnderWay(name=request.name, rotation=name_of(running))
            # Vault first: while it is slow nobody else must wait for the epoch, which the deletion takes.
            if not request.validate_only:
                await self._custodian.delete_secret(upstream_key_path(name.account, name.upstream_key))
            await store.delete_key(session, name.account, name.upstream_key)
            return Change(resource=request.name, before=before, after=None, answer=Empty())

        return await self._mutations.run(call, request, Empty, act)

    async def _set_state(
        self, call: Call, request: MutationRequest, text: str, tag: str, state: KeyState
    ) -> pb.UpstreamKey:
        name = UpstreamKeyName.parse(text)

        async def act(session: AsyncSession) -> Change[pb.UpstreamKey]:
            row = await store.lock_key(session, name, version=version_of(tag, text))
            before = key_message(row)
            if row.state not in ROTATABLE:
                raise WrongState(name=text, state=row.state, needed="ACTIVE, DISABLED or QUARANTINED")
            after = key_message(
                await store.update_key(session, name.account, name.upstream_key, {"state": state.value})
            )
            return Change(resource=text, before=before, after=after, answer=after)

        return await self._mutations.run(call, request, pb.UpstreamKey, act)


async def _bring(session: AsyncSession, old: UpstreamKeyName, new: UpstreamKeyRow, call: Call) -> None:
    """Let the rotation of `old` that waits for a person go on with `new`; start it where there is none."""
    key = await store.lock_key(session, old)
    if key.state not in ROTATABLE:
        raise WrongState(name=str(old), state=key.state, needed="ACTIVE, DISABLED or QUARANTINED")
    running = await open_rotation(session, old.account, old.upstream_key)
    if running is None:
        running = await start_rotation(session, key, Kind.ROTATION, call)
    await bring_key(session, running, new.key_id)


async def _require_free(session: AsyncSession, name: UpstreamKeyName) -> AccountRow:
    account = await store.get_account(session, name.account)
    try:
        await store.get_key(session, name.account, name.upstream_key)
    except ResourceNotFound:
        return account
    raise ResourceExists(name=str(name))


def _require_usable(secret: str, account: AccountRow) -> None:
    try:
        require_usable(secret, UpstreamKind(account.kind))
    except UnusableKeyError as error:
        raise invalid("secret", str(error)) from None
