"""The SQL of what is compared: the ledger's records by Google project and day, and the lines of the bill.

A record is of the day on which its call was sent to Google, so that what was corrected later still meets the line of
the bill that it was for. On-premises models are not Google's, and neither is what the way to it costs on top.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import Date, String, cast, column, func, insert, or_, select, table
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.rows import run_sql
from tollhouse_server.ledger.terms import RecordKind
from tollhouse_server.ledger.windows import midnight
from tollhouse_server.pricing.skus import RELAY_SURCHARGE
from tollhouse_server.reconciliation.dates import PACIFIC
from tollhouse_server.reporting.facts import record_parts
from tollhouse_server.reporting.tables import RECORD
from tollhouse_server.upstream.protocol import UpstreamKind

CORRECTED_WITHIN: Final = timedelta(days=62)
"""Corrections of a call that come later than this after its month are not looked for."""

_ACCOUNT: Final = table("account", column("account_id", String), column("project", String), column("kind", String))
_COLUMNS: Final = ("tenant_id", "day", "project", "model", "sku", "calls", "quantity", "cost_nanos")
_USE: Final = table("upstream_use", *(column(name) for name in _COLUMNS))


@dataclass(frozen=True, slots=True, kw_only=True)
class BookedUse:
    """What the ledger booked for one Google project, model, SKU and day, of all tenants or of one."""

    tenant_id: str
    day: date
    project: str
    model: str
    sku: str
    calls: int
    quantity: int
    cost_nanos: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BilledUse:
    """The lines of the bill for one Google project, SKU, day, currency and kind of cost, added up.

    `doubled_nanos` is what lines cost that are there more than once, all but the first. `paid_quantity` is the
    quantity of lines that cost something.
    """

    day: date
    project: str
    service_id: str
    service: str
    sku_id: str
    sku: str
    cost_type: str
    currency: str
    lines: int
    quantity: Decimal
    paid_quantity: Decimal
    cost_nanos: Decimal
    credits_nanos: Decimal
    free_nanos: Decimal
    doubled_nanos: Decimal
    doubled_quantity: Decimal
    newest_export: datetime


# Two lines of one use that differ in nothing, or in the time of their export alone, are one line twice.
_BILLED = """
WITH numbered AS (
    SELECT l.*, row_number() OVER (PARTITION BY usage_digest ORDER BY export_time, occurrence) > 1 AS is_again
    FROM bill_line l WHERE day >= :first AND day < :last
)
SELECT day, project, service_id, service, sku_id, sku, cost_type, currency, count(*) AS lines,
    sum(quantity) AS quantity, coalesce(sum(quantity) FILTER (WHERE cost <> 0), 0) AS paid_quantity,
    sum(cost_nanos) AS cost_nanos, sum(credits_nanos) AS credits_nanos, sum(free_nanos) AS free_nanos,
    coalesce(sum(cost_nanos) FILTER (WHERE is_again), 0) AS doubled_nanos,
    coalesce(sum(quantity) FILTER (WHERE is_again), 0) AS doubled_quantity,
    max(export_time) AS newest_export
FROM numbered
GROUP BY day, project, service_id, service, sku_id, sku, cost_type, currency
ORDER BY day, project, sku_id, cost_type, currency
"""

_OF_ALL = """
SELECT '' AS tenant_id, day, project, model, sku, sum(calls) AS calls, sum(quantity) AS quantity,
    sum(cost_nanos) AS cost_nanos
FROM upstream_use WHERE day >= :first AND day < :last GROUP BY day, project, model, sku
ORDER BY day, project, model, sku
"""


async def rebuild_use(session: AsyncSession, first: date, last: date) -> None:
    """Read from the records anew what was booked on the days from `first` to before `last`, of all tenants."""
    await run_sql(session, "DELETE FROM upstream_use WHERE day >= :first AND day < :last", _days(first, last))
    parts = record_parts(_splits(), _sent_within(first, last)).subquery("parts")
    part, account = parts.c, _ACCOUNT.c
    project = func.coalesce(func.nullif(account.project, ""), part.account_id)
    key = (part.tenant_id, part.day, project, part.model, part.sku)
    made = (
        select(
            *key,
            func.sum(part.part_calls),
            func.sum(part.quantity),
            func.sum(part.part_nanos),
        )
        .select_from(parts.outerjoin(_ACCOUNT, account.account_id == part.account_id))
        .where(
            part.sku != RELAY_SURCHARGE,
            func.coalesce(account.kind, "") != UpstreamKind.OPENAI_COMPATIBLE.value,
            part.account_id != "",
        )
        .group_by(*key)
    )
    connection = await session.connection()
    await connection.execute(insert(_USE).from_select(_COLUMNS, made))


def _splits() -> dict[str, Any]:
    record = RECORD.c
    return {
        "tenant_id": record.tenant_id,
        "day": cast(func.timezone(str(PACIFIC), record.dispatched_at), Date),
        "account_id": record.account_id,
        "model": record.model,
    }


def _sent_within(first: date, last: date) -> list[Any]:
    record = RECORD.c
    start, end = midnight(first, PACIFIC), midnight(last, PACIFIC)
    return [
        record.settled_at >= start,
        record.settled_at < end + CORRECTED_WITHIN,
        record.dispatched_at >= start,
        record.dispatched_at < end,
        record.kind != RecordKind.REFUSED.value,
        or_(record.cost_nanos != 0, func.jsonb_array_length(record.lines) > 0),
    ]


async def booked_use(session: AsyncSession, first: date, last: date) -> list[BookedUse]:
    """Return what was booked on the days, of all tenants together."""
    return [_booked(row) for row in (await run_sql(session, _OF_ALL, _days(first, last))).all()]


async def billed_use(session: AsyncSession, first: date, last: date) -> list[BilledUse]:
    """Return the bill's lines of the days, added up."""
    return [BilledUse(**row._mapping) for row in (await run_sql(session, _BILLED, _days(first, last))).all()]


async def project_use(session: AsyncSession, first: date, last: date, project: str) -> list[BookedUse]:
    """Return what each tenant used of a Google project on the days."""
    sql = """
SELECT tenant_id, day, project, model, sku, calls, quantity, cost_nanos
FROM upstream_use WHERE day >= :first AND day < :last AND project = :project
ORDER BY tenant_id, day, model, sku
"""
    return [_booked(row) for row in (await run_sql(session, sql, _days(first, last) | {"project": project})).all()]


def _days(first: date, last: date) -> dict[str, object]:
    return {"first": first, "last": last}


def _booked(row: Any) -> BookedUse:
    values = dict(row._mapping)
    counts = {name: int(values[name]) for name in ("calls", "quantity", "cost_nanos")}
    return BookedUse(**values | counts)
