"""ApiKeyService: the keys with which services and administrators call."""

from datetime import UTC, datetime

from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import api_keys_pb2 as pb

from tollhouse_server.access.authorizer import Authorizer
from tollhouse_server.access.roles import ROLES
from tollhouse_server.access.store import grants_of
from tollhouse_server.api.call import Call
from tollhouse_server.api.masks import changed_fields
from tollhouse_server.api.mutation import Change, MutationRequest, Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.values import etag, moment_of, timestamp, version_of
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import Topic
from tollhouse_server.database.rows import change, check_version
from tollhouse_server.identity import store
from tollhouse_server.identity.keys import digest, make_key
from tollhouse_server.identity.tables import ApiKeyRow
from tollhouse_server.names import (
    ApiKeyName,
    PrincipalName,
    ProjectKeyName,
    ProjectName,
    TenantName,
    invalid,
    parse_api_key,
    parse_scope,
)
from tollhouse_server.tenancy import store as tenancy


class ApiKeyService:
    """Creates, reads, changes and revokes API keys."""

    def __init__(
        self, database: Database, mutations: Mutations, pages: PageTokens, authorizer: Authorizer, pepper: bytes
    ) -> None:
        self._database = database
        self._mutations = mutations
        self._pages = pages
        self._authorizer = authorizer
        self._pepper = pepper

    async def create_api_key(self, request: pb.CreateApiKeyRequest, call: Call) -> pb.CreateApiKeyResponse:
        parent = _parent(request.parent)
        owner = _owner(request.api_key.principal, parent)
        live = request.api_key.environment != pb.ApiKey.ENVIRONMENT_TEST
        expires_at = _expiry(request.api_key)

        async def act(session: AsyncSession) -> Change[pb.CreateApiKeyResponse]:
            await tenancy.active_principal(session, owner)
            await self._require_not_above(call, session, owner)
            if isinstance(parent, ProjectName):
                await tenancy.active_project(session, parent)
            key = make_key("live" if live else "test")
            row = ApiKeyRow(
                tenant_id=parent.tenant,
                key_id=key.key_id,
                principal_id=owner.principal,
                project_id=parent.project if isinstance(parent, ProjectName) else None,
                environment="LIVE" if live else "TEST",
                digest=digest(self._pepper, key.text),
                display_name=request.api_key.display_name,
                expires_at=expires_at,
            )
            after = _message(await store.create_key(session, row), _department(parent))
            kept = pb.CreateApiKeyResponse(api_key=after)
            answer = kept if request.validate_only else pb.CreateApiKeyResponse(api_key=after, secret=key.text)
            return Change(resource=after.name, before=None, after=after, answer=answer, kept=kept)

        return await self._mutations.run(call, request, pb.CreateApiKeyResponse, act, Topic.IDENTITY)

    async def _require_not_above(self, call: Call, session: AsyncSession, owner: PrincipalName) -> None:
        """Refuse a key for someone who may do more than the caller: with it the caller could do it too."""
        if call.principal.name == str(owner):
            return
        for grant in await grants_of(session, owner.tenant, owner.principal):
            await self._authorizer.require_all(call.principal, ROLES[grant.role].permissions, grant.scope)

    async def get_api_key(self, request: pb.GetApiKeyRequest, call: Call) -> pb.ApiKey:
        async with self._database.within(call.domain) as session:
            name = parse_api_key(request.name)
            return _message(await _find(session, name), _department(name))

    async def list_api_keys(self, request: pb.ListApiKeysRequest, call: Call) -> pb.ListApiKeysResponse:
        parent = _parent(request.parent)
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
        keys = [_message(row, departments.get(row.project_id or "", "")) for row in page]
        return pb.ListApiKeysResponse(api_keys=keys, next_page_token=token)

    async def update_api_key(self, request: pb.UpdateApiKeyRequest, call: Call) -> pb.ApiKey:
        fields = changed_fields(request.api_key, request.update_mask, ("display_name", "expire_time"))
        values: dict[str, object] = {}
        if "display_name" in fields:
            values["display_name"] = request.api_key.display_name
        if "expire_time" in fields:
            values["expires_at"] = _expiry(request.api_key)
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
            before = _message(row, _department(name))
            if row.revoked_at is None:
                await change(session, row, **values)
            after = _message(row, _department(name))
            return Change(resource=text, before=before, after=after, answer=after)

        return await self._mutations.run(call, request, pb.ApiKey, act, Topic.IDENTITY)


def _parent(text: str) -> TenantName | ProjectName:
    scope = parse_scope(text, "parent")
    if isinstance(scope, TenantName | ProjectName):
        return scope
    raise invalid("parent", "must be the name of a tenant or a project")


def _owner(text: str, parent: TenantName | ProjectName) -> PrincipalName:
    owner = PrincipalName.parse(text, "api_key.principal")
    if owner.tenant != parent.tenant:
        raise invalid("api_key.principal", "must be of the key's own tenant")
    return owner


def _expiry(key: pb.ApiKey) -> datetime | None:
    return moment_of(key.expire_time, "api_key.expire_time") if key.HasField("expire_time") else None


def _department(name: ApiKeyName | TenantName | ProjectName) -> str:
    return name.department if isinstance(name, ProjectKeyName | ProjectName) else ""


async def _find(session: AsyncSession, name: ApiKeyName, *, lock: bool = False) -> ApiKeyRow:
    if isinstance(name, ProjectKeyName):
        # The permission was checked on the department in the name: the project must really be there.
        await tenancy.get_project(session, ProjectName(name.tenant, name.department, name.project))
    return await store.get_key(session, name, lock=lock)


def _state(row: ApiKeyRow) -> "pb.ApiKey.State.ValueType":
    if row.revoked_at is not None:
        return pb.ApiKey.STATE_REVOKED
    expired = row.expires_at is not None and row.expires_at <= datetime.now(UTC)
    return pb.ApiKey.STATE_EXPIRED if expired else pb.ApiKey.STATE_ACTIVE


def _message(row: ApiKeyRow, department: str) -> pb.ApiKey:
    return pb.ApiKey(
        name=str(store.key_name(row.tenant_id, row.key_id, row.project_id, department)),
        display_name=row.display_name,
        principal=str(PrincipalName(row.tenant_id, row.principal_id)),
        environment=pb.ApiKey.Environment.Value(f"ENVIRONMENT_{row.environment}"),
        state=_state(row),
        expire_time=timestamp(row.expires_at),
        create_time=timestamp(row.created_at),
        update_time=timestamp(row.updated_at),
        revoke_time=timestamp(row.revoked_at),
        etag=etag(row.version),
    )
