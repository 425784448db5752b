"""The tick's SQL, on one raw asyncpg connection: one statement that looks and locks, one that writes.

Everything that locks rows does it in key order, so that two ticks that meet on the same rows cannot deadlock.
"""

from collections import Counter as Counts
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING, NamedTuple, TypeAlias
from uuid import UUID

import asyncpg

from tollhouse_server.ledger.definition_store import moment
from tollhouse_server.ledger.rows import (
    Booking,
    attempts_json,
    grown_json,
    records_json,
    reservation_of,
    suspense_json,
)
from tollhouse_server.ledger.terms import Amounts, CallTerms, CounterKey, RecordKind, Reservation
from tollhouse_server.ledger.verdicts import Counter

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]

AttemptKey: TypeAlias = tuple[str, UUID]
"""(tenant_id, attempt_id)"""

RequestKey: TypeAlias = tuple[str, int]
"""(tenant_id, request_id); a UUID is looked up by its integer: hashing the object itself is slow."""

_CLOCK = "SELECT value, clock_timestamp() AS now FROM epoch WHERE topic = 'limits'"

# Four questions in one round trip, each answered with arrays in a single row: the clock, the counters, the attempts
# that end here, and the request ids that are taken.
_LOOK = """
WITH clock AS MATERIALIZED (SELECT ledger_now() AS now),
locked AS MATERIALIZED (
    SELECT c.*
    FROM unnest($1::text[], $2::bigint[], $3::timestamptz[]) AS wanted (tenant_id, limit_id, window_start)
    JOIN counter c USING (tenant_id, limit_id, window_start)
    ORDER BY c.tenant_id, c.limit_id, c.window_start
    FOR NO KEY UPDATE OF c
),
ended AS (
    DELETE FROM attempt a USING unnest($4::text[], $5::uuid[]) AS ended (tenant_id, attempt_id)
    WHERE a.tenant_id = ended.tenant_id AND a.attempt_id = ended.attempt_id
    RETURNING a.attempt_id, CASE WHEN a.top_ups > 0 THEN a.holds::text END AS holds
),
taken AS (
    SELECT k.tenant_id, k.request_id, k.fingerprint
    FROM unnest($6::text[], $7::uuid[]) AS wanted (tenant_id, request_id)
    JOIN request_key k
        ON k.tenant_id = wanted.tenant_id AND k.request_id = wanted.request_id AND k.day = ANY ($8::date[])
)
SELECT e.value AS epoch, clock.now, c.*, a.*, t.*
FROM clock, epoch e,
    (SELECT array_agg(tenant_id), array_agg(limit_id), array_agg(extract(epoch FROM window_start)::bigint),
        array_agg(held), array_agg(expected), array_agg(settled), array_agg(alert_at) FROM locked) AS c,
    (SELECT array_agg(attempt_id), array_agg(holds) FROM ended) AS a,
    (SELECT array_agg(tenant_id), array_agg(request_id), array_agg(fingerprint) FROM taken) AS t
WHERE e.topic = 'limits'
"""

_WRITE = """
WITH moved AS (
    UPDATE counter c
    SET held = c.held + m.held, expected = c.expected + m.expected, settled = c.settled + m.settled
    FROM unnest($1::text[], $2::bigint[], $3::timestamptz[], $4::bigint[], $5::bigint[], $6::bigint[])
        AS m (tenant_id, limit_id, window_start, held, expected, settled)
    WHERE c.tenant_id = m.tenant_id AND c.limit_id = m.limit_id AND c.window_start = m.window_start
),
booked AS (
    INSERT INTO usage_record (tenant_id, attempt_id, settled_at, kind, request_id, dispatched_at, worker_epoch,
        department_path, project_id, credential_id, principal_id, method, tier, model, account_id, labels,
        price_version, requests, input_tokens, output_tokens, images, cost_nanos, ceiling_nanos, usage, lines, outcome,
        response_id, holds)
    SELECT tenant_id, attempt_id, $9, kind, request_id, dispatched_at, worker_epoch, department_path, project_id,
        credential_id, principal_id, method, tier, model, account_id, labels, price_version, requests, input_tokens,
        output_tokens, images, cost_nanos, ceiling_nanos, usage, lines, outcome, response_id, holds
    FROM json_to_recordset($7::json) AS ended (tenant_id text, attempt_id uuid, kind text, request_id uuid,
        dispatched_at timestamptz, worker_epoch bigint, department_path text[], project_id text, credential_id text,
        principal_id text, method text, tier text, model text, account_id text, labels jsonb, price_version bigint,
        requests bigint, input_tokens bigint, output_tokens bigint, images bigint, cost_nanos bigint,
        ceiling_nanos bigint, usage jsonb, lines jsonb, outcome text, response_id text, holds json)
),
new AS MATERIALIZED (
    SELECT * FROM json_to_recordset($8::json)
        AS new (tenant_id text, attempt_id uuid, request_id uuid, worker_epoch bigint, terms json, holds json,
            fingerprint bytea)
),
started AS (
    INSERT INTO attempt (tenant_id, attempt_id, request_id, worker_epoch, dispatched_at, terms, holds)
    SELECT tenant_id, attempt_id, request_id, worker_epoch, $9, terms, holds FROM new
),
-- A call that goes on to another target: its request id stands for the attempt that is under way now.
passed_on AS (
    UPDATE request_key k SET attempt_id = new.attempt_id FROM new
    WHERE new.fingerprint IS NULL AND k.tenant_id = new.tenant_id AND k.request_id = new.request_id
        AND k.day = ANY ($11::date[])
)
INSERT INTO request_key (tenant_id, request_id, day, fingerprint, attempt_id)
SELECT new.tenant_id, new.request_id, days.day, new.fingerprint, new.attempt_id
FROM new CROSS JOIN unnest($10::date[]) AS days (day) WHERE new.fingerprint IS NOT NULL
ORDER BY 1, 2, 3
ON CONFLICT DO NOTHING
RETURNING attempt_id
"""

# The attempt that an id stands for has one record of how it ended, and ADJUSTMENTs once a suspended one was resolved.
# Asking for the latest by time instead made the planner walk through all records of the tenant.
_CLAIMED_CALLS = """
SELECT k.tenant_id, k.request_id, k.fingerprint, coalesce(
    (SELECT 'DISPATCHED' FROM attempt a WHERE a.tenant_id = k.tenant_id AND a.request_id = k.request_id LIMIT 1),
    (SELECT CASE WHEN bool_or(r.kind = 'ADJUSTMENT') THEN 'SETTLED' ELSE min(r.kind) END
     FROM usage_record r WHERE r.tenant_id = k.tenant_id AND r.attempt_id = k.attempt_id),
    'UNKNOWN')
FROM unnest($1::text[], $2::uuid[]) AS wanted (tenant_id, request_id)
JOIN request_key k USING (tenant_id, request_id)
"""

_UNDO_ATTEMPTS = """
WITH unclaimed AS (
    DELETE FROM request_key k USING unnest($1::text[], $2::uuid[], $3::uuid[]) AS u (tenant_id, attempt_id, request_id)
    WHERE k.tenant_id = u.tenant_id AND k.request_id = u.request_id AND k.attempt_id = u.attempt_id
)
DELETE FROM attempt a USING unnest($1::text[], $2::uuid[]) AS u (tenant_id, attempt_id)
WHERE a.tenant_id = u.tenant_id AND a.attempt_id = u.attempt_id
"""

# Whoever inserts a key waits for a transaction that is inserting it too: after this nothing is in doubt any more.
_WAIT_FOR_ATTEMPTS = """
INSERT INTO attempt (tenant_id, attempt_id, request_id, worker_epoch, dispatched_at, terms, holds)
SELECT tenant_id, attempt_id, attempt_id, 0, now(), '{}', '[]'
FROM unnest($1::text[], $2::uuid[]) AS doubtful (tenant_id, attempt_id)
ON CONFLICT DO NOTHING
RETURNING tenant_id, attempt_id
"""

_END_ATTEMPTS = """
DELETE FROM attempt a USING unnest($1::text[], $2::uuid[]) AS ended (tenant_id, attempt_id)
WHERE a.tenant_id = ended.tenant_id AND a.attempt_id = ended.attempt_id
"""

_LOAD_ENDED = """
SELECT r.attempt_id, r.kind, r.holds::text FROM unnest($1::text[], $2::uuid[]) AS wanted (tenant_id, attempt_id)
JOIN usage_record r USING (tenant_id, attempt_id)
WHERE r.kind <> 'ADJUSTMENT'
"""

_LOAD_ATTEMPTS = """
SELECT a.* FROM unnest($1::text[], $2::uuid[]) AS wanted (tenant_id, attempt_id)
JOIN attempt a USING (tenant_id, attempt_id)
ORDER BY a.tenant_id, a.attempt_id
FOR NO KEY UPDATE OF a
"""

_GROW_ATTEMPTS = """
UPDATE attempt a SET terms = grown.terms, holds = grown.holds, top_ups = grown.top_ups
FROM json_to_recordset($1::json) AS grown (tenant_id text, attempt_id uuid, terms json, holds json, top_ups integer)
WHERE a.tenant_id = grown.tenant_id AND a.attempt_id = grown.attempt_id
"""

_OPEN_SUSPENSE = """
INSERT INTO suspense (tenant_id, attempt_id, worker_epoch, cause, requests, input_tokens, output_tokens, images,
    cost_nanos)
SELECT * FROM json_to_recordset($1::json) AS open (tenant_id text, attempt_id uuid, worker_epoch bigint, cause text,
    requests bigint, input_tokens bigint, output_tokens bigint, images bigint, cost_nanos bigint)
"""

_CLOSE_SUSPENSE = """
UPDATE suspense SET resolved_at = now(), resolution = $3
WHERE tenant_id = $1 AND attempt_id = $2 AND resolved_at IS NULL
RETURNING requests, input_tokens, output_tokens, images, cost_nanos
"""

_FIND_BOOKING = """
SELECT coalesce((SELECT s.resolved_by FROM suspense s WHERE s.tenant_id = $1 AND s.attempt_id = $2), '')
FROM usage_record WHERE tenant_id = $1 AND attempt_id = $2 LIMIT 1
"""


@dataclass(slots=True)
class Look:
    """What a tick has found and locked. `ended`: by attempt id, the holds of those that were topped up."""

    epoch: int
    now: datetime
    counters: dict[CounterKey, Counter] = field(default_factory=dict)
    ended: dict[int, str | None] = field(default_factory=dict)
    taken: dict[RequestKey, bytes] = field(default_factory=dict)


async def read_clock(connection: "Connection") -> tuple[int, datetime]:
    """Return the epoch of the limit definitions and the database's clock, the only one the ledger goes by."""
    row = await connection.fetchrow(_CLOCK)
    if row is None:
        raise LookupError("table epoch has no row for limits: migrations are incomplete")
    return row["value"], row["now"]


async def look(
    connection: "Connection",
    *,
    counters: Sequence[CounterKey],
    ending: Sequence[AttemptKey],
    requests: Sequence[tuple[str, UUID]],
    days: Sequence[date],
) -> Look:
    """Lock the counters, end the attempts, and see which request ids are taken. Counters and attempts are in order."""
    row = await connection.fetchrow(
        _LOOK, *_key_columns(counters), *_columns(ending, 2), *_columns(requests, 2), list(days)
    )
    if row is None:
        raise LookupError("table epoch has no row for limits: migrations are incomplete")
    epoch, now, tenants, limits, starts, *states, attempts, holds, key_tenants, key_ids, fingerprints = row
    found = Look(epoch=epoch, now=now)
    if tenants:
        keys = map(CounterKey, tenants, limits, starts)
        found.counters.update(zip(keys, map(Counter.found, *states), strict=True))
    if attempts:
        found.ended.update(zip([attempt.int for attempt in attempts], holds, strict=True))
    if key_tenants:
        keys_taken = zip(key_tenants, [request.int for request in key_ids], strict=True)
        found.taken.update(zip(keys_taken, fingerprints, strict=True))
    return found


async def write(
    connection: "Connection",
    *,
    counters: Mapping[CounterKey, Counter],
    admitted: Sequence[Reservation],
    bookings: Sequence[Booking],
    now: datetime,
    days: Sequence[date],
    days_seen: Sequence[date],
) -> set[int]:
    """Write all that a tick has decided; return, as integers, the attempts whose request id was free on all `days`."""
    moves = [(key, counter.take_moves()) for key, counter in counters.items()]
    moved = [(key, move) for key, move in moves if any(move)]
    rows = await connection.fetch(
        _WRITE,
        *_key_columns([key for key, _ in moved]),
        *_columns([move for _, move in moved], 3),
        records_json(bookings),
        attempts_json(admitted),
        now,
        list(days),
        list(days_seen),
    )
    suspended = [booking for booking in bookings if booking.is_suspense]
    if suspended:
        await connection.execute(_OPEN_SUSPENSE, suspense_json(suspended))
    times = Counts(row[0].int for row in rows)
    return {attempt_id for attempt_id, count in times.items() if count == len(days)}


class ClaimedCall(NamedTuple):
    """The call that a request id stands for: its fingerprint, and DISPATCHED or how it ended."""

    fingerprint: bytes
    state: str


async def claimed_calls(
    connection: "Connection", requests: Sequence[tuple[str, UUID]]
) -> dict[RequestKey, ClaimedCall]:
    """Return the calls that have claimed these request ids."""
    rows = await connection.fetch(_CLAIMED_CALLS, *_columns(requests, 2))
    return {(row[0], row[1].int): ClaimedCall(row[2], row[3]) for row in rows}


async def undo_attempts(connection: "Connection", lost: Iterable[tuple[str, UUID, UUID]]) -> None:
    """Delete attempts, given as (tenant, attempt, request), that this transaction has started in vain."""
    await connection.execute(_UNDO_ATTEMPTS, *_columns(sorted(lost), 3))


async def recognise_attempts(connection: "Connection", attempts: Iterable[AttemptKey]) -> dict[int, Reservation]:
    """Return those attempts in flight of which nobody knew whether their commit happened; wait until that is clear."""
    keys = sorted(attempts)
    made = await connection.fetch(_WAIT_FOR_ATTEMPTS, *_columns(keys, 2))
    await connection.execute(_END_ATTEMPTS, *_columns([(row[0], row[1]) for row in made], 2))
    return await load_attempts(connection, keys)


class EndedCall(NamedTuple):
    """How an attempt has ended, and its holds as JSON."""

    kind: RecordKind
    holds_text: str


async def load_ended(connection: "Connection", attempts: Iterable[AttemptKey]) -> dict[int, EndedCall]:
    """Return how those of the attempts that have a record have ended."""
    rows = await connection.fetch(_LOAD_ENDED, *_columns(sorted(attempts), 2))
    return {row[0].int: EndedCall(RecordKind(row[1]), row[2]) for row in rows}


async def load_attempts(connection: "Connection", attempts: Iterable[AttemptKey]) -> dict[int, Reservation]:
    """Lock those of the attempts that are in flight, and return them, by the integer of their id."""
    rows = await connection.fetch(_LOAD_ATTEMPTS, *_columns(sorted(attempts), 2))
    return {row["attempt_id"].int: reservation_of(row) for row in rows}


async def grow_attempts(connection: "Connection", grown: Sequence[Reservation]) -> None:
    """Write the ceilings and holds of attempts that were topped up."""
    await connection.execute(_GROW_ATTEMPTS, grown_json(grown))


async def close_suspense(connection: "Connection", terms: CallTerms, resolution: str) -> Amounts | None:
    """Close the open suspense row of an attempt and return what was booked for it, None if there is none."""
    row = await connection.fetchrow(_CLOSE_SUSPENSE, terms.scope.tenant_id, terms.attempt_id, resolution)
    return None if row is None else Amounts(*row)


class FoundBooking(NamedTuple):
    """An attempt has a record; `ruled_by` is the administrator who has said what a suspended one cost, else empty."""

    ruled_by: str


async def find_booking(connection: "Connection", terms: CallTerms) -> FoundBooking | None:
    """Return what is known of an attempt's record, None if it has none."""
    row = await connection.fetchrow(_FIND_BOOKING, terms.scope.tenant_id, terms.attempt_id)
    return None if row is None else FoundBooking(row[0])


def _columns(rows: Iterable[Sequence[object]], width: int) -> list[list[object]]:
    """Turn rows into the column arrays that `unnest` takes; rows are ordered, so that locks are."""
    listed = list(rows)
    return [[row[column] for row in listed] for column in range(width)]


def _key_columns(keys: Sequence[CounterKey]) -> tuple[list[str], list[int], list[datetime]]:
    return (
        [key.tenant_id for key in keys],
        [key.limit_id for key in keys],
        [moment(key.window_start) for key in keys],
    )
