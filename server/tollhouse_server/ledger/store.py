"""The tick's SQL, on one raw asyncpg connection: one statement that looks and locks, one that writes.

Everything that locks rows does it in key order, so that two ticks that meet on the same rows cannot deadlock.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from uuid import UUID

import asyncpg

from tollhouse_server.ledger.columns import Columns
from tollhouse_server.ledger.rows import (
    ATTEMPT,
    ATTEMPT_KEY,
    GROWN_ATTEMPT,
    RECORD,
    SUSPENSE,
    Booking,
    attempt_row,
    grown_row,
    record_row,
    reservation_of,
    suspense_row,
)
from tollhouse_server.ledger.terms import CounterKey, Reservation
from tollhouse_server.ledger.verdicts import UNBOUNDED, Counter
from tollhouse_server.ledger.windows import ClaimDays
from tollhouse_server.ledger.write_statement import MOVE, Parts, write_sql

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]

AttemptKey: TypeAlias = tuple[str, UUID]
"""(tenant_id, attempt_id)"""

RequestKey: TypeAlias = tuple[str, int]
"""(tenant_id, request_id); a UUID is looked up by its integer: hashing the object itself is slow."""

_CLOCK = "SELECT value, clock_timestamp() AS now FROM epoch WHERE topic = 'limits'"

_COUNTER = Columns("tenant_id text, limit_id bigint, starts bigint")
"""The key of a counter, its window's start in seconds since 1970."""

_REQUEST_KEY = Columns("tenant_id text, request_id uuid")

# Four questions in one round trip, each answered with arrays in a single row: the clock, the counters, the attempts
# that end here, and the request ids that are taken. `n` counts what was asked for from 1. The epoch is read when the
# counters are locked: limits may have changed while this waited for them.
_LOOK = f"""
WITH clock AS MATERIALIZED (SELECT ledger_now() AS now),
locked AS MATERIALIZED (
    SELECT wanted.n, c.held, c.expected, c.settled, c.alert_at
    FROM {_COUNTER.unnest("wanted", first=1, ordinality="n")}
    JOIN counter c ON c.tenant_id = wanted.tenant_id AND c.limit_id = wanted.limit_id
        AND c.window_start = to_timestamp(wanted.starts)
    ORDER BY c.tenant_id COLLATE "C", c.limit_id, c.window_start
    FOR NO KEY UPDATE OF c
),
ended AS (
    DELETE FROM attempt
    WHERE tenant_id = ANY ($4::text::text[]) AND attempt_id = ANY ($5::text::uuid[])
    RETURNING attempt_id, CASE WHEN top_ups > 0 THEN holds::text END AS holds
),
taken AS (
    SELECT wanted.n, k.fingerprint FROM {_REQUEST_KEY.unnest("wanted", first=6, ordinality="n")}
    JOIN request_key k
        ON k.tenant_id = wanted.tenant_id AND k.request_id = wanted.request_id
        AND k.day BETWEEN $8::date AND $9::date
)
SELECT ledger_epoch() AS epoch, clock.now, c.*, a.*, t.*
FROM clock,
    (SELECT array_agg(n), array_agg(held), array_agg(expected), array_agg(settled), array_agg(alert_at)
     FROM locked) AS c,
    (SELECT array_agg(attempt_id), array_agg(holds) FROM ended) AS a,
    (SELECT array_agg(n), array_agg(fingerprint) FROM taken) AS t
"""  # noqa: S608 - columns of this module

# The attempt that an id stands for has one record of how it ended, and ADJUSTMENTs once a suspended one was resolved.
# Asking for the latest by time instead made the planner walk through all records of the tenant.
_CLAIMED_CALLS = f"""
SELECT k.tenant_id, k.request_id, k.fingerprint, coalesce(
    (SELECT 'DISPATCHED' FROM attempt a WHERE a.tenant_id = k.tenant_id AND a.request_id = k.request_id LIMIT 1),
    (SELECT CASE WHEN bool_or(r.kind = 'ADJUSTMENT') THEN 'SETTLED' ELSE min(r.kind) END
     FROM usage_record r WHERE r.tenant_id = k.tenant_id AND r.attempt_id = k.attempt_id),
    'UNKNOWN')
FROM {_REQUEST_KEY.unnest("wanted", first=1)}
JOIN request_key k USING (tenant_id, request_id)
"""  # noqa: S608 - columns of this module

_LOAD_ATTEMPTS = f"""
SELECT a.* FROM {ATTEMPT_KEY.unnest("wanted", first=1)}
JOIN attempt a USING (tenant_id, attempt_id)
ORDER BY a.attempt_id
FOR NO KEY UPDATE OF a
"""  # noqa: S608 - columns of this module

_GROW_ATTEMPTS = f"""
UPDATE attempt a SET terms = grown.terms, holds = grown.holds, top_ups = grown.top_ups
FROM {GROWN_ATTEMPT.unnest("grown", first=1)}
WHERE a.tenant_id = grown.tenant_id AND a.attempt_id = grown.attempt_id
"""  # noqa: S608 - columns of this module

_OPEN_SUSPENSE = f"""
INSERT INTO suspense ({SUSPENSE.names}) SELECT {SUSPENSE.selected} FROM {SUSPENSE.unnest("open", first=1)}
"""  # noqa: S608 - columns of this module


_NO_BOUNDS = (UNBOUNDED, UNBOUNDED)

_UNFIT = "TH002"
"""What the function ledger_unfit raises."""

_PLAN_FAILED = frozenset(
    {
        _UNFIT,
        asyncpg.UniqueViolationError.sqlstate,
        asyncpg.CheckViolationError.sqlstate,
        asyncpg.NumericValueOutOfRangeError.sqlstate,
    }
)
"""Beside it: a request id that is taken, holds taken off that are off already, sums that PostgreSQL cannot count."""


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
    row = _epoch_row(await connection.fetchrow(_CLOCK), "value")
    return row["value"], row["now"]


def _epoch_row(row: asyncpg.Record | None, column: str) -> asyncpg.Record:
    if row is None or row[column] is None:
        raise LookupError("table epoch has no row for limits: migrations are incomplete")
    return row


async def look(
    connection: "Connection",
    *,
    counters: Sequence[CounterKey],
    ending: Sequence[AttemptKey],
    requests: Sequence[tuple[str, UUID]],
    days: ClaimDays,
) -> Look:
    """Lock the counters, end the attempts, and see which request ids are taken. Counters and attempts are in order."""
    row = await connection.fetchrow(
        _LOOK,
        *_COUNTER.texts(counters),
        *ATTEMPT_KEY.texts(ending),
        *_REQUEST_KEY.texts(requests),
        days.yesterday,
        days.today,
    )
    row = _epoch_row(row, "epoch")
    epoch, now, places, held, expected, settled, alerts, ended, holds, taken_places, fingerprints = row
    found = Look(epoch=epoch, now=now)
    if places:
        states = map(Counter.found, held, expected, settled, alerts)
        found.counters.update(zip([counters[place - 1] for place in places], states, strict=True))
    if ended:
        found.ended.update(zip([attempt_id.int for attempt_id in ended], holds, strict=True))
    if taken_places:
        asked = [requests[place - 1] for place in taken_places]
        found.taken.update(zip([(tenant_id, request.int) for tenant_id, request in asked], fingerprints, strict=True))
    return found


class Plan(NamedTuple):
    """What a tick reckons with that has not looked: the minute, the epoch of the limits, and what each counter bears.

    `bounds` are the most that may be (held + settled, expected + settled) on those counters that calls are held on.
    """

    minute: datetime
    epoch: int
    bounds: Mapping[CounterKey, tuple[int, int]]


class PlanFailedError(Exception):
    """Something is not as the tick has planned, and nothing was written: it has to look first."""


async def write(
    connection: "Connection",
    *,
    counters: Mapping[CounterKey, Counter],
    admitted: Collection[Reservation],
    bookings: Sequence[Booking],
    dispatched_at: datetime,
    days: ClaimDays,
    plan: Plan | None = None,
) -> datetime:
    """Write all that a tick has decided; return the moment of the bookings.

    With a `plan` nobody has looked: then this is the whole transaction, ends the attempts too, and opens no suspense.

    Raises:
        PlanFailedError: the plan does not hold.
        asyncpg.UniqueViolationError: another tick has claimed one of the request ids meanwhile.
    """
    bounds = plan.bounds if plan else {}
    # A counter that calls are held on is checked even if what ends and what begins are the same.
    moves = [
        (*key, *counter.moves(), *bounds.get(key, _NO_BOUNDS))
        for key, counter in counters.items()
        if counter.is_moved or key in bounds
    ]
    parts = Parts(
        is_planned=plan is not None,
        ends=bool(bookings),
        begins=bool(admitted),
        passes_on=not all(reservation.terms.first for reservation in admitted),
    )
    arguments: list[Any] = [] if plan is None else [plan.minute, plan.epoch, len(moves)]
    arguments += MOVE.texts(moves)
    if bookings:
        arguments += RECORD.texts(map(record_row, bookings))
        arguments += [] if plan is None else _ended(bookings)
    if admitted:
        arguments += ATTEMPT.texts(map(attempt_row, admitted))
        arguments += [dispatched_at, days.claimed]
        arguments += [] if plan is None else [days.earlier]
    if parts.passes_on:
        arguments += [days.yesterday, days.today]
    try:
        at: datetime = await connection.fetchval(write_sql(parts), *arguments)
    except asyncpg.PostgresError as error:
        if plan and error.sqlstate in _PLAN_FAILED:
            raise PlanFailedError from error
        raise
    suspended = [booking for booking in bookings if booking.is_suspense]
    if suspended:
        await connection.execute(_OPEN_SUSPENSE, *SUSPENSE.texts(map(suspense_row, suspended)))
    return at


def _ended(bookings: Sequence[Booking]) -> list[Any]:
    reservations = [booking.reservation for booking in bookings]
    keys = [(one.terms.scope.tenant_id, one.terms.attempt_id) for one in reservations]
    return [len(keys), sum(one.top_ups for one in reservations), *ATTEMPT_KEY.texts(keys)]


class ClaimedCall(NamedTuple):
    """The call that a request id stands for: its fingerprint, and DISPATCHED or how it ended."""

    fingerprint: bytes
    state: str


async def claimed_calls(
    connection: "Connection", requests: Sequence[tuple[str, UUID]]
) -> dict[RequestKey, ClaimedCall]:
    """Return the calls that have claimed these request ids."""
    rows = await connection.fetch(_CLAIMED_CALLS, *_REQUEST_KEY.texts(requests))
    return {(row[0], row[1].int): ClaimedCall(row[2], row[3]) for row in rows}


async def load_attempts(connection: "Connection", attempts: Iterable[AttemptKey]) -> dict[int, Reservation]:
    """Lock those of the attempts that are in flight, and return them, by the integer of their id."""
    rows = await connection.fetch(_LOAD_ATTEMPTS, *ATTEMPT_KEY.texts(sorted(attempts)))
    return {row["attempt_id"].int: reservation_of(row) for row in rows}


async def grow_attempts(connection: "Connection", grown: Sequence[Reservation]) -> None:
    """Write the ceilings and holds of attempts that were topped up."""
    await connection.execute(_GROW_ATTEMPTS, *GROWN_ATTEMPT.texts(map(grown_row, grown)))
