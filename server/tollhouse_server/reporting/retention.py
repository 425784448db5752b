"""Retention: the housekeeper drops the records of months that were exported, confirmed, and kept for long enough."""

import asyncio
from datetime import date
from typing import Final

import structlog
from sqlalchemy.exc import DBAPIError

from tollhouse_server.audit.store import record
from tollhouse_server.audit.tables import AuditEventRow
from tollhouse_server.database.engine import Database
from tollhouse_server.errors import MonthNotDroppable, StoreUnavailable, WrongState
from tollhouse_server.names import PLATFORM
from tollhouse_server.reporting import export_store, exports
from tollhouse_server.reporting.export_store import UsageExport
from tollhouse_server.reporting.rollup_store import read_now

_log = structlog.get_logger(__name__)

_ROUND_SECONDS: Final = 3600.0
_MOST_EXPORTS: Final = 1200


class Retention:
    """Drops what is older than `months` whole months; 0 keeps everything. Several at once do no harm."""

    def __init__(self, database: Database, *, months: int) -> None:
        self._database = database
        self._months = months

    async def run(self) -> None:
        """Look every hour, for ever; a database outage only postpones it."""
        while self._months:
            try:
                await self.drop_old_months()
            except StoreUnavailable as error:
                _log.warning("retention_postponed", detail=error.detail)
            except DBAPIError as error:
                _log.error("retention_failed", error=type(error.orig).__name__)
            await asyncio.sleep(_ROUND_SECONDS)

    async def drop_old_months(self) -> list[str]:
        """Drop every confirmed month that is old enough; return their names. What stands against one is logged.

        Raises:
            StoreUnavailable: PostgreSQL is gone, or the records are in use; what was dropped is gone.
        """
        async with self._database.transaction() as session:
            now = await read_now(session)
            found = await export_store.list_exports(session, after=date.min, size=_MOST_EXPORTS)
        dropped = []
        for export in found:
            if export.state == "CONFIRMED" and is_old(export.month, now.date(), months=self._months):
                dropped += [export.name] if await self._drop(export) else []
        return dropped

    async def _drop(self, export: UsageExport) -> bool:
        try:
            async with self._database.transaction() as session:
                await exports.drop_records(session, f"{export.month:%Y-%m}")
                await record(session, _event(export))
        except (MonthNotDroppable, WrongState) as error:
            _log.warning("month_not_dropped", month=export.name, reason=error.message())
            return False
        _log.info("month_dropped", month=export.name, records=export.record_count, cost_nanos=export.cost_nanos)
        return True


def is_old(month: date, today: date, *, months: int) -> bool:
    """Tell whether `months` whole months have passed since the month that begins with the day `month`."""
    passed = (today.year - month.year) * 12 + today.month - month.month - 1
    return passed >= months


def _event(export: UsageExport) -> AuditEventRow:
    return AuditEventRow(
        tenant_id=PLATFORM,
        actor="housekeeper",
        credential_id="",
        method="tollhouse.admin.v1.UsageExportService.DropUsageExportRecords",
        permission="",
        resource=export.name,
        before={"state": export.state, "recordCount": export.record_count, "costNanos": str(export.cost_nanos)},
        after={"state": "DROPPED"},
        request_id="",
        correlation_id="",
    )
