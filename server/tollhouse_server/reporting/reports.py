"""Reports: a month for finance, a summary for callers. Each is one consistent view of the ledger."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from zoneinfo import ZoneInfo

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.names import Scope, invalid
from tollhouse_server.reporting import store
from tollhouse_server.reporting.periods import Period, days_of, month_of, month_period
from tollhouse_server.reporting.questions import Question
from tollhouse_server.reporting.sums import Dimension, Group, Line, Sums
from tollhouse_server.tenancy.store import read_clock

MOST_LINES = 20_000
"""Lines of a month report, some 3 MB on the wire; a finer split is refused, never cut off."""

MOST_GROUPS = 1_000
"""Groups of a summary; the rest is in its total only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MonthReport:
    """What a month cost; `lines` add up to `totals.cost_nanos` exactly. Of a month that is not over, a snapshot."""

    scope: Scope
    month: str
    period: Period
    generated_at: datetime
    totals: Sums
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a period cost: `groups`, the dearest first, at most MOST_GROUPS of them, and the whole."""

    period: Period
    groups: tuple[Group, ...]
    total: Sums


async def month_report(
    session: AsyncSession, scope: Scope, *, month: str, dimensions: Sequence[Dimension]
) -> MonthReport:
    """Add up a calendar month (`YYYY-MM`; empty means the current one) in the tenant's time zone.

    The session's transaction must have begun with `begin_snapshot`, so that all parts of the report are of one moment.

    Raises:
        ResourceNotFound: there is no such tenant.
        InvalidRequest: the split makes more than MOST_LINES lines.
    """
    clock = await read_clock(session, scope.tenant)
    month = month or month_of(clock.now, clock.zone)
    period = month_period(month, clock.zone)
    question = Question(scope=scope, period=period, dimensions=tuple(dimensions), days=days_of(period, clock.zone))
    if Dimension.SKU in dimensions:
        totals = (await store.sum_usage(session, question.undivided(), most=0)).total
        lines = await store.sum_skus(session, question, most=MOST_LINES + 1)
    else:
        sums = await store.sum_usage(session, question, most=MOST_LINES + 1)
        totals = sums.total
        lines = tuple(_line(group) for group in sums.groups)
    if len(lines) > MOST_LINES:
        raise invalid("group_by", f"splits the month into more than {MOST_LINES} lines; leave a dimension out")
    return MonthReport(
        scope=scope,
        month=month,
        period=period,
        generated_at=clock.now,
        totals=totals,
        lines=tuple(sorted(lines, key=lambda line: _order(line, dimensions))),
    )


async def usage_summary(
    session: AsyncSession, scope: Scope, period: Period, *, dimensions: Sequence[Dimension], zone: ZoneInfo
) -> Summary:
    """Add up a period by dimensions other than SKU; days are those of `zone`."""
    days = days_of(period, zone) if Dimension.DAY in dimensions else ()
    question = Question(scope=scope, period=period, dimensions=tuple(dimensions), days=days, detailed=True)
    sums = await store.sum_usage(session, question, most=MOST_GROUPS)
    return Summary(period=period, groups=sums.groups, total=sums.total)


def _line(group: Group) -> Line:
    return Line(keys=group.keys, calls=group.sums.calls, cost_nanos=group.sums.cost_nanos)


def _order(line: Line, dimensions: Sequence[Dimension]) -> tuple[str | date, ...]:
    return tuple(line.keys[dimension] for dimension in dimensions)
