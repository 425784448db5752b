"""The SQL of forecasts: what the days before today have cost, from roll-ups."""

from datetime import timedelta

from sqlalchemy import func, select, union_all
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.chargeback.cells import DailyCost
from tollhouse_server.chargeback.forecast import HISTORY_DAYS
from tollhouse_server.errors import RecordsDropped
from tollhouse_server.ledger.windows import midnight
from tollhouse_server.names import TenantName
from tollhouse_server.reporting.facts import key_columns, usage_facts
from tollhouse_server.reporting.periods import Period, days_of
from tollhouse_server.reporting.questions import Question, Reach
from tollhouse_server.reporting.rollup_store import fetch_rows, read_plan
from tollhouse_server.reporting.sums import Dimension
from tollhouse_server.tenancy.store import Clock


async def read_daily(session: AsyncSession, tenant: str, clock: Clock, reach: Reach | None = None) -> list[DailyCost]:
    """Return the cost of the complete days that a forecast looks back on; none where their records were dropped."""
    today = clock.now.astimezone(clock.zone).date()
    start = midnight(today - timedelta(days=HISTORY_DAYS), clock.zone)
    period = Period(start=start, end=midnight(today, clock.zone))
    days = days_of(period, clock.zone)
    dimensions = (Dimension.DAY, Dimension.DEPARTMENT_PATH)
    question = Question(scope=TenantName(tenant), period=period, dimensions=dimensions, days=days, reach=reach)
    try:
        plan = await read_plan(session, question)
    except RecordsDropped:
        return []
    facts = union_all(*usage_facts(question, plan)).subquery("facts")
    keys = [facts.c[name] for name in key_columns(dimensions) if name != "department"]
    query = select(*keys, func.sum(facts.c.cost_nanos).label("cost_nanos")).group_by(*keys).order_by(*keys)
    return [
        DailyCost(days[row.day - 1].date, tuple(row.department_path), int(row.cost_nanos))
        for row in await fetch_rows(session, query)
    ]
