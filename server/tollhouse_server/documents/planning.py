"""Which deliveries have become due: of months that were closed, and of those that go out on a day."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.chargeback.cells import Month
from tollhouse_server.chargeback.period_store import periods_of
from tollhouse_server.chargeback.periods import months_over
from tollhouse_server.documents import delivery_store as store
from tollhouse_server.documents.tables import DeliveryScheduleRow
from tollhouse_server.ledger.windows import midnight
from tollhouse_server.names import DeliveryScheduleName
from tollhouse_server.tenancy.store import read_clocks

MOST_MONTHS_LATE: Final = 12
"""How far back deliveries are made up for, whose day has passed while nobody was there to plan them."""


async def plan(session: AsyncSession, ways: Sequence[str]) -> int:
    """Plan on these ways what has become due, once each; return how much."""
    planned = await store.plan_closed(session, ways)
    dated = await store.dated_schedules(session)
    tenants = {schedule.tenant_id for schedule in dated}
    clocks, rows = await read_clocks(session, tenants), await periods_of(session, tenants)
    due: list[store.Due] = []
    for schedule in dated:
        clock, periods = clocks[schedule.tenant_id], rows[schedule.tenant_id]
        due += _due(schedule, months_over(periods, clock, most=MOST_MONTHS_LATE), clock.now)
    return planned + (await store.plan_dated(session, due, ways) if due else 0)


def due_at(month: Month, day: int) -> datetime:
    """Return when the statement of a month goes out on a day of the following one: as the day begins in its zone."""
    return midnight(month.period.end.astimezone(month.zone).date() + timedelta(days=day - 1), month.zone)


def _due(schedule: DeliveryScheduleRow, months: Iterable[Month], now: datetime) -> list[store.Due]:
    """Return the months that are due; a schedule does not begin with what was due before there was one."""
    since = schedule.created_at or now
    name = DeliveryScheduleName(schedule.tenant_id, schedule.schedule_id)
    return [
        store.Due(schedule=name, month=month.name) for month in months if since <= due_at(month, schedule.day) <= now
    ]
