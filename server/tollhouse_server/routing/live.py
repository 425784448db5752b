"""The catalogue that this process routes with, and the packaged one that a new database starts with."""

from collections.abc import Iterable

import structlog
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.engine import Database
from tollhouse_server.errors import ResourceNotFound
from tollhouse_server.pricing.book import seed_prices
from tollhouse_server.routing import account_store, store
from tollhouse_server.routing.addresses import Addresses
from tollhouse_server.routing.catalogue import Catalogue, CatalogueParts
from tollhouse_server.routing.catalogue_file import packaged_catalogue
from tollhouse_server.routing.tables import AccountRow

_log = structlog.get_logger(__name__)


class LiveCatalogue:
    """Holds the catalogue in force; watch Topic.CATALOGUE and Topic.ACCOUNTS with `reload` to keep it so.

    An account that names an address or a proxy which the settings do not have (any more) is left out and logged.
    """

    def __init__(self, database: Database, addresses: Addresses) -> None:
        self._database = database
        self._addresses = addresses
        self.current = Catalogue(CatalogueParts(api_versions={}))

    async def reload(self) -> None:
        """Load the catalogue and put it in the old one's place at once.

        Raises:
            StoreUnavailable: the database cannot be read; the old catalogue stays.
        """
        async with self._database.transaction() as session:
            parts, refused = await store.load_parts(session, self._addresses)
        if refused:
            _log.error(
                "account_addresses_not_allowed",
                accounts=refused,
                allowed=sorted(self._addresses.base_urls),
                allowed_egress=sorted(self._addresses.egress_urls),
            )
        self.current = Catalogue(parts)


async def seed(session: AsyncSession, *, accounts: Iterable[AccountRow], addresses: Addresses) -> None:
    """Bring a database to the packaged catalogue and prices, and add `accounts` that are not there; idempotent.

    A packaged file is stored once per revision, and never over what an administrator edited or imported.
    """
    await seed_prices(session)
    await _seed_catalogue(session)
    for account in accounts:
        try:
            await account_store.get_account(session, account.account_id)
        except ResourceNotFound:
            await account_store.create_account(session, account, addresses=addresses)


async def _seed_catalogue(session: AsyncSession) -> None:
    parsed = packaged_catalogue()
    if await store.seeded_revision(session) >= (parsed.revision or 0):
        return
    overruled = await store.store_catalogue(session, parsed)
    if overruled:
        _log.warning("aliases_gave_way_to_models", aliases=overruled, revision=parsed.revision)
