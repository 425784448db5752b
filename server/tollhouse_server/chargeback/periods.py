"""The months of tenants: when each begins and ends, how far it is, and what stands against closing it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from enum import StrEnum
from typing import Final

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.chargeback import period_store as store
from tollhouse_server.chargeback.cells import Month
from tollhouse_server.chargeback.statement import PeriodState
from tollhouse_server.chargeback.tables import BillingPeriodRow
from tollhouse_server.errors import PeriodClosed, WrongState
from tollhouse_server.ledger.terms import Calendar, Window
from tollhouse_server.ledger.windows import midnight, month_after, window_start
from tollhouse_server.names import PeriodName, invalid
from tollhouse_server.reconciliation.blocking import blocking_variances
from tollhouse_server.reporting.periods import Period, month_of, month_period
from tollhouse_server.tenancy.store import Clock, read_clock

_MOST_NAMED: Final = 5


class ObstacleKind(StrEnum):
    """What may stand against closing a month."""

    NOT_OVER = "NOT_OVER"
    NOT_ROLLED_UP = "NOT_ROLLED_UP"
    SUSPENSE = "SUSPENSE"
    UNRECONCILED = "UNRECONCILED"
    NOT_PREVIEWED = "NOT_PREVIEWED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """Something that stands against closing a month; `description` says what can be done about it."""

    kind: ObstacleKind
    description: str
    count: int = 0
    amount_nanos: int | None = None


def tenant_month(name: str, clock: Clock) -> Month:
    """Return a month of the tenant's own: it is named after the calendar month in which it begins."""
    first = date.fromisoformat(f"{name}-01")
    day = clock.fiscal_month_start_day
    period = Period(
        start=midnight(first.replace(day=day), clock.zone),
        end=midnight(month_after(first).replace(day=day), clock.zone),
    )
    return Month(name=name, period=period, time_zone=clock.zone.key, is_fiscal=day != 1)


def calendar_month(name: str, clock: Clock) -> Month:
    """Return a calendar month in the tenant's time zone."""
    return Month(name=name, period=month_period(name, clock.zone), time_zone=clock.zone.key, is_fiscal=False)


def current_month(clock: Clock) -> str:
    """Return the name of the tenant's own month that runs."""
    return month_at(clock.now, clock)


def month_at(at: datetime, clock: Clock) -> str:
    """Return the name of the tenant's own month that a moment is in."""
    calendar = Calendar(zone=clock.zone, fiscal_month_start_day=clock.fiscal_month_start_day)
    return month_of(window_start(Window.FISCAL_MONTH, at, calendar), clock.zone)


async def month_without_row(session: AsyncSession, name: PeriodName, clock: Clock) -> Month:
    """Return a month that has no row, between the months that have one.

    A tenant's calendar may change; months that were previewed stay. The next one begins where they end, so that no day
    is in two statements or in none.
    """
    return _between(await store.list_periods(session, name.tenant), tenant_month(name.month, clock))


def _between(rows: Iterable[BillingPeriodRow], month: Month) -> Month:
    start, end = month.period.start, month.period.end
    for row in rows:
        if row.month == month_before(month.name):
            start = row.ends_at
        elif row.month < month.name:
            start = max(start, row.ends_at)
        elif row.month == month_behind(month.name):
            end = row.starts_at
        elif row.month > month.name:
            end = min(end, row.starts_at)
    return replace(month, period=Period(start=start, end=end))


async def running_month(session: AsyncSession, tenant: str, clock: Clock) -> str:
    """Return the name of the tenant's month that runs: not of one that was over by another calendar."""
    return _running({row.month: row for row in await store.list_periods(session, tenant)}, clock)


def _running(rows: Mapping[str, BillingPeriodRow], clock: Clock) -> str:
    month = current_month(clock)
    while month in rows and rows[month].ends_at <= clock.now:
        month = month_behind(month)
    return month


def months_over(rows: Iterable[BillingPeriodRow], clock: Clock, *, most: int) -> Iterator[Month]:
    """Yield up to `most` months of a tenant that are over, the latest first; `rows` are all that he has."""
    known = {row.month: row for row in rows}
    name = _running(known, clock)
    for _ in range(most):
        name = month_before(name)
        yield month_of_row(known[name]) if name in known else _between(known.values(), tenant_month(name, clock))


def month_of_row(row: BillingPeriodRow) -> Month:
    """Return the month of a row: as it was when it was previewed, whatever the tenant's calendar is now."""
    return Month(
        name=row.month,
        period=Period(start=row.starts_at, end=row.ends_at),
        time_zone=row.time_zone,
        is_fiscal=row.is_fiscal,
    )


async def read_period(session: AsyncSession, name: PeriodName, *, lock: bool = False) -> BillingPeriodRow:
    """Return a month: its row, or what its row would be; with `lock` the row is written, and stays as it is.

    Raises:
        ResourceNotFound: there is no such tenant.
        InvalidRequest: the month has not begun.
    """
    row = await store.find_period(session, name, lock=lock)
    if row is not None:
        return row
    clock = await read_clock(session, name.tenant)
    month = await month_without_row(session, name, clock)
    if month.period.start > clock.now:
        raise invalid("name", "is of a month that has not begun")
    row = new_row(name.tenant, month)
    return await store.create_period(session, row) if lock else row


def new_row(tenant: str, month: Month) -> BillingPeriodRow:
    """Return the row of a month that has none."""
    return BillingPeriodRow(
        tenant_id=tenant,
        month=month.name,
        starts_at=month.period.start,
        ends_at=month.period.end,
        time_zone=month.time_zone,
        is_fiscal=month.is_fiscal,
        version=0,
    )


async def list_periods(session: AsyncSession, tenant: str, *, before: str, size: int) -> Sequence[BillingPeriodRow]:
    """Return up to `size` months that have begun, the newest first, of those before `before` if it is not empty.

    The first one is that of the tenant's first record, or of his first preview.
    """
    clock = await read_clock(session, tenant)
    rows = {row.month: row for row in await store.list_periods(session, tenant)}
    first = await store.first_moment(session, tenant)
    oldest = min([month_at(first, clock) if first else current_month(clock), *rows])
    months: list[str] = []
    month = month_before(before) if before else _running(rows, clock)
    while month >= oldest and len(months) < size:
        months.append(month)
        month = month_before(month)
    return [rows.get(name) or new_row(tenant, _between(rows.values(), tenant_month(name, clock))) for name in months]


def month_before(month: str) -> str:
    """Return the month before one, both `YYYY-MM`."""
    year, number = int(month[:4]), int(month[5:])
    return f"{year - 1}-12" if number == 1 else f"{year}-{number - 1:02}"


def month_behind(month: str) -> str:
    """Return the month that follows on one, both `YYYY-MM`."""
    return f"{month_after(date.fromisoformat(f'{month}-01')):%Y-%m}"


def require_open(row: BillingPeriodRow, needed: PeriodState) -> None:
    """Make sure that a month can take a step from the state `needed`.

    Raises:
        PeriodClosed: it is closed.
        WrongState: it is in another state.
    """
    name = str(PeriodName(row.tenant_id, row.month))
    if row.state == PeriodState.CLOSED.value:
        raise PeriodClosed(name=name)
    if row.state != needed.value:
        raise WrongState(name=name, state=row.state, needed=needed.value)


async def obstacles(session: AsyncSession, row: BillingPeriodRow, *, watermark: datetime) -> list[Obstacle]:
    """Return everything that stands against closing a month; of a closed one, nothing does."""
    if row.state == PeriodState.CLOSED.value:
        return []
    found = []
    period = Period(start=row.starts_at, end=row.ends_at)
    if row.state != PeriodState.PREVIEW.value:
        found.append(Obstacle(kind=ObstacleKind.NOT_PREVIEWED, description="it was not put up for preview"))
    if watermark < period.end:
        found.append(Obstacle(kind=ObstacleKind.NOT_OVER, description=f"it ends at {period.end.isoformat()}"))
    elif not await store.is_rolled_up(session, row.tenant_id, period):
        found.append(Obstacle(kind=ObstacleKind.NOT_ROLLED_UP, description="days of it are not rolled up yet"))
    count, nanos = await store.open_suspense(session, row.tenant_id, period)
    if count:
        found.append(
            Obstacle(
                kind=ObstacleKind.SUSPENSE,
                description=f"{count} attempts are in suspense; resolve them",
                count=count,
                amount_nanos=nanos,
            )
        )
    return found + await _unreconciled(session, row.tenant_id, period)


async def _unreconciled(session: AsyncSession, tenant: str, period: Period) -> list[Obstacle]:
    variances = await blocking_variances(session, tenant, period)
    if not variances:
        return []
    names = ", ".join(one.name for one in variances[:_MOST_NAMED])
    return [
        Obstacle(
            kind=ObstacleKind.UNRECONCILED,
            description=f"{len(variances)} variances against Google's bill are to be explained or accepted: {names}",
            count=len(variances),
            amount_nanos=sum(one.unexplained_nanos for one in variances),
        )
    ]
