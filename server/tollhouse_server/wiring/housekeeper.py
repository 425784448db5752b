"""The housekeeper: does what needs no caller."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial

from prometheus_client import CollectorRegistry

from tollhouse_server.audit.store import forget_old_requests
from tollhouse_server.background import Background, background
from tollhouse_server.chargeback.wallets import WalletExpiry
from tollhouse_server.database.engine import Database
from tollhouse_server.database.rounds import in_rounds
from tollhouse_server.dlp.findings import FindingRetention
from tollhouse_server.documents.deliveries import WAYS, Deliveries
from tollhouse_server.ledger import connections
from tollhouse_server.ledger.housekeeping import Housekeeping
from tollhouse_server.ledger.verification import LedgerVerification, NightlyVerification
from tollhouse_server.ledger.workers import Sweeper
from tollhouse_server.readings.rounds import Most, Readings
from tollhouse_server.reporting.retention import Retention
from tollhouse_server.reporting.rollup_findings import rollup_findings
from tollhouse_server.reporting.rollups import RollUps
from tollhouse_server.settings import Settings
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.telemetry.multiprocess import shared_directory
from tollhouse_server.telemetry.vitals import Vitals
from tollhouse_server.wiring.audit import open_audit_chores
from tollhouse_server.wiring.content import open_content_chores
from tollhouse_server.wiring.custody import open_custody
from tollhouse_server.wiring.documents import ways_of
from tollhouse_server.wiring.ledger import liveness, open_ledger, suspense_policy
from tollhouse_server.wiring.outside import required_dsn
from tollhouse_server.wiring.tenancy import open_purges

_CHORE_SECONDS = 3600.0
_GOODBYE_SECONDS = 2.0


@asynccontextmanager
async def open_housekeeper(settings: Settings) -> AsyncIterator[Housekeeping]:
    """Build the housekeeper and let it work until the block is left.

    Raises:
        StoreUnavailable: PostgreSQL cannot be reached.
    """
    async with AsyncExitStack() as stack:
        metrics = Metrics(CollectorRegistry())
        metrics.process_started(role="housekeeper")
        parts = await open_ledger(settings, stack, metrics)
        database = Database(required_dsn(settings), pool_size=3)
        stack.push_async_callback(database.close)
        custody = await open_custody(settings, stack, metrics)
        purges = open_purges(settings, stack, custody)
        contents = open_content_chores(settings, stack, custody)
        audit = open_audit_chores(settings, stack, metrics)
        tasks = await stack.enter_async_context(background())
        stack.callback(connections.hurry, parts.pool)
        parts.run_in(tasks)
        custody.run_in(tasks)
        audit.run_in(tasks)
        housekeeping = Housekeeping(parts.pool, metrics)
        tasks.keep(partial(_forget_old_requests, database))
        tasks.keep(Sweeper(parts.pool, parts.tick, liveness(settings), suspense_policy(settings)).run)
        tasks.keep(housekeeping.run)
        tasks.keep(purges.run)
        tasks.keep(contents.run)
        tasks.keep(WalletExpiry(database).run)
        deliveries = Deliveries(database, ways_of(settings))
        for way in WAYS:
            tasks.keep(partial(deliveries.run, way))
        tasks.keep(RollUps(database, metrics).run)
        tasks.keep(Vitals(metrics, "housekeeper").run)
        _read_for_metrics(settings, stack, tasks, metrics)
        tasks.keep(Retention(database, months=settings.usage_retention_months).run)
        tasks.keep(FindingRetention(database, days=settings.data_finding_days).run)
        verification = LedgerVerification(database, rollup_findings)
        tasks.keep(NightlyVerification(parts.pool, verification, metrics).run)
        yield housekeeping
        with suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE_SECONDS):
                await parts.say_goodbye()


def _read_for_metrics(settings: Settings, stack: AsyncExitStack, tasks: Background, metrics: Metrics) -> None:
    """Read what the metrics tell of money, if there is anybody to tell it to."""
    if (directory := shared_directory()) is None:
        return
    # Connections of its own: one of them makes this process the leader for as long as it lasts.
    database = Database(required_dsn(settings), pool_size=2)
    stack.push_async_callback(database.close)
    most = Most(budgets=settings.metrics_top_budgets, departments=settings.metrics_top_departments)
    tasks.keep(Readings(database, metrics, directory, most).run)


async def _forget_old_requests(database: Database) -> None:
    """Drop the answers kept for repeated administrative requests once they are a day old, every hour."""

    async def forget() -> None:
        async with database.transaction() as session:
            await forget_old_requests(session)

    await in_rounds(forget, "old administrative requests", pause_seconds=_CHORE_SECONDS)
