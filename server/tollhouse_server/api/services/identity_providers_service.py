"""IdentityProviderService: whose tokens and certificates are accepted."""

from collections.abc import Collection

from google.protobuf.empty_pb2 import Empty
from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import identity_providers_pb2 as pb

from tollhouse_server.access.authorizer import Authorizer
from tollhouse_server.access.granting import Granting
from tollhouse_server.access.group_store import get_group
from tollhouse_server.api.call import Call
from tollhouse_server.api.identity_messages import (
    client_message,
    clock_skew_in,
    groups_in,
    new_client,
    new_provider,
    provider_message,
)
from tollhouse_server.api.masks import changed_fields
from tollhouse_server.api.mutation import Change, MutationRequest, Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.values import version_of
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import Topic
from tollhouse_server.database.rows import change, check_version
from tollhouse_server.identity import provider_store as store
from tollhouse_server.identity.tables import ClientIdentityRow
from tollhouse_server.names import ClientIdentityName, GroupName, IdentityProviderName, TenantName
from tollhouse_server.tenancy import store as tenancy

# Not subject_claim: by another claim, people of the issuer would be other people of the tenant.
_TEXTS = ("display_name", "groups_claim", "project_claim")
_CHANGEABLE = (*_TEXTS, "group_mappings", "admits_groups", "clock_skew")


class IdentityProviderService:
    """Binds issuers and certificates to tenants; `issuers` are those that the deployment allows."""

    def __init__(
        self,
        database: Database,
        mutations: Mutations,
        pages: PageTokens,
        authorizer: Authorizer,
        issuers: Collection[str],
    ) -> None:
        self._database = database
        self._mutations = mutations
        self._pages = pages
        self._granting = Granting(authorizer)
        self._issuers = issuers

    async def create_identity_provider(
        self, request: pb.CreateIdentityProviderRequest, call: Call
    ) -> pb.IdentityProvider:
        row = new_provider(request, self._issuers)

        async def act(session: AsyncSession) -> Change[pb.IdentityProvider]:
            await tenancy.require_active(session, TenantName(row.tenant_id))
            await self._require_not_above(call, session, row.tenant_id, row.groups.values())
            after = provider_message(await store.create_provider(session, row))
            return Change(resource=after.name, before=None, after=after, answer=after)

        return await self._mutations.run(call, request, pb.IdentityProvider, act, Topic.IDENTITY)

    async def _require_not_above(self, call: Call, session: AsyncSession, tenant: str, groups: Collection[str]) -> None:
        """Refuse to let tokens into groups that may do more than the caller, or that there are not."""
        for group in sorted(set(groups)):
            name = GroupName(tenant, group)
            await get_group(session, name)
            await self._granting.check_join(session, call.principal, name, ())

    async def get_identity_provider(self, request: pb.GetIdentityProviderRequest, call: Call) -> pb.IdentityProvider:
        async with self._database.within(call.domain) as session:
            return provider_message(await store.get_provider(session, IdentityProviderName.parse(request.name)))

    async def list_identity_providers(
        self, request: pb.ListIdentityProvidersRequest, call: Call
    ) -> pb.ListIdentityProvidersResponse:
        tenant = TenantName.parse(request.parent, "parent").tenant
        after, size = self._pages.after(request), self._pages.size(request) + 1
        async with self._database.within(call.domain) as session:
            rows = await store.list_providers(session, tenant, after=after, size=size)
        page, last = self._pages.split(request, rows)
        token = self._pages.next(request, last.provider_id) if last else ""
        return pb.ListIdentityProvidersResponse(identity_providers=map(provider_message, page), next_page_token=token)

    async def update_identity_provider(
        self, request: pb.UpdateIdentityProviderRequest, call: Call
    ) -> pb.IdentityProvider:
        provider = request.identity_provider
        values = _changes(request)
        return await self._change(call, request, provider.name, provider.etag, values)

    async def disable_identity_provider(
        self, request: pb.DisableIdentityProviderRequest, call: Call
    ) -> pb.IdentityProvider:
        return await self._change(call, request, request.name, request.etag, {"state": "DISABLED"})

    async def enable_identity_provider(
        self, request: pb.EnableIdentityProviderRequest, call: Call
    ) -> pb.IdentityProvider:
        return await self._change(call, request, request.name, request.etag, {"state": "ACTIVE"})

    async def _change(
        self, call: Call, request: MutationRequest, text: str, tag: str, values: dict[str, object]
    ) -> pb.IdentityProvider:
        name = IdentityProviderName.parse(text)

        async def act(session: AsyncSession) -> Change[pb.IdentityProvider]:
            row = await store.get_provider(session, name, lock=True)
            check_version(row, version_of(tag, text), text)
            before = provider_message(row)
            await change(session, row, **values)
            if values.get("state") != "DISABLED":
                await self._require_not_above(call, session, name.tenant, row.groups.values())
            after = provider_message(row)
            return Change(resource=text, before=before, after=after, answer=after)

        return await self._mutations.run(call, request, pb.IdentityProvider, act, Topic.IDENTITY)

    async def delete_identity_provider(self, request: pb.DeleteIdentityProviderRequest, call: Call) -> Empty:
        name = IdentityProviderName.parse(request.name)

        async def act(session: AsyncSession) -> Change[Empty]:
            row = await store.get_provider(session, name, lock=True)
            check_version(row, version_of(request.etag, request.name), request.name)
            before = provider_message(row)
            await store.delete_provider(session, row)
            return Change(resource=request.name, before=before, after=None, answer=Empty())

        return await self._mutations.run(call, request, Empty, act, Topic.IDENTITY)

    async def create_client_identity(self, request: pb.CreateClientIdentityRequest, call: Call) -> pb.ClientIdentity:
        row, principal, project = new_client(request)

        async def act(session: AsyncSession) -> Change[pb.ClientIdentity]:
            await tenancy.active_principal(session, principal)
            if project is not None:
                await tenancy.active_project(session, project)
            await self._granting.check_credential(session, call.principal, principal, None)
            made = await store.create_client(session, row)
            after = client_message(made, project.department if project else "")
            return Change(resource=after.name, before=None, after=after, answer=after)

        return await self._mutations.run(call, request, pb.ClientIdentity, act, Topic.IDENTITY)

    async def get_client_identity(self, request: pb.GetClientIdentityRequest, call: Call) -> pb.ClientIdentity:
        async with self._database.within(call.domain) as session:
            row = await store.get_client(session, ClientIdentityName.parse(request.name))
            return await _client(session, row)

    async def list_client_identities(
        self, request: pb.ListClientIdentitiesRequest, call: Call
    ) -> pb.ListClientIdentitiesResponse:
        tenant = TenantName.parse(request.parent, "parent").tenant
        after, size = self._pages.after(request), self._pages.size(request) + 1
        async with self._database.within(call.domain) as session:
            rows = await store.list_clients(session, tenant, after=after, size=size)
            departments = await tenancy.project_departments(session, tenant, {row.project_id for row in rows})
        page, last = self._pages.split(request, rows)
        token = self._pages.next(request, last.client_identity_id) if last else ""
        found = [client_message(row, departments.get(row.project_id or "", "")) for row in page]
        return pb.ListClientIdentitiesResponse(client_identities=found, next_page_token=token)

    async def delete_client_identity(self, request: pb.DeleteClientIdentityRequest, call: Call) -> Empty:
        name = ClientIdentityName.parse(request.name)

        async def act(session: AsyncSession) -> Change[Empty]:
            row = await store.get_client(session, name, lock=True)
            check_version(row, version_of(request.etag, request.name), request.name)
            before = await _client(session, row)
            await store.delete_client(session, row)
            return Change(resource=request.name, before=before, after=None, answer=Empty())

        return await self._mutations.run(call, request, Empty, act, Topic.IDENTITY)


async def _client(session: AsyncSession, row: ClientIdentityRow) -> pb.ClientIdentity:
    departments = await tenancy.project_departments(session, row.tenant_id, {row.project_id})
    return client_message(row, departments.get(row.project_id or "", ""))


def _changes(request: pb.UpdateIdentityProviderRequest) -> dict[str, object]:
    """Return the columns that a request changes."""
    wanted = request.identity_provider
    fields = changed_fields(wanted, request.update_mask, _CHANGEABLE)
    values: dict[str, object] = {field: getattr(wanted, field) for field in fields & set(_TEXTS)}
    if "group_mappings" in fields:
        values["groups"] = groups_in(wanted, IdentityProviderName.parse(wanted.name).tenant)
    if "admits_groups" in fields:
        values["admits_groups"] = wanted.admits_groups
    if "clock_skew" in fields:
        values["clock_skew_seconds"] = clock_skew_in(wanted)
    return values
