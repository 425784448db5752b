"""What a limit, a wallet or a charge rule may be on."""

from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.identity import store as identity
from tollhouse_server.names import ProjectKeyName, ProjectName, invalid, parse_api_key, parse_scope
from tollhouse_server.routing.tables import ModelRow, TierRow
from tollhouse_server.tenancy import store as tenancy


async def require_selected(session: AsyncSession, selector: str, field: str) -> None:
    """Return if a selector, empty for all calls, is of a tier or model of the catalogue: no other would ever match.

    Raises:
        InvalidRequest: it is not; also for another name of a model, since calls are booked under its own.
    """
    kind, _, name = selector.partition("/")
    known = TierRow.tier if kind == "tiers" else ModelRow.model
    if selector and (await session.exec(select(known).where(known == name))).first() is None:
        listing = "models tiers" if kind == "tiers" else "models list"
        raise invalid(field, f"{name} is none of the catalogue's {kind}: see 'tollhouse {listing}'")


async def require_limit_scope(session: AsyncSession, text: str, field: str) -> None:
    """Return if there is such a tenant, department, project or key, and it is alive.

    Raises:
        InvalidRequest: it is no name of one.
        ResourceNotFound: it is missing or deleted.
    """
    if "/apiKeys/" in text:
        name = parse_api_key(text, field)
        if isinstance(name, ProjectKeyName):
            await tenancy.active_project(session, ProjectName(name.tenant, name.department, name.project))
        await identity.get_key(session, name)
        return
    await tenancy.require_active(session, parse_scope(text, field))
