"""The tick's SQL, on one raw asyncpg connection: arrays in, rows out, a fixed number of statements per tick.

Everything that locks rows does it in key order, so that two ticks that meet on the same rows cannot deadlock.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, TypeAlias
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg

from tollhouse_server.ledger.terms import (
    Amounts,
    Calendar,
    CallTerms,
    CounterKey,
    Hold,
    LimitDefinition,
    Metric,
    RecordKind,
    Reservation,
    Scope,
    Settlement,
    Window,
)

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]


@dataclass(frozen=True, slots=True, kw_only=True)
class Booking:
    """One usage record to append, and the suspense row that goes with it when `settlement.kind` is SUSPENSE."""

    reservation: Reservation
    settlement: Settlement
    worker_epoch: int


_CLOCK = "SELECT value, clock_timestamp() AS now FROM epoch WHERE topic = 'limits'"

_DEFINITIONS = """
SELECT l.tenant_id, l.scope, l.limit_id, l.name, l.metric, l."window", l.selector, l.amount, t.time_zone,
    t.fiscal_month_start_day
FROM unnest($1::text[], $2::text[]) AS wanted (tenant_id, scope)
JOIN usage_limit l ON l.tenant_id = wanted.tenant_id AND l.scope = wanted.scope AND l.state = 'ACTIVE'
JOIN tenant t ON t.tenant_id = l.tenant_id
"""

_CREATE_COUNTERS = """
INSERT INTO counter (tenant_id, limit_id, window_start)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::timestamptz[]) AS wanted ORDER BY 1, 2, 3
ON CONFLICT DO NOTHING
"""

_LOCK_COUNTERS = """
SELECT c.tenant_id, c.limit_id, c.window_start, c.held, c.settled
FROM unnest($1::text[], $2::bigint[], $3::timestamptz[]) AS wanted (tenant_id, limit_id, window_start)
JOIN counter c USING (tenant_id, limit_id, window_start)
ORDER BY c.tenant_id, c.limit_id, c.window_start
FOR NO KEY UPDATE OF c
"""

_MOVE_COUNTERS = """
UPDATE counter c SET held = c.held + moved.held, settled = c.settled + moved.settled
FROM unnest($1::text[], $2::bigint[], $3::timestamptz[], $4::bigint[], $5::bigint[])
    AS moved (tenant_id, limit_id, window_start, held, settled)
WHERE c.tenant_id = moved.tenant_id AND c.limit_id = moved.limit_id AND c.window_start = moved.window_start
"""

_SEEN_KEYS = """
SELECT k.tenant_id, k.request_id, k.fingerprint, k.attempt_id
FROM unnest($1::text[], $2::uuid[]) AS wanted (tenant_id, request_id)
JOIN request_key k USING (tenant_id, request_id)
"""

_CLAIM_KEYS = """
INSERT INTO request_key (tenant_id, request_id, fingerprint, attempt_id)
SELECT * FROM unnest($1::text[], $2::uuid[], $3::bytea[], $4::uuid[]) AS claimed ORDER BY 1, 2
ON CONFLICT DO NOTHING
RETURNING attempt_id
"""

_CALL_STATE = """
SELECT coalesce(
    (SELECT 'DISPATCHED' FROM request_key k JOIN attempt a USING (tenant_id, request_id)
     WHERE k.tenant_id = $1 AND k.request_id = $2 LIMIT 1),
    (SELECT r.kind FROM request_key k JOIN usage_record r USING (tenant_id, attempt_id)
     WHERE k.tenant_id = $1 AND k.request_id = $2 ORDER BY r.settled_at DESC LIMIT 1),
    'UNKNOWN')
"""

_INSERT_ATTEMPTS = """
INSERT INTO attempt (tenant_id, attempt_id, request_id, worker_epoch, department_path, project_id, credential_id,
    principal_id, method, tier, model, account_id, labels, price_version, input_tokens, output_tokens, images,
    ceiling_nanos, holds)
SELECT tenant_id, attempt_id, request_id, worker_epoch, department_path::text[], project_id, credential_id,
    principal_id, method, tier, model, account_id, labels::jsonb, price_version, input_tokens, output_tokens, images,
    ceiling_nanos, holds::jsonb
FROM unnest($1::text[], $2::uuid[], $3::uuid[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[],
    $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::bigint[], $15::bigint[], $16::bigint[],
    $17::bigint[], $18::bigint[], $19::text[])
AS new (tenant_id, attempt_id, request_id, worker_epoch, department_path, project_id, credential_id, principal_id,
    method, tier, model, account_id, labels, price_version, input_tokens, output_tokens, images, ceiling_nanos, holds)
"""

_END_ATTEMPTS = """
DELETE FROM attempt a USING unnest($1::text[], $2::uuid[]) AS ended (tenant_id, attempt_id)
WHERE a.tenant_id = ended.tenant_id AND a.attempt_id = ended.attempt_id
RETURNING a.attempt_id
"""

_LOAD_ATTEMPTS = """
SELECT a.* FROM unnest($1::text[], $2::uuid[]) AS wanted (tenant_id, attempt_id)
JOIN attempt a USING (tenant_id, attempt_id)
"""

_INSERT_RECORDS = """
INSERT INTO usage_record (tenant_id, attempt_id, settled_at, kind, request_id, dispatched_at, worker_epoch,
    department_path, project_id, credential_id, principal_id, method, tier, model, account_id, labels, price_version,
    requests, input_tokens, output_tokens, images, cost_nanos, ceiling_nanos, usage, lines, outcome, response_id)
SELECT tenant_id, attempt_id, $27, kind, request_id, dispatched_at, worker_epoch, department_path::text[], project_id,
    credential_id, principal_id, method, tier, model, account_id, labels::jsonb, price_version, requests,
    input_tokens, output_tokens, images, cost_nanos, ceiling_nanos, usage::jsonb, lines::jsonb, outcome, response_id
FROM unnest($1::text[], $2::uuid[], $3::text[], $4::uuid[], $5::timestamptz[], $6::bigint[], $7::text[], $8::text[],
    $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::bigint[],
    $17::bigint[], $18::bigint[], $19::bigint[], $20::bigint[], $21::bigint[], $22::bigint[], $23::text[],
    $24::text[], $25::text[], $26::text[])
AS new (tenant_id, attempt_id, kind, request_id, dispatched_at, worker_epoch, department_path, project_id,
    credential_id, principal_id, method, tier, model, account_id, labels, price_version, requests, input_tokens,
    output_tokens, images, cost_nanos, ceiling_nanos, usage, lines, outcome, response_id)
"""

_OPEN_SUSPENSE = """
INSERT INTO suspense (tenant_id, attempt_id, worker_epoch, cause, requests, input_tokens, output_tokens, images,
    cost_nanos)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
"""

_CLOSE_SUSPENSE = """
UPDATE suspense SET resolved_at = now(), resolution = $3
WHERE tenant_id = $1 AND attempt_id = $2 AND resolved_at IS NULL
RETURNING requests, input_tokens, output_tokens, images, cost_nanos
"""

_IS_BOOKED = "SELECT EXISTS (SELECT FROM usage_record WHERE tenant_id = $1 AND attempt_id = $2)"


async def read_clock(connection: "Connection") -> tuple[int, datetime]:
    """Return the epoch of the limit definitions and the database's clock, the only one the ledger goes by."""
    row = await connection.fetchrow(_CLOCK)
    if row is None:
        raise LookupError("table epoch has no row for limits: migrations are incomplete")
    return row["value"], row["now"]


async def read_definitions(connection: "Connection", scopes: Sequence[tuple[str, str]]) -> list[LimitDefinition]:
    """Return the active limits on the given (tenant_id, scope) pairs."""
    rows = await connection.fetch(_DEFINITIONS, [tenant for tenant, _ in scopes], [scope for _, scope in scopes])
    return [
        LimitDefinition(
            tenant_id=row["tenant_id"],
            scope=row["scope"],
            limit_id=row["limit_id"],
            name=row["name"],
            metric=Metric(row["metric"]),
            window=Window(row["window"]),
            selector=row["selector"],
            amount=row["amount"],
            calendar=Calendar(ZoneInfo(row["time_zone"]), row["fiscal_month_start_day"]),
        )
        for row in rows
    ]


async def create_counters(connection: "Connection", keys: Iterable[CounterKey]) -> None:
    """Create missing counters at zero; harmless if they exist. Must not run inside the tick's transaction."""
    await connection.execute(_CREATE_COUNTERS, *_columns(keys, 3))


async def lock_counters(connection: "Connection", keys: Iterable[CounterKey]) -> dict[CounterKey, tuple[int, int]]:
    """Lock counters in key order and return their (held, settled)."""
    rows = await connection.fetch(_LOCK_COUNTERS, *_columns(keys, 3))
    return {(row[0], row[1], row[2]): (row[3], row[4]) for row in rows}


async def move_counters(connection: "Connection", moves: Mapping[CounterKey, tuple[int, int]]) -> None:
    """Add (held, settled) differences to locked counters."""
    rows = [(*key, held, settled) for key, (held, settled) in moves.items() if held or settled]
    if rows:
        await connection.execute(_MOVE_COUNTERS, *_columns(rows, 5))


async def seen_requests(
    connection: "Connection", requests: Sequence[tuple[str, UUID]]
) -> dict[tuple[str, UUID], tuple[bytes, UUID]]:
    """Return (fingerprint, attempt_id) of the request ids that were claimed already."""
    rows = await connection.fetch(_SEEN_KEYS, *_columns(requests, 2))
    return {(row[0], row[1]): (row[2], row[3]) for row in rows}


async def claim_requests(connection: "Connection", terms: Sequence[CallTerms]) -> set[UUID]:
    """Claim request ids in key order; return the attempts whose claim succeeded."""
    keys = [(t.scope.tenant_id, t.request_id, t.fingerprint, t.attempt_id) for t in terms]
    return {row[0] for row in await connection.fetch(_CLAIM_KEYS, *_columns(keys, 4))}


async def call_state(connection: "Connection", tenant_id: str, request_id: UUID) -> str:
    """Return DISPATCHED, or the kind of the last record, of the call that claimed `request_id`."""
    return str(await connection.fetchval(_CALL_STATE, tenant_id, request_id))


async def insert_attempts(connection: "Connection", reservations: Sequence[Reservation], worker_epoch: int) -> None:
    """Write the attempts of admitted calls."""
    rows = [_attempt_row(reservation, worker_epoch) for reservation in reservations]
    await connection.execute(_INSERT_ATTEMPTS, *_columns(rows, 19))


async def end_attempts(connection: "Connection", attempts: Sequence[tuple[str, UUID]]) -> set[UUID]:
    """Delete attempts and return those that were there: the ones this transaction has ended."""
    return {row[0] for row in await connection.fetch(_END_ATTEMPTS, *_columns(attempts, 2))}


async def load_attempts(connection: "Connection", attempts: Sequence[tuple[str, UUID]]) -> dict[UUID, Reservation]:
    """Return those of the attempts that are in flight, as the reservations they are."""
    rows = await connection.fetch(_LOAD_ATTEMPTS, *_columns(attempts, 2))
    return {row["attempt_id"]: reservation_of(row) for row in rows}


async def insert_records(connection: "Connection", bookings: Sequence[Booking], settled_at: datetime) -> None:
    """Append usage records, and open a suspense row for each booking whose outcome is unknown."""
    columns = _columns([_record_row(booking) for booking in bookings], 26)
    await connection.execute(_INSERT_RECORDS, *columns, settled_at)
    for booking in bookings:
        if booking.settlement.kind is RecordKind.SUSPENSE:
            terms, booked = booking.reservation.terms, booking.settlement.actual
            await connection.execute(
                _OPEN_SUSPENSE,
                terms.scope.tenant_id,
                terms.attempt_id,
                booking.worker_epoch,
                booking.settlement.outcome,
                booked.requests,
                booked.input_tokens,
                booked.output_tokens,
                booked.images,
                booked.cost_nanos,
            )


async def close_suspense(connection: "Connection", terms: CallTerms, resolution: str) -> Amounts | None:
    """Close the open suspense row of an attempt and return what was booked for it, None if there is none."""
    row = await connection.fetchrow(_CLOSE_SUSPENSE, terms.scope.tenant_id, terms.attempt_id, resolution)
    return None if row is None else Amounts(**dict(row))


async def is_booked(connection: "Connection", terms: CallTerms) -> bool:
    """Tell whether the attempt has a usage record."""
    return bool(await connection.fetchval(_IS_BOOKED, terms.scope.tenant_id, terms.attempt_id))


def _columns(rows: Iterable[Sequence[object]], width: int) -> list[list[object]]:
    """Turn rows into the column arrays that `unnest` takes; rows are ordered, so that locks are."""
    listed = list(rows)
    return [[row[column] for row in listed] for column in range(width)]


def _array(values: Iterable[str]) -> str:
    """Write identifiers as a PostgreSQL array literal, quoted: a department may be called `null`."""
    return "{" + ",".join(f'"{value}"' for value in values) + "}"


def _attempt_row(reservation: Reservation, worker_epoch: int) -> tuple[object, ...]:
    terms, scope, ceiling = reservation.terms, reservation.terms.scope, reservation.terms.ceiling
    holds = [[hold.limit_id, hold.window_start.isoformat(), hold.metric, hold.amount] for hold in reservation.holds]
    return (
        scope.tenant_id,
        terms.attempt_id,
        terms.request_id,
        worker_epoch,
        _array(scope.department_path),
        scope.project_id,
        scope.credential_id,
        scope.principal_id,
        terms.method,
        terms.tier,
        terms.model,
        terms.account_id,
        json.dumps(dict(terms.labels)),
        terms.price_version,
        ceiling.input_tokens,
        ceiling.output_tokens,
        ceiling.images,
        ceiling.cost_nanos,
        json.dumps(holds),
    )


def _record_row(booking: Booking) -> tuple[object, ...]:
    terms, scope = booking.reservation.terms, booking.reservation.terms.scope
    settlement, actual = booking.settlement, booking.settlement.actual
    return (
        scope.tenant_id,
        terms.attempt_id,
        settlement.kind,
        terms.request_id,
        booking.reservation.dispatched_at,
        booking.worker_epoch,
        _array(scope.department_path),
        scope.project_id,
        scope.credential_id,
        scope.principal_id,
        terms.method,
        terms.tier,
        terms.model,
        terms.account_id,
        json.dumps(dict(terms.labels)),
        terms.price_version,
        actual.requests,
        actual.input_tokens,
        actual.output_tokens,
        actual.images,
        actual.cost_nanos,
        terms.ceiling.cost_nanos,
        settlement.usage,
        settlement.lines,
        settlement.outcome,
        settlement.response_id,
    )


def reservation_of(row: asyncpg.Record) -> Reservation:
    """Rebuild a reservation from its row in `attempt`; it only has to end, so what admits a call is left empty."""
    terms = CallTerms(
        attempt_id=row["attempt_id"],
        request_id=row["request_id"],
        fingerprint=b"",
        first=False,
        scope=Scope(
            tenant_id=row["tenant_id"],
            department_path=tuple(row["department_path"]),
            project_id=row["project_id"],
            credential_id=row["credential_id"],
            credential_name="",
            principal_id=row["principal_id"],
        ),
        method=row["method"],
        tier=row["tier"],
        model=row["model"],
        account_id=row["account_id"],
        labels=json.loads(row["labels"]),
        price_version=row["price_version"],
        ceiling=Amounts(
            requests=1,
            input_tokens=row["input_tokens"],
            output_tokens=row["output_tokens"],
            images=row["images"],
            cost_nanos=row["ceiling_nanos"],
        ),
    )
    holds = tuple(
        Hold(limit_id=limit, window_start=datetime.fromisoformat(start), metric=Metric(metric), amount=amount)
        for limit, start, metric, amount in json.loads(row["holds"])
    )
    return Reservation(terms=terms, holds=holds, dispatched_at=row["dispatched_at"])
