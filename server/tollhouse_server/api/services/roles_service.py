"""RoleService: what can be granted, and to whom it is."""

import secrets

from google.protobuf.empty_pb2 import Empty
from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import roles_pb2 as pb

from tollhouse_server.access import store
from tollhouse_server.access.authorizer import Authorizer
from tollhouse_server.access.roles import ROLES, Role
from tollhouse_server.access.tables import RoleGrantRow
from tollhouse_server.api.call import Call
from tollhouse_server.api.mutation import Change, Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.values import timestamp
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import Topic
from tollhouse_server.names import (
    PLATFORM,
    PrincipalName,
    RoleGrantName,
    RoleName,
    TenantName,
    domain_of,
    invalid,
    parse_scope,
)
from tollhouse_server.tenancy import store as tenancy


class RoleService:
    """Lists roles; makes, reads and takes away grants."""

    def __init__(self, database: Database, mutations: Mutations, pages: PageTokens, authorizer: Authorizer) -> None:
        self._database = database
        self._mutations = mutations
        self._pages = pages
        self._authorizer = authorizer

    async def list_roles(self, request: pb.ListRolesRequest, call: Call) -> pb.ListRolesResponse:
        after = self._pages.after(request)
        roles = [ROLES[name] for name in sorted(ROLES) if name > after]
        page, last = self._pages.split(request, roles)
        token = self._pages.next(request, last.name) if last else ""
        return pb.ListRolesResponse(roles=map(_role, page), next_page_token=token)

    async def create_role_grant(self, request: pb.CreateRoleGrantRequest, call: Call) -> pb.RoleGrant:
        grant = request.role_grant
        name = _grant_name(request)
        principal = _principal(grant.principal, name.tenant)
        role = _known_role(grant.role)
        _check_scope(grant.scope, name.tenant)
        await self._authorizer.require_all(call.principal, role.permissions, grant.scope)

        async def act(session: AsyncSession) -> Change[pb.RoleGrant]:
            await tenancy.active_principal(session, principal)
            if grant.scope != PLATFORM:
                await tenancy.require_active(session, parse_scope(grant.scope, "role_grant.scope"))
            row = RoleGrantRow(
                tenant_id=name.tenant,
                grant_id=name.role_grant,
                principal_id=principal.principal,
                role=role.name,
                scope=grant.scope,
                creator=call.principal.name,
            )
            after = _message(await store.create_grant(session, row))
            return Change(resource=after.name, before=None, after=after, answer=after)

        return await self._mutations.run(call, request, pb.RoleGrant, act, Topic.ACCESS)

    async def get_role_grant(self, request: pb.GetRoleGrantRequest, call: Call) -> pb.RoleGrant:
        async with self._database.within(call.domain) as session:
            return _message(await store.get_grant(session, RoleGrantName.parse(request.name)))

    async def list_role_grants(self, request: pb.ListRoleGrantsRequest, call: Call) -> pb.ListRoleGrantsResponse:
        tenant = TenantName.parse(request.parent, "parent").tenant
        async with self._database.within(call.domain) as session:
            rows = await store.list_grants(
                session,
                tenant,
                principal=_principal(request.principal, tenant).principal if request.principal else None,
                scope=request.scope or None,
                after=self._pages.after(request),
                size=self._pages.size(request) + 1,
            )
        page, last = self._pages.split(request, rows)
        token = self._pages.next(request, last.grant_id) if last else ""
        return pb.ListRoleGrantsResponse(role_grants=map(_message, page), next_page_token=token)

    async def delete_role_grant(self, request: pb.DeleteRoleGrantRequest, call: Call) -> Empty:
        name = RoleGrantName.parse(request.name)

        async def act(session: AsyncSession) -> Change[Empty]:
            row = await store.get_grant(session, name)
            before = _message(row)
            await store.delete_grant(session, row)
            return Change(resource=request.name, before=before, after=None, answer=Empty())

        return await self._mutations.run(call, request, Empty, act, Topic.ACCESS)


def _grant_name(request: pb.CreateRoleGrantRequest) -> RoleGrantName:
    chosen = request.role_grant_id or f"g-{secrets.token_hex(8)}"
    return RoleGrantName.parse(f"{request.parent}/roleGrants/{chosen}", "role_grant_id")


def _principal(text: str, tenant: str) -> PrincipalName:
    principal = PrincipalName.parse(text, "role_grant.principal")
    if principal.tenant != tenant:
        raise invalid("role_grant.principal", "must be of the grant's own tenant")
    return principal


def _known_role(text: str) -> Role:
    role = ROLES.get(RoleName.parse(text, "role_grant.role").role)
    if role is None:
        raise invalid("role_grant.role", f"must be one of {', '.join(sorted(ROLES))}")
    return role


def _check_scope(scope: str, tenant: str) -> None:
    """Refuse a grant that reaches out of the principal's own tenant; the platform is for its own people."""
    if domain_of(scope) != tenant:
        raise invalid("role_grant.scope", "must be inside the grant's own tenant")


def _role(role: Role) -> pb.Role:
    return pb.Role(name=str(RoleName(role.name)), description=role.description, permissions=sorted(role.permissions))


def _message(row: RoleGrantRow) -> pb.RoleGrant:
    return pb.RoleGrant(
        name=str(RoleGrantName(row.tenant_id, row.grant_id)),
        principal=str(PrincipalName(row.tenant_id, row.principal_id)),
        role=str(RoleName(row.role)),
        scope=row.scope,
        create_time=timestamp(row.created_at),
        creator=row.creator,
    )
