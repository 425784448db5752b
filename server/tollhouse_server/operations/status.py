"""How it is going on one scope, put together from the ledger, processes' reports and counters."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.engine import Database
from tollhouse_server.ledger.limit_store import LimitView, fullest_budgets
from tollhouse_server.names import PLATFORM, DepartmentName, ProjectName, Scope
from tollhouse_server.operations.counters import FRESH_SECONDS, Counters, LiveCounters
from tollhouse_server.operations.status_store import OpenSuspense, PlatformSpend, open_suspense, platform_spend
from tollhouse_server.reporting.periods import Period, month_of, month_period
from tollhouse_server.reporting.questions import Question
from tollhouse_server.reporting.store import begin_snapshot, sum_usage
from tollhouse_server.reporting.sums import Dimension, Group, Sums
from tollhouse_server.routing.catalogue import Catalogue
from tollhouse_server.tenancy.store import get_department, get_project, read_clock
from tollhouse_server.traffic.traffic_view import TrafficView, view

MOST_BUDGETS: Final = 50
MOST_DEPARTMENTS: Final = 20

_HOUR, _MINUTE = timedelta(hours=1), timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeStatus:
    """What a tenant, department or project spends; the platform has no `departments`."""

    read_at: datetime
    month_nanos: int
    hour_nanos: int
    minute: Sums
    departments: Sequence[Group]
    budgets: Sequence[LimitView]
    suspense: OpenSuspense


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformStatus:
    """What all tenants spend, and how traffic goes; the counters are those of this server."""

    spend: ScopeStatus
    traffic: TrafficView
    counters: Counters


async def scope_status(session: AsyncSession, scope: Scope) -> ScopeStatus:
    """Return what a scope spends; the transaction must have begun with `begin_snapshot`.

    Raises:
        ResourceNotFound: there is no such scope.
    """
    clock = await read_clock(session, scope.tenant)
    if isinstance(scope, DepartmentName):
        await get_department(session, scope)
    elif isinstance(scope, ProjectName):
        await get_project(session, scope)
    # Until a moment that is surely over: what is booked at this very one belongs to it.
    now = clock.now + _MINUTE
    month = Period(start=month_period(month_of(clock.now, clock.zone), clock.zone).start, end=now)
    by_department = Question(scope=scope, period=month, dimensions=(Dimension.DEPARTMENT,))
    spent = await sum_usage(session, by_department, most=MOST_DEPARTMENTS)
    hour, minute = [
        (await sum_usage(session, Question(scope=scope, period=Period(start=clock.now - ago, end=now)), most=0)).total
        for ago in (_HOUR, _MINUTE)
    ]
    return ScopeStatus(
        read_at=clock.now,
        month_nanos=spent.total.cost_nanos,
        hour_nanos=hour.cost_nanos,
        minute=minute,
        departments=spent.groups,
        budgets=await fullest_budgets(session, scope, size=MOST_BUDGETS),
        suspense=await open_suspense(session, scope),
    )


def _of_platform(spend: PlatformSpend, budgets: Sequence[LimitView], suspense: OpenSuspense) -> ScopeStatus:
    return ScopeStatus(
        read_at=spend.now,
        month_nanos=spend.month_nanos,
        hour_nanos=spend.hour_nanos,
        minute=Sums(calls=spend.calls, input_tokens=spend.input_tokens, output_tokens=spend.output_tokens),
        departments=(),
        budgets=budgets,
        suspense=suspense,
    )


class LiveStatus:
    """Answers how it is going; the platform's status is kept for FRESH_SECONDS, whoever and how many watch it."""

    def __init__(self, database: Database, catalogue: Callable[[], Catalogue]) -> None:
        self._database = database
        self._catalogue = catalogue
        self._counters = LiveCounters()
        self._looking = asyncio.Lock()
        self._seen: tuple[float, PlatformStatus] | None = None

    async def of_scope(self, scope: Scope, domain: str) -> ScopeStatus:
        """Return the status of a part of a tenant.

        Raises:
            ResourceNotFound: there is no such scope.
            StoreUnavailable: PostgreSQL cannot be asked.
        """
        async with self._database.within(domain, begin=begin_snapshot) as session:
            return await scope_status(session, scope)

    async def of_platform(self) -> PlatformStatus:
        """Return the status of everything.

        Raises:
            StoreUnavailable: PostgreSQL cannot be asked.
        """
        async with self._looking:
            if self._seen is None or time.monotonic() - self._seen[0] > FRESH_SECONDS:
                status = await self._look()
                self._seen = time.monotonic(), status
            return self._seen[1]

    async def _look(self) -> PlatformStatus:
        counters = await self._counters.read()
        async with self._database.within(PLATFORM, begin=begin_snapshot) as session:
            spend = await platform_spend(session)
            budgets = await fullest_budgets(session, None, size=MOST_BUDGETS)
            suspense = await open_suspense(session, None)
            traffic = await view(session, self._catalogue(), datetime.now(UTC))
        return PlatformStatus(spend=_of_platform(spend, budgets, suspense), traffic=traffic, counters=counters)
