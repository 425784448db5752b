"""Makes roll-ups up to a moment, as the housekeeper does up to now."""

from datetime import datetime

from tollhouse_server.reporting.rollup_store import build_next_day

from tests.drivers.books import Books


async def build(books: Books, watermark: datetime, tenant: str = "acme") -> int:
    """Roll up every day of a tenant that is over at the watermark; return how many."""
    built = 0
    while True:
        async with books.database.transaction() as session:
            if await build_next_day(session, tenant, watermark) is None:
                return built
            built += 1
