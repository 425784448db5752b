"""What operators see of the traffic: what all living processes have reported, put together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.routing.catalogue import Catalogue
from tollhouse_server.routing.targets import Account
from tollhouse_server.traffic import breaker_store, report_store
from tollhouse_server.traffic.account_use import AccountUse, use_of
from tollhouse_server.traffic.breaker_overview import BreakerOverview, overview_of
from tollhouse_server.traffic.breaker_reports import SECTION, breakers_of
from tollhouse_server.traffic.breakers import BreakerKey, Forced
from tollhouse_server.traffic.report_store import ProcessReport
from tollhouse_server.traffic.target_list import ListedTarget, targets_of


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficView:
    """The traffic at one moment."""

    reports: Sequence[ProcessReport]
    targets: Sequence[ListedTarget]
    breakers: Mapping[BreakerKey, BreakerOverview]
    orders: Mapping[BreakerKey, Forced]

    def use_of(self, account: Account, model: str) -> AccountUse:
        """Return what all processes use of an account for a model."""
        return use_of(account, model, self.reports)


async def view(session: AsyncSession, catalogue: Catalogue, at: datetime) -> TrafficView:
    """Return the traffic as it was at the processes' last reports."""
    reports, targets = await report_store.list_living(session), targets_of(catalogue, at)
    orders = {breaker_store.pattern_of(row): Forced(row.forced) for row in await breaker_store.list_orders(session)}
    breakers = overview_of(
        [(report.reported_at, breakers_of(report.sections.get(SECTION, ()))) for report in reports],
        orders=orders,
        known=[one.key for one in targets if one.key is not None],
    )
    return TrafficView(reports=reports, targets=targets, breakers=breakers, orders=orders)
