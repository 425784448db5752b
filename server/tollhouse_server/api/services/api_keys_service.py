"""ApiKeyService: the keys with which services and administrators call."""

from datetime import UTC, datetime

from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import api_keys_pb2 as pb

from tollhouse_server.access.authorizer import Authorizer
from tollhouse_server.access.granting import Granting
from tollhouse_server.api import api_key_requests as asked
from tollhouse_server.api.api_key_requests import department_of, key_message
from tollhouse_server.api.call import Call
from tollhouse_server.api.masks import changed_fields
from tollhouse_server.api.mutation import Change, MutationRequest, Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.values import version_of
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import Topic
from tollhouse_server.database.rows import change, check_version
from tollhouse_server.errors import WrongState
from tollhouse_server.identity import store
from tollhouse_server.identity.keys import ENVIRONMENTS, KeyText, digest, make_key
from tollhouse_server.identity.scopes import permissions_in
from tollhouse_server.identity.tables import ApiKeyRow
from tollhouse_server.names import ApiKeyName, PrincipalName, ProjectKeyName, ProjectName, parse_api_key
from tollhouse_server.tenancy import store as tenancy

_CHANGEABLE = ("display_name", "expire_time", "allowed_networks")


class ApiKeyService:
    """Creates, reads, changes, rotates and revokes API keys."""

    def __init__(
        self, database: Database, mutations: Mutations, pages: PageTokens, authorizer: Authorizer, pepper: bytes
    ) -> None:
        self._database = database
        self._mutations = mutations
        self._pages = pages
        self._granting = Granting(authorizer)
        self._pepper = pepper

    async def create_api_key(self, request: pb.CreateApiKeyRequest, call: Call) -> pb.CreateApiKeyResponse:
        parent = asked.parent_in(request.parent)
        owner = asked.owner_in(request.api_key.principal, parent)
        wanted = ApiKeyRow(
            tenant_id=parent.tenant,
            key_id="",
            principal_id=owner.principal,
            project_id=parent.project if isinstance(parent, ProjectName) else None,
            environment=asked.environment_in(request.api_key.environment),
            digest=b"",
            display_name=request.api_key.display_name,
            expires_at=asked.expiry_in(request.api_key),
            scopes=asked.scopes_in(request.api_key),
            allowed_networks=asked.networks_in(request.api_key),
        )

        async def act(session: AsyncSession) -> Change[pb.CreateApiKeyResponse]:
            asked.require_to_come(wanted.expires_at, "api_key.expire_time")
            await tenancy.active_principal(session, owner)
            await self._require_not_above(call, session, wanted)
            if isinstance(parent, ProjectName):
                await tenancy.active_project(session, parent)
            row, key = await self._issue(session, wanted)
            after = key_message(row, department_of(parent))
            kept = pb.CreateApiKeyResponse(api_key=after)
            answer = kept if request.validate_only else pb.CreateApiKeyResponse(api_key=after, secret=key.text)
            return Change(resource=after.name, before=None, after=after, answer=answer, kept=kept)

        return await self._mutations.run(call, request, pb.CreateApiKeyResponse, act, Topic.IDENTITY)

    async def _issue(self, session: AsyncSession, wanted: ApiKeyRow) -> tuple[ApiKeyRow, KeyText]:
        """Make a key as `wanted` says and write its record; the text is nowhere else."""
        key = make_key(ENVIRONMENTS[wanted.environment])
        wanted.key_id, wanted.digest = key.key_id, digest(self._pepper, key.text)
        return await store.create_key(session, wanted), key

    async def _require_not_above(self, call: Call, session: AsyncSession, wanted: ApiKeyRow) -> None:
        """Refuse a key with which one could do more than the caller can: someone else's, or a wider one."""
        owner = PrincipalName(wanted.tenant_id, wanted.principal_id)
        await self._granting.check_credential(session, call.principal, owner, permissions_in(wanted.scopes))

    async def rotate_api_key(self, request: pb.RotateApiKeyRequest, call: Call) -> pb.RotateApiKeyResponse:
        name = parse_api_key(request.name)
        version = version_of(request.etag, request.name)

        async def act(session: AsyncSession) -> Change[pb.RotateApiKeyResponse]:
            old = await _find(session, name, lock=True)
            check_version(old, version, request.name)
            before = key_message(old, department_of(name))
            await tenancy.active_principal(session, PrincipalName(old.tenant_id, old.principal_id))
            await self._require_not_above(call, session, old)
            if isinstance(name, ProjectKeyName):
                await tenancy.active_project(session, ProjectName(name.tenant, name.department, name.project))
            await _require_rotatable(session, old, request.name)
            new, key = await self._succeed(session, old, request)
            kept = pb.RotateApiKeyResponse(
                api_key=key_message(new, department_of(name)), predecessor=key_message(old, department_of(name))
            )
            answer = pb.RotateApiKeyResponse()
            answer.CopyFrom(kept)
            answer.secret = "" if request.validate_only else key.text
            return Change(resource=request.name, before=before, after=kept.predecessor, answer=answer, kept=kept)

        return await self._mutations.run(call, request, pb.RotateApiKeyResponse, act, Topic.IDENTITY)

    async def _succeed(
        self, session: AsyncSession, old: ApiKeyRow, request: pb.RotateApiKeyRequest
    ) -> tuple[ApiKeyRow, KeyText]:
        """Make the new key and set the end of the old one, which its overlap never puts off."""
        now, overlap = datetime.now(UTC), asked.overlap_in(request)
        copied = old.model_dump(
            include={"tenant_id", "principal_id", "project_id", "environment", "display_name"}
            | {"scopes", "allowed_networks"}
        )
        expires_at = asked.successor_expiry(request, old, now)
        asked.require_to_come(expires_at, "expire_time")
        wanted = ApiKeyRow(**copied, key_id="", digest=b"", expires_at=expires_at, predecessor_id=old.key_id)
        new, key = await self._issue(session, wanted)
        ends_at = now + overlap
        end = {"expires_at": min(old.expires_at or ends_at, ends_at)} if overlap else {"revoked_at": now}
        await change(session, old, successor_id=new.key_id, **end)
        return new, key

    async def get_api_key(self, request: pb.GetApiKeyRequest, call: Call) -> pb.ApiKey:
        async with self._database.within(call.domain) as session:
            name = parse_api_key(request.name)
            return key_message(await _find(session, name), department_of(name))

    async def list_api_keys(self, request: pb.ListApiKeysRequest, call: Call) -> pb.ListApiKeysResponse:
        parent = asked.parent_in(request.parent)
        async with self._database.within(call.domain) as session:
            if isinstance(parent, ProjectName):
                await tenancy.get_project(session, parent)
            rows = await store.list_keys(
                session,
                parent.tenant,
                project=parent.project if isinstance(parent, ProjectName) else None,
                after=self._pages.after(request),
                size=self._pages.size(request) + 1,
                show_revoked=request.show_revoked,
            )
            departments = await tenancy.project_departments(session, parent.tenant, {row.project_id for row in rows})
        page, last = self._pages.split(request, rows)
        token = self._pages.next(request, last.key_id) if last else ""
        keys = [key_message(row, departments.get(row.project_id or "", "")) for row in page]
        return pb.ListApiKeysResponse(api_keys=keys, next_page_token=token)

    async def update_api_key(self, request: pb.UpdateApiKeyRequest, call: Call) -> pb.ApiKey:
        fields = changed_fields(request.api_key, request.update_mask, _CHANGEABLE)
        values: dict[str, object] = {}
        if "display_name" in fields:
            values["display_name"] = request.api_key.display_name
        if "expire_time" in fields:
            values["expires_at"] = asked.expiry_in(request.api_key)
        if "allowed_networks" in fields:
            values["allowed_networks"] = asked.networks_in(request.api_key)
        return await self._change(call, request, request.api_key.name, request.api_key.etag, values)

    async def revoke_api_key(self, request: pb.RevokeApiKeyRequest, call: Call) -> pb.ApiKey:
        return await self._change(call, request, request.name, request.etag, {"revoked_at": datetime.now(UTC)})

    async def _change(
        self, call: Call, request: MutationRequest, text: str, tag: str, values: dict[str, object]
    ) -> pb.ApiKey:
        name = parse_api_key(text)

        async def act(session: AsyncSession) -> Change[pb.ApiKey]:
            row = await _find(session, name, lock=True)
            check_version(row, version_of(tag, text), text)
            before = key_message(row, department_of(name))
            ended_at, networks = row.expires_at, row.allowed_networks
            if row.revoked_at is None:
                await change(session, row, **values)
                if "expires_at" in values:
                    asked.require_to_come(row.expires_at, "api_key.expire_time")
            if asked.is_wider(row, expires_at=ended_at, allowed_networks=networks):
                await self._require_not_above(call, session, row)
            after = key_message(row, department_of(name))
            return Change(resource=text, before=before, after=after, answer=after)

        return await self._mutations.run(call, request, pb.ApiKey, act, Topic.IDENTITY)


async def _find(session: AsyncSession, name: ApiKeyName, *, lock: bool = False) -> ApiKeyRow:
    if isinstance(name, ProjectKeyName):
        # The permission was checked on the department in the name: the project must really be there.
        await tenancy.get_project(session, ProjectName(name.tenant, name.department, name.project))
    return await store.get_key(session, name, lock=lock)


async def _require_rotatable(session: AsyncSession, old: ApiKeyRow, name: str) -> None:
    """Refuse to replace a key that has ended, or that has a living successor: one of the two would be forgotten.

    Raises:
        WrongState: it is so.
    """
    state = asked.key_state(old)
    if state != pb.ApiKey.STATE_ACTIVE:
        raise WrongState(name=name, state=pb.ApiKey.State.Name(state).removeprefix("STATE_"), needed="ACTIVE")
    if old.successor_id is not None:
        successor = await store.key_of_id(session, old.tenant_id, old.successor_id)
        if asked.key_state(successor) == pb.ApiKey.STATE_ACTIVE:
            needed = f"ACTIVE, with its successor {successor.key_id} revoked"
            raise WrongState(name=name, state="ROTATED", needed=needed)
