"""Suspense as administrators see it: list it, and resolve it with an adjustment on every counter it went into."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Row
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.rows import run_sql
from tollhouse_server.errors import ResourceNotFound, WrongState
from tollhouse_server.ledger.rows import holds_of
from tollhouse_server.ledger.terms import NOTHING, Amounts, Hold, Metric
from tollhouse_server.names import DepartmentName, ProjectName, Scope, SuspenseName


class Resolution(StrEnum):
    """How an administrator resolves suspense: what is booked stands, it cost nothing, or it came to what he says."""

    ACCEPT = "ACCEPT"
    VOID = "VOID"
    ACTUAL = "ACTUAL"


LATE = "LATE"
"""How suspense was resolved that its own worker settled after all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspenseEntry:
    """An attempt in suspense. `resolution` is a Resolution, or LATE; None while it is open.

    `outcome` is what the attempt came to, once it is resolved.
    """

    name: SuspenseName
    cause: str
    worker_epoch: int
    dispatched_at: datetime
    suspended_at: datetime
    request_id: UUID
    department_path: tuple[str, ...]
    project_id: str
    principal_id: str
    tier: str
    model: str
    account_id: str
    method: str
    booked: Amounts
    ceiling_nanos: int
    holds: tuple[Hold, ...]
    resolution: str | None
    resolved_at: datetime | None
    resolved_by: str
    reason: str
    outcome: Amounts | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspenseFilter:
    """Which suspense to list. `cause` also finds causes that begin with it and a colon."""

    show_resolved: bool = False
    cause: str = ""
    suspended_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class SuspensePosition:
    """A place in a list of suspense."""

    suspended_at: datetime
    attempt_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What an administrator has found. `actual` is what it came to, for ACTUAL only."""

    resolution: Resolution
    actual: Amounts | None
    resolved_by: str
    reason: str

    def outcome(self, booked: Amounts) -> Amounts:
        """Return what an attempt came to that is booked with `booked`."""
        match self.resolution:
            case Resolution.ACCEPT:
                return booked
            case Resolution.VOID:
                return NOTHING
            case Resolution.ACTUAL:
                if self.actual is None:
                    raise ValueError("ACTUAL without what it came to")
                return self.actual

    def noted(self) -> str:
        """Return the ruling as the suspense row keeps it, with what was found, so that it can be verified."""
        if self.actual is None:
            return self.resolution
        found = " ".join(f"{name}={value}" for name, value in self.actual._asdict().items())
        return f"{self.resolution} {found}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterChange:
    """What an adjustment did to one counter, in the unit of its limit's metric."""

    limit: str
    metric: Metric
    window_start: datetime
    settled_before: int
    settled_after: int


_ENTRIES = """
SELECT s.tenant_id, s.attempt_id, s.suspended_at, s.worker_epoch, s.cause, s.requests, s.input_tokens, s.output_tokens,
    s.images, s.cost_nanos, s.resolved_at, s.resolution, s.resolved_by, s.reason, r.request_id, r.dispatched_at,
    r.department_path, r.project_id, r.principal_id, r.tier, r.model, r.account_id, r.method, r.ceiling_nanos,
    r.holds::text AS holds, later.*
FROM suspense s
JOIN usage_record r ON r.tenant_id = s.tenant_id AND r.attempt_id = s.attempt_id AND r.kind = 'SUSPENSE'
LEFT JOIN LATERAL (
    SELECT sum(a.requests) AS more_requests, sum(a.input_tokens) AS more_input_tokens,
        sum(a.output_tokens) AS more_output_tokens, sum(a.images) AS more_images, sum(a.cost_nanos) AS more_cost_nanos
    FROM usage_record a
    WHERE a.tenant_id = s.tenant_id AND a.attempt_id = s.attempt_id AND a.kind = 'ADJUSTMENT'
) AS later ON s.resolved_at IS NOT NULL
WHERE s.tenant_id = :tenant
"""

_ONE = f"{_ENTRIES} AND s.attempt_id = :attempt"

_OLDEST_FIRST = " ORDER BY s.suspended_at, s.attempt_id LIMIT :size"

# In key order, as ticks lock them; and before the row of suspense, which ticks take last.
_LOCK_COUNTERS = """
SELECT c.limit_id, extract(epoch FROM c.window_start)::bigint AS window_start, c.settled
FROM unnest(CAST(:limits AS bigint[]), CAST(:starts AS bigint[])) AS wanted (limit_id, window_start)
JOIN counter c ON c.tenant_id = :tenant AND c.limit_id = wanted.limit_id
    AND c.window_start = to_timestamp(wanted.window_start)
ORDER BY c.tenant_id COLLATE "C", c.limit_id, c.window_start
FOR NO KEY UPDATE OF c
"""

_LOCK_OPEN = """
SELECT resolved_at FROM suspense WHERE tenant_id = :tenant AND attempt_id = :attempt FOR NO KEY UPDATE
"""

# What rises may pass a threshold: the next tick on the counter looks again.
_MOVE_COUNTERS = """
UPDATE counter c SET settled = c.settled + moved.amount,
    alert_at = CASE WHEN moved.amount > 0 THEN 0 ELSE c.alert_at END
FROM unnest(CAST(:limits AS bigint[]), CAST(:starts AS bigint[]), CAST(:amounts AS bigint[]))
    AS moved (limit_id, window_start, amount)
WHERE c.tenant_id = :tenant AND c.limit_id = moved.limit_id AND c.window_start = to_timestamp(moved.window_start)
"""

_ADJUST = """
INSERT INTO usage_record (tenant_id, attempt_id, settled_at, kind, request_id, dispatched_at, worker_epoch,
    department_path, project_id, credential_id, principal_id, method, tier, model, account_id, labels, price_version,
    requests, input_tokens, output_tokens, images, cost_nanos, ceiling_nanos, usage, lines, outcome, response_id, holds,
    correlation_id)
SELECT tenant_id, attempt_id, :now, 'ADJUSTMENT', request_id, dispatched_at, worker_epoch, department_path, project_id,
    credential_id, principal_id, method, tier, model, account_id, labels, price_version, :requests, :input_tokens,
    :output_tokens, :images, :cost_nanos, ceiling_nanos, '{}', '[]', :outcome, response_id, holds, correlation_id
FROM usage_record WHERE tenant_id = :tenant AND attempt_id = :attempt AND kind = 'SUSPENSE'
"""

_CLOSE = """
UPDATE suspense SET resolved_at = :now, resolution = :resolution, resolved_by = :resolved_by, reason = :reason
WHERE tenant_id = :tenant AND attempt_id = :attempt
"""


async def list_suspense(
    session: AsyncSession,
    scope: Scope,
    wanted: SuspenseFilter,
    *,
    after: SuspensePosition | None,
    size: int,
) -> list[SuspenseEntry]:
    """Return up to `size` attempts of a scope that come behind `after`, the longest suspended first."""
    sql, values = _ENTRIES, {"tenant": scope.tenant, "size": size}
    for condition, bound in _conditions(scope, wanted, after):
        sql, values = f"{sql} AND {condition}", values | bound
    found = await run_sql(session, sql + _OLDEST_FIRST, values)
    return [_entry(row) for row in found]


def _conditions(
    scope: Scope, wanted: SuspenseFilter, after: SuspensePosition | None
) -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, dict[str, Any]]] = []
    if isinstance(scope, ProjectName):
        leaf = "r.department_path[cardinality(r.department_path)] = :department AND r.project_id = :project"
        found.append((leaf, {"department": scope.department, "project": scope.project}))
    elif isinstance(scope, DepartmentName):
        found.append((":department = ANY (r.department_path)", {"department": scope.department}))
    if not wanted.show_resolved:
        found.append(("s.resolved_at IS NULL", {}))
    if wanted.cause:
        found.append(("(s.cause = :cause OR starts_with(s.cause, :cause || ':'))", {"cause": wanted.cause}))
    if wanted.suspended_before is not None:
        found.append(("s.suspended_at < :before", {"before": wanted.suspended_before}))
    if after is not None:
        behind = {"after_at": after.suspended_at, "after_id": after.attempt_id}
        found.append(("(s.suspended_at, s.attempt_id) > (:after_at, :after_id)", behind))
    return found


async def get_suspense(session: AsyncSession, name: SuspenseName) -> SuspenseEntry:
    """Return one attempt that is or was in suspense.

    Raises:
        ResourceNotFound: there is none of this id.
    """
    row = (await run_sql(session, _ONE, _key(name))).one_or_none()
    if row is None:
        raise ResourceNotFound(name=str(name))
    return _entry(row)


async def resolve(
    session: AsyncSession, entry: SuspenseEntry, ruling: Ruling
) -> tuple[SuspenseEntry, list[CounterChange]]:
    """Book the adjustment that `ruling` amounts to and close the row; return it with the counters that moved.

    Raises:
        WrongState: it is resolved already, by an administrator or by a worker that was only slow.
    """
    # The ledger's clock first, as ticks take it: then no roll-up can end between it and the record.
    now: datetime = (await run_sql(session, "SELECT ledger_now()")).scalar_one()
    difference = ruling.outcome(entry.booked).minus(entry.booked)
    changes = await _move_counters(session, entry, difference)
    locked = (await run_sql(session, _LOCK_OPEN, _key(entry.name))).one()
    if locked.resolved_at is not None:
        raise WrongState(name=str(entry.name), state="RESOLVED", needed="OPEN")
    key = _key(entry.name) | {"now": now}
    outcome = f"{ruling.resolution} by {ruling.resolved_by}"
    await run_sql(session, _ADJUST, key | difference._asdict() | {"outcome": outcome})
    closed = {"resolution": ruling.noted(), "resolved_by": ruling.resolved_by, "reason": ruling.reason}
    await run_sql(session, _CLOSE, key | closed)
    return await get_suspense(session, entry.name), changes


async def _move_counters(session: AsyncSession, entry: SuspenseEntry, difference: Amounts) -> list[CounterChange]:
    """Lock the counters that the attempt went into, in key order, and move them by a difference."""
    columns: dict[str, Any] = {
        "tenant": entry.name.tenant,
        "limits": [hold.key.limit_id for hold in entry.holds],
        "starts": [hold.key.window_start for hold in entry.holds],
    }
    locked = (await run_sql(session, _LOCK_COUNTERS, columns)).all()
    await run_sql(session, _MOVE_COUNTERS, columns | {"amounts": [difference.of(hold.metric) for hold in entry.holds]})
    metrics = {(hold.key.limit_id, hold.key.window_start): hold.metric for hold in entry.holds}
    names = await _limit_names(session, entry.name.tenant, columns["limits"])
    return [
        CounterChange(
            limit=names[row.limit_id],
            metric=metrics[(row.limit_id, row.window_start)],
            window_start=datetime.fromtimestamp(row.window_start, UTC),
            settled_before=row.settled,
            settled_after=row.settled + difference.of(metrics[(row.limit_id, row.window_start)]),
        )
        for row in locked
        # A limit on calls in flight has nothing settled.
        if metrics[(row.limit_id, row.window_start)] is not Metric.CONCURRENCY
    ]


async def _limit_names(session: AsyncSession, tenant: str, limits: Sequence[int]) -> dict[int, str]:
    query = "SELECT limit_id, name FROM usage_limit WHERE tenant_id = :tenant AND limit_id = ANY (:limits)"
    return {row.limit_id: row.name for row in await run_sql(session, query, {"tenant": tenant, "limits": limits})}


def _key(name: SuspenseName) -> dict[str, Any]:
    return {"tenant": name.tenant, "attempt": UUID(name.attempt)}


def _entry(row: Row[Any]) -> SuspenseEntry:
    booked = Amounts(row.requests, row.input_tokens, row.output_tokens, row.images, row.cost_nanos)
    more = (row.more_requests, row.more_input_tokens, row.more_output_tokens, row.more_images, row.more_cost_nanos)
    is_open = row.resolved_at is None
    return SuspenseEntry(
        name=SuspenseName(row.tenant_id, str(row.attempt_id)),
        cause=row.cause,
        worker_epoch=row.worker_epoch,
        dispatched_at=row.dispatched_at,
        suspended_at=row.suspended_at,
        request_id=row.request_id,
        department_path=tuple(row.department_path),
        project_id=row.project_id,
        principal_id=row.principal_id,
        tier=row.tier,
        model=row.model,
        account_id=row.account_id,
        method=row.method,
        booked=booked,
        ceiling_nanos=row.ceiling_nanos,
        holds=holds_of(row.tenant_id, row.holds),
        resolution=None if is_open else _resolution(row.resolution),
        resolved_at=row.resolved_at,
        resolved_by=row.resolved_by,
        reason=row.reason,
        # Sums are numeric; of no adjustment there is none.
        outcome=None if is_open else booked.plus(Amounts(*(int(one or 0) for one in more))),
    )


def _resolution(noted: str) -> str:
    word = noted.split(" ", 1)[0]
    return word if word in tuple(Resolution) else LATE
