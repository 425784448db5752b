"""The part of UpstreamKeyService that is about rotations and policies."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import upstream_keys_pb2 as pb

from tollhouse_server.api.call import Call
from tollhouse_server.api.key_messages import policy_message, rotation_message
from tollhouse_server.api.masks import changed_fields
from tollhouse_server.api.mutation import Change, Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.values import version_of
from tollhouse_server.custody import policy_store, rotation_store
from tollhouse_server.custody.providers.google import CREDENTIAL_FIELD, credential_path
from tollhouse_server.custody.rotations import KeyVault
from tollhouse_server.custody.tables import KeyRotationRow
from tollhouse_server.custody.terms import ROTATABLE, Cause, KeyPolicy, KeyState, Kind, ProviderKind
from tollhouse_server.database.engine import Database
from tollhouse_server.errors import SecretMissing, WrongState
from tollhouse_server.names import AccountName, KeyPolicyName, KeyRotationName, UpstreamKeyName, invalid
from tollhouse_server.routing import account_store
from tollhouse_server.routing.tables import AccountRow, UpstreamKeyRow
from tollhouse_server.upstream.protocol import UpstreamKind

_ENDED = (KeyState.REVOKED, KeyState.RETIRED)
_POLICY_FIELDS = frozenset({"provider", "rotation_period_days", "drain_seconds"})
_CREDENTIAL_PARTS = frozenset({"client_email", "private_key", "token_uri"})


class KeyCustodyHandlers:
    """Starts, shows and cancels rotations, revokes keys, keeps policies."""

    def __init__(self, database: Database, mutations: Mutations, pages: PageTokens, custodian: KeyVault) -> None:
        self._database = database
        self._mutations = mutations
        self._pages = pages
        self._custodian = custodian

    async def rotate_upstream_key(self, request: pb.RotateUpstreamKeyRequest, call: Call) -> pb.KeyRotation:
        name = UpstreamKeyName.parse(request.name)

        async def act(session: AsyncSession) -> Change[pb.KeyRotation]:
            key = await account_store.lock_key(session, name, version=version_of(request.etag, str(name)))
            if key.state not in ROTATABLE:
                raise WrongState(name=str(name), state=key.state, needed="ACTIVE, DISABLED or QUARANTINED")
            after = rotation_message(await start_rotation(session, key, Kind.ROTATION, call))
            return Change(resource=after.name, before=None, after=after, answer=after)

        return await self._mutations.run(call, request, pb.KeyRotation, act)

    async def revoke_upstream_key(self, request: pb.RevokeUpstreamKeyRequest, call: Call) -> pb.KeyRotation:
        name = UpstreamKeyName.parse(request.name)

        async def act(session: AsyncSession) -> Change[pb.KeyRotation]:
            key = await account_store.lock_key(session, name, version=version_of(request.etag, str(name)))
            if key.state in _ENDED:
                raise WrongState(name=str(name), state=key.state, needed="neither REVOKED nor RETIRED")
            after = rotation_message(await start_rotation(session, key, Kind.REVOCATION, call))
            await rotation_store.set_state(session, name.account, name.upstream_key, KeyState.REVOKED, of=[key.state])
            return Change(resource=str(name), before=None, after=after, answer=after)

        return await self._mutations.run(call, request, pb.KeyRotation, act)

    async def get_key_rotation(self, request: pb.GetKeyRotationRequest, call: Call) -> pb.KeyRotation:
        async with self._database.within(call.domain) as session:
            return rotation_message(await rotation_store.get_rotation(session, KeyRotationName.parse(request.name)))

    async def list_key_rotations(self, request: pb.ListKeyRotationsRequest, call: Call) -> pb.ListKeyRotationsResponse:
        account = AccountName.parse(request.parent, "parent").account
        async with self._database.within(call.domain) as session:
            await account_store.get_account(session, account)
            size = self._pages.size(request) + 1
            before = self._pages.after(request)
            rows = await rotation_store.list_rotations(session, account, before=before, size=size)
        page, last = self._pages.split(request, rows)
        token = self._pages.next(request, last.rotation_id) if last else ""
        return pb.ListKeyRotationsResponse(key_rotations=map(rotation_message, page), next_page_token=token)

    async def cancel_key_rotation(self, request: pb.CancelKeyRotationRequest, call: Call) -> pb.KeyRotation:
        name = KeyRotationName.parse(request.name)

        async def act(session: AsyncSession) -> Change[pb.KeyRotation]:
            before = rotation_message(await rotation_store.get_rotation(session, name))
            after = rotation_message(await rotation_store.cancel(session, name))
            return Change(resource=request.name, before=before, after=after, answer=after)

        return await self._mutations.run(call, request, pb.KeyRotation, act)

    async def get_key_policy(self, request: pb.GetKeyPolicyRequest, call: Call) -> pb.KeyPolicy:
        account = KeyPolicyName.parse(request.name).account
        async with self._database.within(call.domain) as session:
            await account_store.get_account(session, account)
            return policy_message(account, await policy_store.find_policy(session, account))

    async def update_key_policy(self, request: pb.UpdateKeyPolicyRequest, call: Call) -> pb.KeyPolicy:
        account = KeyPolicyName.parse(request.key_policy.name, "key_policy.name").account
        fields = changed_fields(request.key_policy, request.update_mask, _POLICY_FIELDS)

        async def act(session: AsyncSession) -> Change[pb.KeyPolicy]:
            owner = await account_store.get_account(session, account)
            row = await policy_store.find_policy(session, account, lock=True)
            before = policy_message(account, row)
            wanted = _changed_policy(policy_store.policy_in(row), request.key_policy, fields)
            await self._check_provider(owner, wanted, request)
            version = version_of(request.key_policy.etag, before.name)
            after = policy_message(account, await policy_store.set_policy(session, account, wanted, version=version))
            if request.provider_credential and not request.validate_only:
                await self._write_credential(account, request.provider_credential)
            return Change(resource=before.name, before=before, after=after, answer=after)

        return await self._mutations.run(call, request, pb.KeyPolicy, act)

    async def _check_provider(self, account: AccountRow, policy: KeyPolicy, request: pb.UpdateKeyPolicyRequest) -> None:
        if request.provider_credential:
            _check_credential(request.provider_credential)
        if policy.provider is ProviderKind.MANUAL:
            return
        if account.kind != UpstreamKind.GEMINI_API:
            raise invalid("key_policy.provider", f"keys of kind {account.kind} can be rotated by hand only")
        if not account.project:
            raise invalid("key_policy.provider", "needs an account that names its Google Cloud project")
        if policy.provider is ProviderKind.GOOGLE and not request.provider_credential:
            try:
                await self._custodian.read_secret(credential_path(account.account_id))
            except SecretMissing:
                raise invalid("provider_credential", "must be given once for KEY_PROVIDER_GOOGLE") from None

    async def _write_credential(self, account_id: str, credential: str) -> None:
        path = credential_path(account_id)
        try:
            current = (await self._custodian.read_secret(path)).version
        except SecretMissing:
            current = 0
        await self._custodian.write_secret(path, {CREDENTIAL_FIELD: credential}, cas=current)


async def start_rotation(session: AsyncSession, key: UpstreamKeyRow, kind: Kind, call: Call) -> KeyRotationRow:
    """Open a rotation or revocation at the caller's request, as the account's policy says.

    Raises:
        RotationUnderWay: there is one already.
    """
    return await rotation_store.start(
        session,
        key,
        kind=kind,
        cause=Cause.REQUEST,
        actor=call.principal.name,
        policy=await policy_store.policy_of(session, key.account_id),
        today=datetime.now(UTC).date(),
    )


def _changed_policy(policy: KeyPolicy, message: pb.KeyPolicy, fields: set[str]) -> KeyPolicy:
    values: dict[str, Any] = {}
    if "provider" in fields:
        provider = message.provider or pb.KEY_PROVIDER_MANUAL
        values["provider"] = ProviderKind(pb.KeyProvider.Name(provider).removeprefix("KEY_PROVIDER_"))
    if "rotation_period_days" in fields:
        values["rotation_period"] = timedelta(days=message.rotation_period_days or 60)
    if "drain_seconds" in fields:
        values["drain_seconds"] = message.drain_seconds
    return replace(policy, **values)


def _check_credential(text: str) -> None:
    """Hold it to be a service account's key, without a word of it in what is said."""
    try:
        parts = json.loads(text)
    except ValueError:
        parts = None
    if not isinstance(parts, dict) or not parts.keys() >= _CREDENTIAL_PARTS:
        raise invalid("provider_credential", "must be the JSON key of a service account")
