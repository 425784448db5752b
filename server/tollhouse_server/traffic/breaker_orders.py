"""Operators' orders as one process knows them: loaded when they change, ended when their time is over."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from tollhouse_server.database.engine import Database
from tollhouse_server.traffic import breaker_store as store
from tollhouse_server.traffic.breakers import Breakers, Forced
from tollhouse_server.traffic.tables import BreakerOrderRow

_LOOK_SECONDS = 1.0


def _utc_now() -> datetime:
    return datetime.now(UTC)


class BreakerOrders:
    """Puts orders in force; watch Topic.BREAKERS with `reload`, and keep `run` running for those that expire."""

    def __init__(self, database: Database, breakers: Breakers, *, now: Callable[[], datetime] = _utc_now) -> None:
        self._database = database
        self._breakers = breakers
        self._now = now
        self._orders: Sequence[BreakerOrderRow] = ()

    async def reload(self) -> None:
        """Load the orders and put them in force.

        Raises:
            StoreUnavailable: the database cannot be read; the old orders stay.
        """
        async with self._database.transaction() as session:
            self._orders = await store.list_orders(session)
        self._apply()

    def end_expired(self) -> None:
        """Give back to the breakers what was ordered until now."""
        at = self._now()
        if not all(store.in_force(row, at) for row in self._orders):
            self._apply()

    async def run(self) -> None:
        """Look for expired orders for ever."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self.end_expired()

    def _apply(self) -> None:
        at = self._now()
        self._orders = [row for row in self._orders if store.in_force(row, at)]
        self._breakers.order({store.pattern_of(row): Forced(row.forced) for row in self._orders})
