"""The traffic of one process."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from tollhouse_server.background import Background
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import Topic
from tollhouse_server.errors import StoreUnavailable
from tollhouse_server.settings import Settings
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.traffic import breaker_reports
from tollhouse_server.traffic.breaker_events import breaker_events
from tollhouse_server.traffic.breaker_orders import BreakerOrders
from tollhouse_server.traffic.breakers import Breakers
from tollhouse_server.traffic.reports import Reports
from tollhouse_server.traffic.retry_budget import RetryBudget
from tollhouse_server.traffic.traffic import Traffic
from tollhouse_server.wiring.knowledge import Knowledge


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficParts:
    """What lets calls depart."""

    traffic: Traffic
    retries: RetryBudget
    orders: BreakerOrders
    reports: Reports

    def run_in(self, tasks: Background) -> None:
        """Start what keeps it current."""
        tasks.keep(self.orders.run)
        tasks.keep(self.reports.run)


async def open_traffic(settings: Settings, database: Database, knowledge: Knowledge, metrics: Metrics) -> TrafficParts:
    """Build the traffic of a worker; it follows the catalogue that `knowledge` has in force."""
    catalogue = knowledge.catalogue
    breakers = Breakers(on_change=breaker_events(metrics))
    traffic = Traffic(
        accounts=catalogue.current.accounts(),
        breakers=breakers,
        metrics=metrics,
        max_calls=settings.max_calls_upstream,
        max_waiting=settings.max_calls_waiting,
    )
    reports = Reports(database, traffic.bucket_reports)
    traffic.join(reports)
    reports.contribute(breaker_reports.SECTION, lambda: breaker_reports.section_of(breakers.snapshot()))
    orders = BreakerOrders(database, breakers)
    with suppress(StoreUnavailable):
        # The first share of each account's limits, for the first calls.
        await reports.exchange()

    async def follow_orders() -> None:
        await orders.reload()
        traffic.wake()

    async def follow_accounts() -> Callable[[], None]:
        # When the new catalogue is in force.
        return lambda: traffic.reconfigure(catalogue.current.accounts())

    knowledge.watch.on_change(Topic.BREAKERS, follow_orders)
    knowledge.watch.on_change(Topic.ACCOUNTS, follow_accounts)
    retries = RetryBudget(on_refusal=metrics.retry_refused)
    return TrafficParts(traffic=traffic, retries=retries, orders=orders, reports=reports)
