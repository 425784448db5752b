"""SQL of identity providers and client identities."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Row, delete, text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.integrity import constraints
from tollhouse_server.database.rows import find, insert, run_sql
from tollhouse_server.errors import ResourceExists
from tollhouse_server.identity.principal import Principal
from tollhouse_server.identity.tables import ClientIdentityRow, IdentityProviderAudienceRow, IdentityProviderRow
from tollhouse_server.names import ClientIdentityName, IdentityProviderName

# A person is found by issuer and subject; one who was deleted stays refused until he is registered anew.
_SUBJECT = text("""
SELECT t.state AS tenant_state, w.principal_id, w.state AS principal_state,
    p.project_id, p.department_id, d.path::text AS path
FROM tenant t
LEFT JOIN principal w ON w.tenant_id = t.tenant_id AND w.issuer = :issuer AND w.subject = :subject
LEFT JOIN project p ON p.tenant_id = t.tenant_id AND p.project_id = :project AND p.state = 'ACTIVE'
LEFT JOIN department d ON d.tenant_id = p.tenant_id AND d.department_id = p.department_id AND d.state = 'ACTIVE'
WHERE t.tenant_id = :tenant
ORDER BY w.state = 'ACTIVE' DESC NULLS LAST
LIMIT 1
""")

# As with API keys: it counts only while everything above it is alive.
_CLIENT = text("""
SELECT c.tenant_id, c.client_identity_id, c.principal_id, c.environment, c.project_id, d.path::text AS path
FROM client_identity c
JOIN tenant t USING (tenant_id)
JOIN principal w USING (tenant_id, principal_id)
LEFT JOIN project p ON p.tenant_id = c.tenant_id AND p.project_id = c.project_id
LEFT JOIN department d ON d.tenant_id = p.tenant_id AND d.department_id = p.department_id
WHERE c.identity = :identity AND t.state = 'ACTIVE' AND w.state = 'ACTIVE'
    AND (c.project_id IS NULL OR p.state = 'ACTIVE' AND d.state = 'ACTIVE')
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """An identity provider as tokens are judged by it."""

    tenant_id: str
    provider_id: str
    issuer: str
    audiences: tuple[str, ...]
    subject_claim: str
    groups_claim: str
    groups: dict[str, str]
    project_claim: str
    admits_groups: bool
    clock_skew_seconds: int
    environment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What is known of a subject; `principal_id` is None for one that was never registered."""

    is_tenant_active: bool
    principal_id: str | None
    is_principal_active: bool
    project_id: str | None
    path: tuple[str, ...]


async def active_providers(session: AsyncSession) -> list[Provider]:
    """Return every provider of every tenant that is not disabled."""
    query = select(IdentityProviderRow).where(IdentityProviderRow.state == "ACTIVE")
    return [_provider(row) for row in (await session.exec(query)).all()]


def _provider(row: IdentityProviderRow) -> Provider:
    return Provider(
        tenant_id=row.tenant_id,
        provider_id=row.provider_id,
        issuer=row.issuer,
        audiences=tuple(row.audiences),
        subject_claim=row.subject_claim,
        groups_claim=row.groups_claim,
        groups=row.groups,
        project_claim=row.project_claim,
        admits_groups=row.admits_groups,
        clock_skew_seconds=row.clock_skew_seconds,
        environment=row.environment.lower(),
    )


async def find_subject(session: AsyncSession, provider: Provider, subject: str, project: str) -> Found:
    """Return what is known of a subject and of the project that its token names."""
    parameters = {
        "tenant": provider.tenant_id,
        "issuer": provider.issuer,
        "subject": subject,
        "project": project or None,
    }
    row = (await run_sql(session, _SUBJECT, parameters)).one()
    return Found(
        is_tenant_active=row.tenant_state == "ACTIVE",
        principal_id=row.principal_id,
        is_principal_active=row.principal_state == "ACTIVE",
        project_id=row.project_id if row.path else None,
        path=_path(row),
    )


async def find_client_principal(session: AsyncSession, identity: str) -> Principal | None:
    """Return who the holder of a certificate is, if he, his project and his tenant are alive."""
    row = (await run_sql(session, _CLIENT, {"identity": identity})).one_or_none()
    if row is None:
        return None
    return Principal(
        tenant_id=row.tenant_id,
        principal_id=row.principal_id,
        credential_id=f"mtls:{row.client_identity_id}",
        credential_name=str(ClientIdentityName(row.tenant_id, row.client_identity_id)),
        project_id=row.project_id,
        department_ids=_path(row),
        environment=row.environment.lower(),
    )


def _path(row: "Row[tuple[object, ...]]") -> tuple[str, ...]:
    return tuple(row.path.split(".")) if row.path else ()


# --- the rows themselves ----------------------------------------------------------------------------------------------


async def create_provider(session: AsyncSession, row: IdentityProviderRow) -> IdentityProviderRow:
    """Insert a provider and bind its audiences.

    Raises:
        ResourceExists: the id is taken, or an audience of the issuer belongs to a provider already.
    """
    exists = ResourceExists(name=str(IdentityProviderName(row.tenant_id, row.provider_id)))
    bound = ResourceExists(name=f"A provider of issuer {row.issuer} with one of these audiences")
    with constraints({"identity_provider_pkey": exists, "identity_provider_audience_once": bound}):
        made = await insert(session, row)
        session.add_all(
            IdentityProviderAudienceRow(
                tenant_id=row.tenant_id, provider_id=row.provider_id, audience=audience, issuer=row.issuer
            )
            for audience in row.audiences
        )
        await session.flush()
        return made


async def get_provider(session: AsyncSession, name: IdentityProviderName, *, lock: bool = False) -> IdentityProviderRow:
    """Return a provider.

    Raises:
        ResourceNotFound: there is none of this name.
    """
    query = select(IdentityProviderRow).where(
        IdentityProviderRow.tenant_id == name.tenant, IdentityProviderRow.provider_id == name.identity_provider
    )
    return await find(session, query, name, lock=lock)


async def list_providers(session: AsyncSession, tenant: str, *, after: str, size: int) -> Sequence[IdentityProviderRow]:
    """Return up to `size` providers of a tenant in the order of their ids."""
    query = select(IdentityProviderRow).where(
        IdentityProviderRow.tenant_id == tenant, col(IdentityProviderRow.provider_id) > after
    )
    return (await session.exec(query.order_by(col(IdentityProviderRow.provider_id)).limit(size))).all()


async def delete_provider(session: AsyncSession, row: IdentityProviderRow) -> None:
    """Forget a provider and free its audiences."""
    of_provider = (
        col(IdentityProviderAudienceRow.tenant_id) == row.tenant_id,
        col(IdentityProviderAudienceRow.provider_id) == row.provider_id,
    )
    await session.exec(delete(IdentityProviderAudienceRow).where(*of_provider))
    await session.delete(row)
    await session.flush()


async def create_client(session: AsyncSession, row: ClientIdentityRow) -> ClientIdentityRow:
    """Bind what a certificate says to a principal.

    Raises:
        ResourceExists: the id is taken, or it is bound already.
    """
    exists = ResourceExists(name=str(ClientIdentityName(row.tenant_id, row.client_identity_id)))
    bound = ResourceExists(name=f"A client identity for {row.identity}")
    with constraints({"client_identity_pkey": exists, "client_identity_once": bound}):
        return await insert(session, row)


async def get_client(session: AsyncSession, name: ClientIdentityName, *, lock: bool = False) -> ClientIdentityRow:
    """Return a client identity.

    Raises:
        ResourceNotFound: there is none of this name.
    """
    query = select(ClientIdentityRow).where(
        ClientIdentityRow.tenant_id == name.tenant, ClientIdentityRow.client_identity_id == name.client_identity
    )
    return await find(session, query, name, lock=lock)


async def list_clients(session: AsyncSession, tenant: str, *, after: str, size: int) -> Sequence[ClientIdentityRow]:
    """Return up to `size` client identities of a tenant in the order of their ids."""
    query = select(ClientIdentityRow).where(
        ClientIdentityRow.tenant_id == tenant, col(ClientIdentityRow.client_identity_id) > after
    )
    return (await session.exec(query.order_by(col(ClientIdentityRow.client_identity_id)).limit(size))).all()


async def delete_client(session: AsyncSession, row: ClientIdentityRow) -> None:
    """Forget a client identity."""
    await session.delete(row)
    await session.flush()
