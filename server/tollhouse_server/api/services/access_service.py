"""AccessService: who may do what, and why."""

from collections.abc import Iterable

from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import access_pb2 as pb

from tollhouse_server.access import role_store, store
from tollhouse_server.access.authorizer import Authorizer
from tollhouse_server.access.explanation import Finding, Kind, Question, explain, finding_of
from tollhouse_server.access.granting import role_name
from tollhouse_server.access.roles import ALL_PERMISSIONS
from tollhouse_server.access.tables import RoleGrantRow
from tollhouse_server.api.call import Call
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.permissions import EXPLAIN_ACCESS
from tollhouse_server.database.engine import Database
from tollhouse_server.errors import ResourceNotFound
from tollhouse_server.names import PLATFORM, GroupName, PrincipalName, RoleGrantName, TenantName, domain_of
from tollhouse_server.tenancy import store as tenancy


class AccessService:
    """Explains decisions; what it says is read from the database, not from what this server remembers."""

    def __init__(self, database: Database, pages: PageTokens, authorizer: Authorizer) -> None:
        self._database = database
        self._pages = pages
        self._authorizer = authorizer

    async def explain_access(self, request: pb.ExplainAccessRequest, call: Call) -> pb.ExplainAccessResponse:
        name = await self._may_ask(request.principal, call)
        is_own = call.principal.name == str(name)
        narrowed = call.principal.permissions if is_own else None
        scopes = await self._scopes(request.scope, name.tenant)
        async with self._database.within(name.tenant) as session:
            question = Question(
                principal=str(name),
                permission=request.permission,
                scopes=scopes,
                state=await _state(session, name),
                is_narrowed_away=narrowed is not None and request.permission not in narrowed,
                known=ALL_PERMISSIONS,
            )
            grants = await store.grants_reaching(session, name, claimed=call.principal.groups if is_own else ())
            roles = await _permissions(session, grants)
        allowed, findings = explain(question, grants, roles)
        return pb.ExplainAccessResponse(allowed=allowed, findings=map(_message, findings), scopes=scopes)

    async def list_access(self, request: pb.ListAccessRequest, call: Call) -> pb.ListAccessResponse:
        name = await self._may_ask(request.principal, call)
        claimed = call.principal.groups if call.principal.name == str(name) else ()
        async with self._database.within(name.tenant) as session:
            counts = await _state(session, name) in ("ACTIVE", None)
            grants = await store.grants_reaching(session, name, claimed=claimed) if counts else []
            roles = await _permissions(session, grants)
        after = self._pages.after(request)
        scopes = sorted({grant.scope for grant in grants if grant.scope > after})
        page, last = self._pages.split(request, scopes)
        access = [_access(scope, [grant for grant in grants if grant.scope == scope], roles) for scope in page]
        return pb.ListAccessResponse(access=access, next_page_token=self._pages.next(request, last) if last else "")

    async def _may_ask(self, text: str, call: Call) -> PrincipalName:
        """Return who is asked about: whoever asks himself, or someone of a tenant where he may.

        Raises:
            PermissionDenied: neither.
        """
        name = PrincipalName.parse(text, "principal")
        if call.principal.name != str(name):
            await self._authorizer.authorize(call.principal, EXPLAIN_ACCESS, str(TenantName(name.tenant)))
        return name

    async def _scopes(self, scope: str, tenant: str) -> tuple[str, ...]:
        """Return a scope and everything above it on which someone of `tenant` may hold grants, the nearest first.

        The tree is as this server's policy has it after a look at the database; another tenant's is not told.
        """
        if scope == PLATFORM:
            return (PLATFORM,)
        if domain_of(scope) != tenant:
            return scope, PLATFORM
        await self._authorizer.catch_up()
        return *self._authorizer.chain(scope), PLATFORM


async def _state(session: AsyncSession, name: PrincipalName) -> str | None:
    try:
        return (await tenancy.get_principal(session, name)).state
    except ResourceNotFound:
        return None


async def _permissions(session: AsyncSession, grants: Iterable[RoleGrantRow]) -> dict[str, frozenset[str]]:
    roles = {grant.role for grant in grants}
    return {role: (await role_store.role_called(session, role)).permissions for role in sorted(roles)}


def _access(scope: str, grants: list[RoleGrantRow], roles: dict[str, frozenset[str]]) -> pb.ScopeAccess:
    permissions = frozenset().union(*(roles[grant.role] for grant in grants))
    findings = [_message(finding_of(grant, Kind.GRANTED)) for grant in grants]
    return pb.ScopeAccess(scope=scope, permissions=sorted(permissions), grants=findings)


def _message(finding: Finding) -> pb.AccessFinding:
    message = pb.AccessFinding(
        kind=pb.AccessFinding.Kind.Value(f"KIND_{finding.kind.value}"), sentence=finding.sentence
    )
    if (grant := finding.grant) is not None:
        message.role_grant = str(RoleGrantName(grant.tenant_id, grant.grant_id))
        message.role = role_name(grant.role)
        message.scope = grant.scope
        message.group = str(GroupName(grant.tenant_id, grant.group_id)) if grant.group_id else ""
    return message
