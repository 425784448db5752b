"""The only SQL of identity."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.rows import find, insert, run_sql
from tollhouse_server.identity.networks import Network, parse_network
from tollhouse_server.identity.principal import Principal
from tollhouse_server.identity.scopes import permissions_in
from tollhouse_server.identity.tables import ApiKeyRow
from tollhouse_server.names import ApiKeyName, ProjectKeyName, TenantKeyName

# A credential counts only while everything above it is alive; the one look-up that does not start from a tenant.
_CREDENTIAL = text("""
SELECT k.digest, k.expires_at, k.tenant_id, k.principal_id, k.key_id, k.project_id, p.department_id,
    d.path::text AS path, k.environment, k.scopes, k.allowed_networks
FROM api_key k
JOIN tenant t USING (tenant_id)
JOIN principal w USING (tenant_id, principal_id)
LEFT JOIN project p ON p.tenant_id = k.tenant_id AND p.project_id = k.project_id
LEFT JOIN department d ON d.tenant_id = p.tenant_id AND d.department_id = p.department_id
WHERE k.key_id = :key_id AND k.revoked_at IS NULL AND t.state = 'ACTIVE' AND w.state = 'ACTIVE'
    AND (k.project_id IS NULL OR p.state = 'ACTIVE' AND d.state = 'ACTIVE')
""")

# In one order, and past what another worker is writing: two workers that write of the same keys must not wait for each
# other. What was written a moment ago, by whichever worker, is near enough.
_NOTE_USE = text("""
WITH used AS (SELECT * FROM unnest(CAST(:tenants AS text[]), CAST(:keys AS text[]), CAST(:moments AS timestamptz[]))
        AS u (tenant_id, key_id, moment)),
    found AS (SELECT k.tenant_id, k.key_id, u.moment FROM api_key k JOIN used u USING (tenant_id, key_id)
        WHERE k.last_used_at IS NULL OR k.last_used_at < u.moment - interval '30 seconds'
        ORDER BY k.tenant_id, k.key_id FOR NO KEY UPDATE OF k SKIP LOCKED)
UPDATE api_key k SET last_used_at = f.moment FROM found f WHERE k.tenant_id = f.tenant_id AND k.key_id = f.key_id
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A usable credential: what proves it, until when and from where, and who it stands for."""

    digest: bytes
    expires_at: datetime | None
    networks: tuple[Network, ...]
    principal: Principal


async def find_credential(session: AsyncSession, key_id: str) -> Credential | None:
    """Return the credential of `key_id` if it, its principal, project and tenant are alive."""
    row = (await run_sql(session, _CREDENTIAL, {"key_id": key_id})).one_or_none()
    if row is None:
        return None
    department = row.department_id or ""
    principal = Principal(
        tenant_id=row.tenant_id,
        principal_id=row.principal_id,
        credential_id=row.key_id,
        credential_name=str(key_name(row.tenant_id, row.key_id, row.project_id, department)),
        project_id=row.project_id,
        department_ids=tuple(row.path.split(".")) if row.path else (),
        environment=row.environment.lower(),
        permissions=permissions_in(row.scopes),
    )
    return Credential(
        digest=bytes(row.digest),
        expires_at=row.expires_at,
        networks=tuple(parse_network(network) for network in row.allowed_networks),
        principal=principal,
    )


async def note_use(session: AsyncSession, moments: Mapping[tuple[str, str], datetime]) -> None:
    """Write when keys, given by tenant and id, were last used. It is no change of theirs: their versions stay."""
    columns = {
        "tenants": [tenant for tenant, _ in moments],
        "keys": [key for _, key in moments],
        "moments": list(moments.values()),
    }
    await run_sql(session, _NOTE_USE, columns)


def key_name(tenant: str, key_id: str, project: str | None, department: str) -> ApiKeyName:
    """Return the resource name of a key; `department` is that of the project."""
    if project is None:
        return TenantKeyName(tenant, key_id)
    return ProjectKeyName(tenant, department, project, key_id)


async def create_key(session: AsyncSession, row: ApiKeyRow) -> ApiKeyRow:
    """Insert a key's record."""
    return await insert(session, row)


async def get_key(session: AsyncSession, name: ApiKeyName, *, lock: bool = False) -> ApiKeyRow:
    """Return a key's record. The caller has checked that the project in the name exists where the name says.

    Raises:
        ResourceNotFound: there is none of this name.
    """
    query = select(ApiKeyRow).where(ApiKeyRow.tenant_id == name.tenant, ApiKeyRow.key_id == name.api_key)
    if isinstance(name, ProjectKeyName):
        query = query.where(ApiKeyRow.project_id == name.project)
    else:
        query = query.where(col(ApiKeyRow.project_id).is_(None))
    return await find(session, query, name, lock=lock)


async def key_of_id(session: AsyncSession, tenant: str, key_id: str) -> ApiKeyRow:
    """Return the record of a tenant's key.

    Raises:
        ResourceNotFound: there is none of this id.
    """
    query = select(ApiKeyRow).where(ApiKeyRow.tenant_id == tenant, ApiKeyRow.key_id == key_id)
    return await find(session, query, TenantKeyName(tenant, key_id))


async def list_keys(
    session: AsyncSession, tenant: str, *, project: str | None, after: str, size: int, show_revoked: bool
) -> list[ApiKeyRow]:
    """Return up to `size` keys of one project, or of the whole tenant, in the order of their ids."""
    query = select(ApiKeyRow).where(ApiKeyRow.tenant_id == tenant)
    if project is not None:
        query = query.where(ApiKeyRow.project_id == project)
    if not show_revoked:
        query = query.where(col(ApiKeyRow.revoked_at).is_(None))
    if after:
        query = query.where(col(ApiKeyRow.key_id) > after)
    return list((await session.exec(query.order_by(col(ApiKeyRow.key_id)).limit(size))).all())
