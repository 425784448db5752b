"""Exports: how the records of a month leave the ledger. Stock is taken, the download confirmed, the records dropped."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.errors import ExportMismatch, MonthNotDroppable, ResourceExists, WrongState
from tollhouse_server.money import nanos_to_dollars
from tollhouse_server.names import UsageExportName, invalid
from tollhouse_server.reporting import export_store
from tollhouse_server.reporting.conservation_store import compare_rollups
from tollhouse_server.reporting.export_store import ExportedLine, Place, UsageExport
from tollhouse_server.reporting.periods import calendar_month

# A tenant's day that has a part in a month may begin before it and end behind it.
_LONGEST_DAY: Final = timedelta(days=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """What its keeper says of a month that was downloaded."""

    record_count: int
    cost_nanos: int
    checksum: int
    content_sha256: str
    location: str


def first_of(month: str) -> date:
    """Return the first day of a month written `YYYY-MM`."""
    return date.fromisoformat(f"{month}-01")


async def create_export(session: AsyncSession, month: str, *, watermark: datetime, creator: str) -> UsageExport:
    """Take stock of a month that is over at the watermark, so that none of its records is still on its way.

    Raises:
        InvalidRequest: the month is not over.
        ResourceExists: its export is confirmed, and perhaps dropped, already.
    """
    first = first_of(month)
    period = calendar_month(first)
    if period.end > watermark:
        raise invalid("month", "is not over in UTC")
    export = await export_store.save_export(session, first, period, creator=creator)
    if export is None:
        raise ResourceExists(name=str(UsageExportName(month)))
    return export


async def read_lines(session: AsyncSession, month: str, *, after: Place | None, size: int) -> list[ExportedLine]:
    """Return up to `size` lines of an exported month.

    Raises:
        ResourceNotFound: the month was not exported.
        WrongState: its records were dropped.
    """
    export = await export_store.get_export(session, first_of(month))
    if export.state == "DROPPED":
        raise WrongState(name=export.name, state=export.state, needed="READY or CONFIRMED")
    return await export_store.list_lines(session, calendar_month(export.month), after=after, size=size)


async def confirm_export(session: AsyncSession, month: str, download: Download, *, confirmer: str) -> UsageExport:
    """Confirm that a month was downloaded and kept.

    Raises:
        ResourceNotFound: the month was not exported.
        WrongState: it is confirmed already.
        ExportMismatch: what was kept is not what the month holds.
    """
    export = await export_store.get_export(session, first_of(month), lock=True)
    if export.state != "READY":
        raise WrongState(name=export.name, state=export.state, needed="READY")
    for field, expected, found in (
        ("record_count", str(export.record_count), str(download.record_count)),
        ("cost", nanos_to_dollars(export.cost_nanos), nanos_to_dollars(download.cost_nanos)),
        ("checksum", str(export.checksum), str(download.checksum)),
    ):
        if expected != found:
            raise ExportMismatch(name=export.name, field=field, expected=expected, found=found)
    return await export_store.confirm_export(
        session,
        export.month,
        content_sha256=download.content_sha256,
        location=download.location,
        confirmer=confirmer,
    )


async def drop_records(session: AsyncSession, month: str) -> UsageExport:
    """Drop the records of a confirmed month whose roll-ups, all that is left of it then, are what the records say.

    Raises:
        ResourceNotFound: the month was not exported.
        WrongState: it is not confirmed, or dropped already.
        MonthNotDroppable: it ended less than a month ago, or is not rolled up, or has something in suspense.
        StoreUnavailable: the records are being read; try again.
    """
    export = await export_store.get_export(session, first_of(month), lock=True)
    if export.state != "CONFIRMED":
        raise WrongState(name=export.name, state=export.state, needed="CONFIRMED")
    period = calendar_month(export.month)
    since, until = period.start - _LONGEST_DAY, period.end + _LONGEST_DAY
    async for difference in compare_rollups(session, since=since, until=until):
        obstacle = f"has a roll-up of {difference.tenant_id} that differs from the records"
        raise MonthNotDroppable(name=export.name, obstacle=obstacle)
    await export_store.drop_records(session, export)
    return await export_store.get_export(session, export.month)
