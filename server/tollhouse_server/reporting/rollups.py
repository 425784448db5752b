"""Roll-ups: the sums of a tenant's day, made by the housekeeper once the day is over, and never changed.

What is corrected later is a record of its own in a later day, so nothing has to be made again. That no record of a day
that is over is still on its way is what the watermark says; that what was made is right, a comparison each night.
"""

import asyncio
import time
from datetime import datetime, timedelta
from typing import Final

import structlog
from sqlalchemy.exc import DBAPIError

from tollhouse_server.database.engine import Database
from tollhouse_server.errors import StoreUnavailable
from tollhouse_server.reporting import rollup_store
from tollhouse_server.reporting.conservation_store import RollupDifference, compare_rollups
from tollhouse_server.telemetry.metrics import Metrics

_log = structlog.get_logger(__name__)

_ROUND_SECONDS: Final = 300.0
_COMPARISON_SECONDS: Final = 24 * 3600.0
_COMPARED: Final = timedelta(days=3)
_MOST_DAYS_IN_A_ROW: Final = 31
_MOST_LOGGED: Final = 100


class RollUps:
    """Makes what is missing, an outage's days too. Several at once do no harm: one makes a tenant's day, once."""

    def __init__(self, database: Database, metrics: Metrics) -> None:
        self._database = database
        self._metrics = metrics

    async def run(self) -> None:
        """Roll up and compare for ever; a database outage only postpones it."""
        compared_at = float("-inf")
        while True:
            try:
                await self.build()
                if time.monotonic() - compared_at > _COMPARISON_SECONDS:
                    await self.compare()
                    compared_at = time.monotonic()
            except StoreUnavailable as error:
                _log.warning("rollups_postponed", detail=error.detail)
            except DBAPIError as error:
                _log.error("rollups_failed", error=type(error.orig).__name__)
            await asyncio.sleep(_ROUND_SECONDS)

    async def build(self) -> int:
        """Roll up every day of every tenant that is over; return how many were made.

        Raises:
            StoreUnavailable: PostgreSQL is gone; what was made stays.
        """
        async with self._database.transaction() as session:
            watermark = await rollup_store.read_watermark(session)
        built = 0
        while behind := await self._behind(watermark):
            # A tenant with years to catch up on must not keep the others waiting.
            made = sum([await self._build_some(tenant, watermark) for tenant in behind])
            if not made:
                # Another process is at it.
                break
            built += made
        if built:
            _log.info("days_rolled_up", days=built, watermark=watermark.isoformat())
        return built

    async def _behind(self, watermark: datetime) -> list[str]:
        async with self._database.transaction() as session:
            behind = await rollup_store.tenants_behind(session, watermark)
        self._metrics.tenants_behind(len(behind))
        return behind

    async def _build_some(self, tenant: str, watermark: datetime) -> int:
        for made in range(_MOST_DAYS_IN_A_ROW):
            try:
                async with self._database.transaction() as session:
                    if await rollup_store.build_next_day(session, tenant, watermark) is None:
                        return made
            except DBAPIError as error:
                # A record that cannot be added up stops its own tenant's roll-ups, which the metric shows; the sweeper
                # runs in the same process and must not end with it.
                _log.error("rollup_failed", tenant=tenant, error=type(error.orig).__name__)
                return made
        return _MOST_DAYS_IN_A_ROW

    async def compare(self) -> list[RollupDifference]:
        """Hold the last days against their records; tell of every difference by metric and log.

        Raises:
            StoreUnavailable: PostgreSQL is gone.
        """
        async with self._database.transaction() as session:
            since = await rollup_store.read_watermark(session) - _COMPARED
        async with self._database.transaction() as session:
            found = [difference async for difference in compare_rollups(session, since=since)]
        self._metrics.rollup_differences(len(found))
        for one in found[:_MOST_LOGGED]:
            _log.error(
                "rollup_differs",
                tenant=one.tenant_id,
                day_start=one.day.start.isoformat(),
                day_end=one.day.end.isoformat(),
                part=one.part,
                key=one.key,
                field=one.field,
                records=one.records,
                rollups=one.rollups,
            )
        _log.info("rollups_compared", since=since.isoformat(), differences=len(found))
        return found
