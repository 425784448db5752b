"""What a limit, or a wallet, may be on."""

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.identity import store as identity
from tollhouse_server.names import ProjectKeyName, ProjectName, parse_api_key, parse_scope
from tollhouse_server.tenancy import store as tenancy


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
