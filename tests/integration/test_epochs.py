"""What a process knows of how old its knowledge is, and whether the database answers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import EpochWatch
from tollhouse_server.errors import StoreUnavailable

from tests.drivers.postgres import TestDatabase


@dataclass
class Outages:
    """A database that can be away."""

    database: Database
    is_away: bool = False

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        """Begin a transaction, or do not."""
        if self.is_away:
            raise StoreUnavailable(detail="away")
        async with self.database.transaction() as session:
            yield session


async def test_a_database_that_nobody_has_asked_for_a_while_is_not_away(fresh_database: TestDatabase) -> None:
    """What a process knows grows old at a slow start, too; only what is asked in vain is no answer."""
    now = 100.0
    database = Database(fresh_database.app_dsn)
    outages = Outages(database)
    watch = EpochWatch(outages, clock=lambda: now)  # type: ignore[arg-type]
    await watch.refresh()

    now += 60
    seen = [(watch.staleness_seconds, watch.unanswered_seconds)]
    outages.is_away = True
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await watch.refresh()
        now += 5
        seen.append((watch.staleness_seconds, watch.unanswered_seconds))
    outages.is_away = False
    await watch.refresh()
    seen.append((watch.staleness_seconds, watch.unanswered_seconds))
    await database.close()

    assert seen == [(60, 0), (65, 5), (70, 10), (0, 0)]
