"""Traffic in virtual time, and calls that ask it for places."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

from prometheus_client import CollectorRegistry
from tollhouse_server.routing.targets import Account, AccountLimit, AccountMetric
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.traffic.breakers import BreakerKey, Breakers
from tollhouse_server.traffic.bucket_reports import SECTION
from tollhouse_server.traffic.places import Place
from tollhouse_server.traffic.report_store import Exchange, HeardReport
from tollhouse_server.traffic.terms import PlaceRequest
from tollhouse_server.traffic.traffic import Traffic
from tollhouse_server.traffic.verdicts import Verdict

from tests.unit.traffic import virtual_time
from tests.unit.traffic.calls import MODEL, account, request
from tests.unit.traffic.virtual_time import now

Test = Callable[[], Coroutine[Any, Any, None]]
A_MINUTE = AccountMetric.REQUESTS_PER_MINUTE


def in_virtual_time(test: Test) -> Callable[[], None]:
    """Run a test on a loop whose clock jumps."""

    @wraps(test)
    def run() -> None:
        virtual_time.run(test())

    del run.__wrapped__
    return run


def traffic_of(
    *accounts: Account,
    max_calls: int = 512,
    max_waiting: int = 1000,
    breakers: Breakers | None = None,
) -> Traffic:
    return Traffic(
        accounts=accounts or [account()],
        breakers=breakers or Breakers(clock=now),
        metrics=Metrics(CollectorRegistry()),
        max_calls=max_calls,
        max_waiting=max_waiting,
        clock=now,
        chance=random.Random(1).random,
    )


def limit(amount: int, metric: AccountMetric = A_MINUTE, model: str = MODEL) -> AccountLimit:
    return AccountLimit(metric=metric, amount=amount, model=model)


def report_of(name: str, traffic: Traffic) -> HeardReport:
    """Return what a process says."""
    return HeardReport(process_key=name, age_seconds=0.0, sections={SECTION: traffic.bucket_reports.section()})


def hear(name: str, traffic: Traffic, *reports: HeardReport) -> None:
    """Let a process take note of what others have said."""
    traffic.bucket_reports.heard(Exchange(process_key=name, reports=reports, requests_today={}))
    traffic.wake()


async def places(traffic: Traffic, count: int, wanted: PlaceRequest | None = None) -> list[Place]:
    return [await traffic.place(wanted or request()) for _ in range(count)]


async def start(traffic: Traffic, wanted: PlaceRequest | None = None) -> asyncio.Task[Place]:
    """Let a call ask for a place, and wait where there is none."""
    task = asyncio.get_running_loop().create_task(traffic.place(wanted or request()))
    await asyncio.sleep(0)
    return task


def open_breaker(breakers: Breakers, account_id: str = "acme") -> None:
    key = BreakerKey(account_id, "", MODEL)
    for _ in range(5):
        breakers.begin(key)
        breakers.record(key, Verdict.FAILURE, 0.0)
