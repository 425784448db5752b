"""The traffic of one process."""

from collections.abc import Callable
from dataclasses import dataclass

from tollhouse_server.background import Background
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import Topic
from tollhouse_server.settings import Settings
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.traffic.breaker_orders import BreakerOrders
from tollhouse_server.traffic.breakers import Breakers
from tollhouse_server.traffic.retry_budget import RetryBudget
from tollhouse_server.traffic.traffic import Traffic
from tollhouse_server.wiring.knowledge import Knowledge


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficParts:
    """What lets calls depart."""

    traffic: Traffic
    retries: RetryBudget
    orders: BreakerOrders

    def run_in(self, tasks: Background) -> None:
        """Start what keeps it current."""
        tasks.keep(self.orders.run)


def open_traffic(settings: Settings, database: Database, knowledge: Knowledge, metrics: Metrics) -> TrafficParts:
    """Build the traffic of a worker."""
    del settings
    breakers = Breakers()
    orders = BreakerOrders(database, breakers)
    traffic = Traffic(accounts=knowledge.catalogue.current.accounts(), breakers=breakers, metrics=metrics)
    knowledge.watch.on_change(Topic.BREAKERS, orders.reload)

    async def reconfigure() -> Callable[[], None]:
        # When the new catalogue is in force.
        return lambda: traffic.reconfigure(knowledge.catalogue.current.accounts())

    knowledge.watch.on_change(Topic.ACCOUNTS, reconfigure)
    return TrafficParts(traffic=traffic, retries=RetryBudget(), orders=orders)
