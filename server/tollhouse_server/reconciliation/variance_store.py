"""The SQL of differences and of what tenants are charged for them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.integrity import closed_months
from tollhouse_server.database.rows import run_sql
from tollhouse_server.errors import ResourceNotFound
from tollhouse_server.names import BillReconciliationName, BillVarianceName
from tollhouse_server.reconciliation.variances import Compared, Finding, LineKey, Reason, Variance


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """How a month of the bill compares to the ledger. Nano-dollars; `billed_nanos` is without credits."""

    month: str
    booked_nanos: int
    billed_nanos: int
    credits_nanos: int
    unexplained_nanos: int
    compared_count: int
    variance_count: int
    blocking_count: int
    newest_export: datetime | None
    sku_map_version: int
    run_by: str
    run_at: datetime

    @property
    def name(self) -> str:
        """Return the resource name."""
        return str(BillReconciliationName(self.month))


@dataclass(frozen=True, slots=True, kw_only=True)
class VarianceFilter:
    """Which differences are asked for; None and empty texts ask for all."""

    month: str
    project: str = ""
    model: str = ""
    reason: str = ""
    state: str = ""
    blocking: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A tenant's part of what was accepted. `basis_nanos` is the use that it was reckoned from."""

    tenant_id: str
    amount_nanos: int
    basis_nanos: int


_MONEY: Final = ("booked_nanos", "billed_nanos", "credits_nanos", "unexplained_nanos")
_SAVE_RECONCILIATION = """
INSERT INTO bill_reconciliation AS r (month, booked_nanos, billed_nanos, credits_nanos, unexplained_nanos,
    compared_count, variance_count, blocking_count, newest_export, sku_map_version, run_by)
VALUES (:month, :booked_nanos, :billed_nanos, :credits_nanos, :unexplained_nanos, :compared_count, :variance_count,
    :blocking_count, :newest_export, :sku_map_version, :run_by)
ON CONFLICT (month) DO UPDATE SET booked_nanos = excluded.booked_nanos, billed_nanos = excluded.billed_nanos,
    credits_nanos = excluded.credits_nanos, unexplained_nanos = excluded.unexplained_nanos,
    compared_count = excluded.compared_count, variance_count = excluded.variance_count,
    blocking_count = excluded.blocking_count, newest_export = excluded.newest_export,
    sku_map_version = excluded.sku_map_version, run_by = excluded.run_by, run_at = clock_timestamp()
RETURNING *
"""

# What was accepted stays accepted; a difference that has become another one since is open again by the difference.
_SAVE_VARIANCES = """
INSERT INTO bill_variance AS v (variance_id, month, day, project, model, sku, google_sku, booked_nanos, billed_nanos,
    credits_nanos, booked_quantity, billed_quantity, reasons, unexplained_nanos, concerns_all, is_blocking, state)
SELECT l.*, 'OPEN' FROM jsonb_to_recordset(CAST(:lines AS jsonb)) AS l (variance_id text, month text, day date,
    project text, model text, sku text, google_sku text, booked_nanos numeric, billed_nanos numeric,
    credits_nanos numeric, booked_quantity numeric, billed_quantity numeric, reasons jsonb, unexplained_nanos numeric,
    concerns_all boolean, is_blocking boolean)
ON CONFLICT (variance_id) DO UPDATE SET google_sku = excluded.google_sku, booked_nanos = excluded.booked_nanos,
    billed_nanos = excluded.billed_nanos, credits_nanos = excluded.credits_nanos,
    booked_quantity = excluded.booked_quantity, billed_quantity = excluded.billed_quantity,
    reasons = excluded.reasons, unexplained_nanos = excluded.unexplained_nanos, concerns_all = excluded.concerns_all,
    is_blocking = excluded.is_blocking AND NOT (v.acceptance_count > 0
        AND v.accepted_nanos = excluded.billed_nanos + excluded.credits_nanos - excluded.booked_nanos),
    state = CASE WHEN v.acceptance_count > 0
        AND v.accepted_nanos = excluded.billed_nanos + excluded.credits_nanos - excluded.booked_nanos
        THEN 'ACCEPTED' ELSE 'OPEN' END,
    version = v.version + 1
"""

# A difference that has gone, but was charged, is one the other way round.
_FORGET_OTHERS = """
UPDATE bill_variance SET state = CASE WHEN accepted_nanos = 0 THEN 'GONE' ELSE 'OPEN' END, booked_nanos = billed_nanos,
    credits_nanos = 0, reasons = '[]', unexplained_nanos = 0, is_blocking = false, version = version + 1
WHERE month = :month AND variance_id <> ALL(CAST(:kept AS text[])) AND state <> 'GONE'
"""

_LIST = """
SELECT * FROM bill_variance
WHERE month = :month AND (day, variance_id) > (:day, :after) AND state <> 'GONE'
    AND (:project = '' OR project = :project) AND (:model = '' OR model = :model)
    AND (:state = '' OR state = :state) AND (CAST(:blocking AS boolean) IS NULL OR is_blocking = :blocking)
    AND (:reason = '' OR reasons @> jsonb_build_array(jsonb_build_object('reason', CAST(:reason AS text))))
ORDER BY day, variance_id LIMIT :size
"""

_ACCEPT = """
UPDATE bill_variance SET state = 'ACCEPTED', accepted_nanos = :accepted_nanos, is_blocking = false,
    acceptance_count = acceptance_count + 1, accepted_by = :by, acceptance_reason = :reason,
    accepted_at = clock_timestamp(), version = version + 1
WHERE variance_id = :variance_id RETURNING *
"""

_CHARGE = """
INSERT INTO bill_true_up (tenant_id, variance_id, acceptance, effective_day, amount_nanos, basis_nanos, reason,
    accepted_by)
SELECT s.tenant_id, :variance_id, :acceptance, :day, s.amount_nanos, s.basis_nanos, :reason, :by
FROM jsonb_to_recordset(CAST(:shares AS jsonb)) AS s (tenant_id text, amount_nanos bigint, basis_nanos bigint)
"""

# A difference concerns who has used the project within the month; what nobody is known to have used concerns everybody.
_BLOCKING = """
SELECT v.* FROM bill_variance v
WHERE v.is_blocking AND v.day >= :first AND v.day < :last AND (v.concerns_all OR EXISTS (
    SELECT FROM upstream_use u
    WHERE u.tenant_id = :tenant AND u.day >= :first AND u.day < :last AND u.project = v.project))
ORDER BY v.day, v.variance_id
"""

_TRUE_UPS = """
SELECT t.variance_id, t.amount_nanos, t.basis_nanos, t.reason, v.model
FROM bill_true_up t JOIN bill_variance v USING (variance_id)
WHERE t.tenant_id = :tenant AND t.effective_day >= :first AND t.effective_day < :last AND t.amount_nanos <> 0
ORDER BY v.day, t.variance_id, t.acceptance
"""


def variance_id(key: LineKey) -> str:
    """Return the id of a difference: the same in every reconciliation of its month."""
    text = json.dumps([key.day.isoformat(), *key.series])
    return f"v-{hashlib.sha256(text.encode()).hexdigest()[:24]}"


async def save_reconciliation(session: AsyncSession, values: Mapping[str, object]) -> Reconciliation:
    """Keep the result of a month, in place of an earlier one."""
    return _reconciliation((await run_sql(session, _SAVE_RECONCILIATION, values)).one())


async def get_reconciliation(session: AsyncSession, month: str) -> Reconciliation:
    """Return the result of a month.

    Raises:
        ResourceNotFound: it was not reconciled.
    """
    query = "SELECT * FROM bill_reconciliation WHERE month = :month"
    row = (await run_sql(session, query, {"month": month})).one_or_none()
    if row is None:
        raise ResourceNotFound(name=str(BillReconciliationName(month)))
    return _reconciliation(row)


async def list_reconciliations(session: AsyncSession, *, after: str, size: int) -> list[Reconciliation]:
    """Return up to `size` results, the oldest month first, of months after `after`."""
    query = "SELECT * FROM bill_reconciliation WHERE month > :after ORDER BY month LIMIT :size"
    return [_reconciliation(row) for row in (await run_sql(session, query, {"after": after, "size": size})).all()]


async def save_variances(
    session: AsyncSession, month: str, lines: Sequence[Compared], blocking: frozenset[LineKey]
) -> None:
    """Keep the differences of a month in place of those of an earlier reconciliation."""
    documents = [_document(month, line, is_blocking=line.key in blocking) for line in lines]
    await run_sql(session, _SAVE_VARIANCES, {"lines": json.dumps(documents)})
    kept = [document["variance_id"] for document in documents]
    await run_sql(session, _FORGET_OTHERS, {"month": month, "kept": kept})


async def set_blocking_count(session: AsyncSession, month: str) -> None:
    """Write to the result of a month how many differences block it now."""
    update = """
UPDATE bill_reconciliation SET blocking_count =
    (SELECT count(*) FROM bill_variance v WHERE v.month = :month AND v.is_blocking)
WHERE month = :month
"""
    await run_sql(session, update, {"month": month})


async def list_variances(
    session: AsyncSession, wanted: VarianceFilter, *, after: tuple[date, str], size: int
) -> list[Variance]:
    """Return up to `size` differences behind a day and id, by day."""
    values = {
        "month": wanted.month,
        "project": wanted.project,
        "model": wanted.model,
        "reason": wanted.reason,
        "state": wanted.state,
        "blocking": wanted.blocking,
        "day": after[0],
        "after": after[1],
        "size": size,
    }
    return [_variance(row) for row in (await run_sql(session, _LIST, values)).all()]


async def get_variance(session: AsyncSession, name: BillVarianceName, *, lock: bool = False) -> Variance:
    """Return a difference.

    Raises:
        ResourceNotFound: there is none.
    """
    query = "SELECT * FROM bill_variance WHERE variance_id = :id"
    if lock:
        query += " FOR UPDATE"
    row = (await run_sql(session, query, {"id": name.bill_variance})).one_or_none()
    if row is None:
        raise ResourceNotFound(name=str(name))
    return _variance(row)


async def save_acceptance(session: AsyncSession, variance: Variance, *, by: str, reason: str) -> Variance:
    """Write to a locked difference that all of it is accepted."""
    values = {
        "variance_id": variance.variance_id,
        "accepted_nanos": variance.line.variance_nanos,
        "by": by,
        "reason": reason,
    }
    return _variance((await run_sql(session, _ACCEPT, values)).one())


async def charge(session: AsyncSession, accepted: Variance, shares: Sequence[Share], *, day: date) -> None:
    """Write what tenants are charged for an accepted difference, in the period that `day` is in.

    Raises:
        PeriodClosed: that period of one of them is closed; a later day takes the charge into a later one.
    """
    documents = [
        {"tenant_id": one.tenant_id, "amount_nanos": one.amount_nanos, "basis_nanos": one.basis_nanos} for one in shares
    ]
    values = {
        "variance_id": accepted.variance_id,
        "acceptance": accepted.acceptance_count,
        "day": day,
        "reason": accepted.acceptance_reason,
        "by": accepted.accepted_by,
        "shares": json.dumps(documents),
    }
    with closed_months():
        await run_sql(session, _CHARGE, values)


async def list_blocking(session: AsyncSession, tenant: str, first: date, last: date) -> list[Variance]:
    """Return the differences that keep a tenant's month from being closed."""
    values = {"tenant": tenant, "first": first, "last": last}
    return [_variance(row) for row in (await run_sql(session, _BLOCKING, values)).all()]


async def list_true_ups(session: AsyncSession, tenant: str, first: date, last: date) -> Sequence[Any]:
    """Return rows of what a tenant is charged in a period that begins with the day `first`."""
    return (await run_sql(session, _TRUE_UPS, {"tenant": tenant, "first": first, "last": last})).all()


def _document(month: str, line: Compared, *, is_blocking: bool) -> dict[str, object]:
    return {
        "variance_id": variance_id(line.key),
        "month": month,
        "day": line.key.day.isoformat(),
        "project": line.key.project,
        "model": line.key.model,
        "sku": line.key.sku,
        "google_sku": line.google_sku,
        "booked_nanos": line.booked_nanos,
        "billed_nanos": line.billed_nanos,
        "credits_nanos": line.credits_nanos,
        "booked_quantity": line.booked_quantity,
        "billed_quantity": line.billed_quantity,
        "unexplained_nanos": line.unexplained_nanos,
        "concerns_all": line.concerns_all,
        "is_blocking": is_blocking,
        "reasons": [
            {"reason": one.reason.value, "amount_nanos": one.amount_nanos, "detail": one.detail}
            for one in line.findings
        ],
    }


def _variance(row: Any) -> Variance:
    findings = tuple(
        Finding(reason=Reason(one["reason"]), amount_nanos=one["amount_nanos"], detail=one["detail"])
        for one in row.reasons
    )
    line = Compared(
        key=LineKey(day=row.day, project=row.project, model=row.model, sku=row.sku),
        google_sku=row.google_sku,
        booked_nanos=int(row.booked_nanos),
        billed_nanos=int(row.billed_nanos),
        credits_nanos=int(row.credits_nanos),
        booked_quantity=int(row.booked_quantity),
        billed_quantity=int(row.billed_quantity),
        findings=findings,
        concerns_all=row.concerns_all,
    )
    return Variance(
        line=line,
        unexplained_nanos=int(row.unexplained_nanos),
        accepted_nanos=int(row.accepted_nanos),
        **{
            name: getattr(row, name)
            for name in (
                *("variance_id", "month", "acceptance_count", "is_blocking", "state", "accepted_by"),
                *("acceptance_reason", "accepted_at", "version"),
            )
        },
    )


def _reconciliation(row: Any) -> Reconciliation:
    values = dict(row._mapping)
    return Reconciliation(**values | {name: int(values[name]) for name in _MONEY})
