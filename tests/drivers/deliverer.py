"""A process that makes deliveries as the housekeeper does, to be killed: `deliverer DSN WAY [stops]`.

With `stops` it stops for ever before a file gets its name.
"""

import asyncio
import os
import sys
import threading
from typing import Any

from tollhouse_server.database.engine import Database
from tollhouse_server.documents.deliveries import Deliveries
from tollhouse_server.settings import Settings
from tollhouse_server.wiring.documents import ways_of


def _stop_before_a_name(*_: Any, **__: Any) -> None:
    threading.Event().wait()


async def _deliver(dsn: str, way: str) -> None:
    database = Database(dsn)
    await Deliveries(database, ways_of(Settings())).deliver_due(way)
    await database.close()


def main() -> None:
    """Deliver once what is due on a way."""
    dsn, way, *stops = sys.argv[1:]
    if stops:
        os.replace = _stop_before_a_name
    asyncio.run(_deliver(dsn, way))


if __name__ == "__main__":
    main()
