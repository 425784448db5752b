"""The price book that this process prices with, and the packaged one that a new database starts with."""

from importlib.resources import files

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.engine import Database
from tollhouse_server.pricing import store
from tollhouse_server.pricing.price_file import ParsedPriceFile, import_prices
from tollhouse_server.pricing.terms import PriceBook


class LivePriceBook:
    """Holds the book in force; `watch.on_change(Topic.PRICES, live.reload)` keeps it so."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.current = PriceBook(0, ())

    async def reload(self) -> None:
        """Load the version in force and put it in the old one's place at once.

        Raises:
            StoreUnavailable: the database cannot be read; the old book stays.
        """
        async with self._database.transaction() as session:
            self.current = await store.load(session)


def packaged_prices() -> ParsedPriceFile:
    """Return the price file that comes with this version of Tollhouse."""
    return import_prices(files(__package__).joinpath("price_book.toml").read_text(encoding="utf-8"))


async def seed_prices(session: AsyncSession) -> bool:
    """Store the packaged prices unless this revision (or a later one) was stored before; tell whether it did.

    Models whose prices an administrator imported keep those.
    """
    parsed = packaged_prices()
    if await store.seeded_revision(session) >= parsed.revision:
        return False
    await store.put_in_force(session, parsed, origin=store.Origin.PACKAGED)
    return True
