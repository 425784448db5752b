"""The first administrator: made by whoever holds the database and the pepper, since nobody can grant it to him."""

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.access.store import create_grant, grants_of
from tollhouse_server.access.tables import RoleGrantRow
from tollhouse_server.audit.store import record
from tollhouse_server.audit.tables import AuditEventRow
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import Topic, bump
from tollhouse_server.errors import ResourceNotFound
from tollhouse_server.identity.keys import digest, make_key
from tollhouse_server.identity.store import create_key
from tollhouse_server.identity.tables import ApiKeyRow
from tollhouse_server.names import PLATFORM, PrincipalName, TenantKeyName
from tollhouse_server.tenancy.store import create_principal, get_principal
from tollhouse_server.tenancy.tables import PrincipalRow

_ROLE = "platform-admin"


async def issue_platform_admin_key(database: Database, pepper: bytes, *, principal_id: str = "admin") -> str:
    """Return a new API key of a platform administrator, who is made first if there is none of this id.

    He lives in the tenant `platform`, holds `platform-admin` on the platform, and his key has no project.
    """
    key = make_key("live")
    async with database.transaction() as session:
        await _ensure_administrator(session, PrincipalName(PLATFORM, principal_id))
        row = ApiKeyRow(
            tenant_id=PLATFORM,
            key_id=key.key_id,
            principal_id=principal_id,
            environment="LIVE",
            digest=digest(pepper, key.text),
            display_name="Issued at set-up",
        )
        await create_key(session, row)
        await record(session, _event(key.key_id))
        for topic in (Topic.ACCESS, Topic.IDENTITY):
            await bump(session, topic)
    return key.text


async def _ensure_administrator(session: AsyncSession, name: PrincipalName) -> None:
    try:
        await get_principal(session, name, lock=True)
    except ResourceNotFound:
        row = PrincipalRow(tenant_id=name.tenant, principal_id=name.principal, kind="USER")
        await create_principal(session, row)
    if any(grant.role == _ROLE for grant in await grants_of(session, name.tenant, name.principal)):
        return
    grant = RoleGrantRow(
        tenant_id=name.tenant,
        grant_id=f"{_ROLE}-{name.principal}"[:63],
        principal_id=name.principal,
        role=_ROLE,
        scope=PLATFORM,
    )
    await create_grant(session, grant)


def _event(key_id: str) -> AuditEventRow:
    return AuditEventRow(
        tenant_id=PLATFORM,
        actor="set-up",
        credential_id="",
        method="set-up",
        permission="",
        resource=str(TenantKeyName(PLATFORM, key_id)),
        request_id="",
        correlation_id="",
    )
