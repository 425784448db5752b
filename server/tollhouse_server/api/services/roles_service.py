"""RoleService: what can be granted, and to whom it is."""

import secrets

from google.protobuf.empty_pb2 import Empty
from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import roles_pb2 as pb

from tollhouse_server.access import group_store, role_store, store
from tollhouse_server.access.authorizer import Authorizer
from tollhouse_server.access.granting import Granting, lock_rights
from tollhouse_server.access.roles import ROLES
from tollhouse_server.access.tables import RoleGrantRow, TenantRoleRow
from tollhouse_server.api.call import Call
from tollhouse_server.api.masks import changed_fields
from tollhouse_server.api.mutation import Change, Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.permissions import LIST_ROLES
from tollhouse_server.api.role_messages import (
    built_in_roles,
    grant_message,
    grant_row,
    permissions_of,
    role_message,
    role_of,
)
from tollhouse_server.api.values import version_of
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import Topic
from tollhouse_server.database.rows import change, check_version
from tollhouse_server.names import (
    PLATFORM,
    GroupName,
    PrincipalName,
    RoleGrantName,
    TenantName,
    TenantRoleName,
    invalid,
    parse_scope,
)
from tollhouse_server.tenancy import store as tenancy


class RoleService:
    """Lists roles and makes a tenant's own; makes, reads and takes away grants."""

    def __init__(self, database: Database, mutations: Mutations, pages: PageTokens, authorizer: Authorizer) -> None:
        self._database = database
        self._mutations = mutations
        self._pages = pages
        self._authorizer = authorizer
        self._granting = Granting(authorizer)

    # --- roles --------------------------------------------------------------------------------------------------------

    async def list_roles(self, request: pb.ListRolesRequest, call: Call) -> pb.ListRolesResponse:
        tenant = TenantName(call.principal.tenant_id)
        if request.parent and request.parent != str(tenant):
            tenant = TenantName.parse(request.parent, "parent")
            await self._authorizer.authorize(call.principal, LIST_ROLES, str(tenant))
        after, size = self._pages.after(request), self._pages.size(request) + 1
        # Names sort as they are listed: `roles/...` before `tenants/...`.
        roles = [role for role in built_in_roles() if role.name > after][:size]
        if len(roles) < size:
            last = after.rpartition("/")[2] if after.startswith("tenants/") else ""
            async with self._database.within(tenant.tenant) as session:
                rows = await role_store.list_roles(session, tenant.tenant, after=last, size=size - len(roles))
            roles += map(role_message, rows)
        page, ended = self._pages.split(request, roles)
        token = self._pages.next(request, ended.name) if ended else ""
        return pb.ListRolesResponse(roles=page, next_page_token=token)

    async def create_role(self, request: pb.CreateRoleRequest, call: Call) -> pb.Role:
        tenant = TenantName.parse(request.parent, "parent")
        permissions = permissions_of(request.role)
        if request.role_id in ROLES:
            raise invalid("role_id", "is that of a role which every tenant has; choose another")

        async def act(session: AsyncSession) -> Change[pb.Role]:
            await tenancy.active_tenant(session, tenant)
            row = TenantRoleRow(
                tenant_id=tenant.tenant,
                role_id=request.role_id,
                description=request.role.description,
                permissions=permissions,
                creator=call.principal.name,
            )
            await self._granting.check_role(
                session, call.principal, role_of(row, permissions), tenant, added=permissions
            )
            after = role_message(await role_store.create_role(session, row))
            return Change(resource=after.name, before=None, after=after, answer=after)

        return await self._mutations.run(call, request, pb.Role, act, Topic.ACCESS)

    async def get_role(self, request: pb.GetRoleRequest, call: Call) -> pb.Role:
        async with self._database.within(call.domain) as session:
            return role_message(await role_store.get_role(session, TenantRoleName.parse(request.name)))

    async def update_role(self, request: pb.UpdateRoleRequest, call: Call) -> pb.Role:
        name = TenantRoleName.parse(request.role.name, "role.name")
        fields = changed_fields(request.role, request.update_mask, ("description", "permissions"))
        values: dict[str, object] = {"description": request.role.description} if "description" in fields else {}
        permissions = permissions_of(request.role) if "permissions" in fields else None
        if permissions is not None:
            values["permissions"] = permissions

        async def act(session: AsyncSession) -> Change[pb.Role]:
            row = await role_store.get_role(session, name, lock=True)
            check_version(row, version_of(request.role.etag, str(name)), str(name))
            before = role_message(row)
            if permissions is not None:
                added = set(permissions) - set(row.permissions)
                role, tenant = role_of(row, permissions), TenantName(name.tenant)
                await self._granting.check_role(session, call.principal, role, tenant, added=added)
            after = role_message(await change(session, row, **values))
            return Change(resource=str(name), before=before, after=after, answer=after)

        return await self._mutations.run(call, request, pb.Role, act, Topic.ACCESS)

    async def delete_role(self, request: pb.DeleteRoleRequest, call: Call) -> Empty:
        name = TenantRoleName.parse(request.name)

        async def act(session: AsyncSession) -> Change[Empty]:
            row = await role_store.get_role(session, name, lock=True)
            check_version(row, version_of(request.etag, str(name)), str(name))
            before = role_message(row)
            await lock_rights(session, name.tenant)
            await role_store.delete_role(session, row)
            return Change(resource=str(name), before=before, after=None, answer=Empty())

        return await self._mutations.run(call, request, Empty, act, Topic.ACCESS)

    # --- grants -------------------------------------------------------------------------------------------------------

    async def create_role_grant(self, request: pb.CreateRoleGrantRequest, call: Call) -> pb.RoleGrant:
        row = grant_row(_grant_name(request), request.role_grant, creator=call.principal.name)

        async def act(session: AsyncSession) -> Change[pb.RoleGrant]:
            await _lock_holder(session, row)
            if row.scope != PLATFORM:
                await tenancy.require_active(session, parse_scope(row.scope, "role_grant.scope"))
            await self._granting.check_grant(session, call.principal, row)
            after = grant_message(await store.create_grant(session, row))
            return Change(resource=after.name, before=None, after=after, answer=after)

        return await self._mutations.run(call, request, pb.RoleGrant, act, Topic.ACCESS)

    async def get_role_grant(self, request: pb.GetRoleGrantRequest, call: Call) -> pb.RoleGrant:
        async with self._database.within(call.domain) as session:
            return grant_message(await store.get_grant(session, RoleGrantName.parse(request.name)))

    async def list_role_grants(self, request: pb.ListRoleGrantsRequest, call: Call) -> pb.ListRoleGrantsResponse:
        tenant = TenantName.parse(request.parent, "parent").tenant
        principal = PrincipalName.parse(request.principal, "principal") if request.principal else None
        group = GroupName.parse(request.group, "group") if request.group else None
        for field, one in (("principal", principal), ("group", group)):
            if one is not None and one.tenant != tenant:
                raise invalid(field, "must be of the tenant that is listed")
        async with self._database.within(call.domain) as session:
            rows = await store.list_grants(
                session,
                tenant,
                principal=principal.principal if principal else None,
                group=group.group if group else None,
                scope=request.scope or None,
                after=self._pages.after(request),
                size=self._pages.size(request) + 1,
            )
        page, last = self._pages.split(request, rows)
        token = self._pages.next(request, last.grant_id) if last else ""
        return pb.ListRoleGrantsResponse(role_grants=map(grant_message, page), next_page_token=token)

    async def delete_role_grant(self, request: pb.DeleteRoleGrantRequest, call: Call) -> Empty:
        name = RoleGrantName.parse(request.name)

        async def act(session: AsyncSession) -> Change[Empty]:
            await lock_rights(session, name.tenant)
            row = await store.get_grant(session, name)
            before = grant_message(row)
            await store.delete_grant(session, row)
            return Change(resource=request.name, before=before, after=None, answer=Empty())

        return await self._mutations.run(call, request, Empty, act, Topic.ACCESS)


def _grant_name(request: pb.CreateRoleGrantRequest) -> RoleGrantName:
    chosen = request.role_grant_id or f"g-{secrets.token_hex(8)}"
    return RoleGrantName.parse(f"{request.parent}/roleGrants/{chosen}", "role_grant_id")


async def _lock_holder(session: AsyncSession, row: RoleGrantRow) -> None:
    """Lock who gets a grant.

    Raises:
        ResourceNotFound: there is no such principal or group.
    """
    if row.group_id is not None:
        await group_store.get_group(session, GroupName(row.tenant_id, row.group_id), lock=True)
    else:
        await tenancy.active_principal(session, PrincipalName(row.tenant_id, row.principal_id or ""))
