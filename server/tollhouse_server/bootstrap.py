"""A new database made ready: migrated, with catalogue, prices, and whoever may administer it."""

import asyncio
from collections.abc import Iterable
from uuid import uuid4

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.access import store as access
from tollhouse_server.access.tables import RoleGrantRow
from tollhouse_server.database.engine import Database, store_errors
from tollhouse_server.database.epochs import Topic, bump
from tollhouse_server.database.migrate import upgrade
from tollhouse_server.database.rows import change
from tollhouse_server.errors import ResourceNotFound
from tollhouse_server.identity import store as identity
from tollhouse_server.identity.keys import digest, make_key
from tollhouse_server.identity.tables import ApiKeyRow
from tollhouse_server.names import PLATFORM, PrincipalName
from tollhouse_server.routing.addresses import Addresses
from tollhouse_server.routing.live import seed
from tollhouse_server.routing.tables import AccountRow
from tollhouse_server.tenancy import store as tenancy
from tollhouse_server.tenancy.tables import PrincipalRow

_ADMINISTRATOR = PrincipalName(PLATFORM, "administrator")
_ADMINISTRATORS_ROLE = "platform-admin"


async def migrate(owner_dsn: str) -> None:
    """Bring the schema up to date.

    Raises:
        StoreUnavailable: PostgreSQL cannot be reached, or others use a table all the time.
    """
    with store_errors():
        # In a thread: alembic runs an event loop of its own.
        await asyncio.to_thread(upgrade, owner_dsn)


async def seed_catalogue(database: Database, accounts: Iterable[AccountRow], addresses: Addresses) -> None:
    """Bring catalogue and prices to the packaged revision, and add accounts that are not there."""
    async with database.transaction() as session:
        await seed(session, accounts=accounts, addresses=addresses)


async def create_administrator_key(database: Database, pepper: bytes) -> str:
    """Create a key of the platform's administrator; return the key, shown only now.

    He is made if he is not there, and is again what he was if somebody has disabled or deleted him, or taken his role.
    """
    async with database.transaction() as session:
        await ensure_principal(session, _ADMINISTRATOR, role=_ADMINISTRATORS_ROLE, scope=PLATFORM)
        await _restore_administrator(session)
        return await create_key(session, pepper, _ADMINISTRATOR, environment="live")


async def ensure_principal(session: AsyncSession, name: PrincipalName, *, role: str, scope: str) -> None:
    """Make a service account with one role on one scope, unless it is there."""
    try:
        await tenancy.get_principal(session, name)
    except ResourceNotFound:
        row = PrincipalRow(
            tenant_id=name.tenant, principal_id=name.principal, kind="SERVICE_ACCOUNT", display_name=name.principal
        )
        await tenancy.create_principal(session, row)
        await _grant(session, name, role=role, scope=scope)


async def _grant(session: AsyncSession, name: PrincipalName, *, role: str, scope: str) -> None:
    grant = RoleGrantRow(
        tenant_id=name.tenant, grant_id=f"g-{uuid4().hex[:12]}", principal_id=name.principal, role=role, scope=scope
    )
    await access.create_grant(session, grant)
    await bump(session, Topic.ACCESS)


async def _restore_administrator(session: AsyncSession) -> None:
    row = await tenancy.get_principal(session, _ADMINISTRATOR, lock=True)
    await change(session, row, state="ACTIVE", deleted_at=None)
    grants = await access.grants_of(session, _ADMINISTRATOR.tenant, _ADMINISTRATOR.principal)
    if not any((one.role, one.scope) == (_ADMINISTRATORS_ROLE, PLATFORM) for one in grants):
        await _grant(session, _ADMINISTRATOR, role=_ADMINISTRATORS_ROLE, scope=PLATFORM)


async def create_key(
    session: AsyncSession, pepper: bytes, owner: PrincipalName, *, environment: str, project: str | None = None
) -> str:
    """Create an API key, `live` or `test`, that pays from a project of the owner's tenant; return its text."""
    key = make_key(environment)
    row = ApiKeyRow(
        tenant_id=owner.tenant,
        key_id=key.key_id,
        principal_id=owner.principal,
        project_id=project,
        environment=key.environment.upper(),
        digest=digest(pepper, key.text),
        display_name="made by tollhouse-server",
    )
    await identity.create_key(session, row)
    await bump(session, Topic.IDENTITY)
    return key.text
