"""The tick's SQL, on one raw asyncpg connection: one statement that looks and locks, one that writes.

Everything that locks rows does it in key order, so that two ticks that meet on the same rows cannot deadlock.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, TypeAlias
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

_MOVE = Columns(
    "tenant_id text, limit_id bigint, starts bigint, held bigint, expected bigint, settled bigint,"
    "most_held bigint, most_expected bigint"
)
"""What is added to a counter, and the most that it may then come to: settled and held, and settled and expected."""

_ENDED = Columns("tenant_id text, attempt_id uuid, top_ups integer")
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
    DELETE FROM attempt a USING {ATTEMPT_KEY.unnest("ending", first=4, ordinality="n")}
    WHERE a.tenant_id = ending.tenant_id AND a.attempt_id = ending.attempt_id
    RETURNING ending.n, CASE WHEN a.top_ups > 0 THEN a.holds::text END AS holds
),
taken AS (
    SELECT wanted.n, k.fingerprint FROM {_REQUEST_KEY.unnest("wanted", first=6, ordinality="n")}
    JOIN request_key k
        ON k.tenant_id = wanted.tenant_id AND k.request_id = wanted.request_id AND k.day = ANY ($8::date[])
)
SELECT ledger_epoch() AS epoch, clock.now, c.*, a.*, t.*
FROM clock,
    (SELECT array_agg(n), array_agg(held), array_agg(expected), array_agg(settled), array_agg(alert_at)
     FROM locked) AS c,
    (SELECT array_agg(n), array_agg(holds) FROM ended) AS a,
    (SELECT array_agg(n), array_agg(fingerprint) FROM taken) AS t
"""  # noqa: S608 - columns of this module

_MOVES_FROM = 9
_ENDED_FROM = _MOVES_FROM + len(_MOVE)
_RECORDS_FROM = _ENDED_FROM + len(_ENDED)
_ATTEMPTS_FROM = _RECORDS_FROM + len(RECORD)

# After a look ($1 is null) nothing can be other than it was seen. Without one everything must be as it was planned,
# or nothing is written: the minute and the limits ($1, $2), room on each counter and no alert due ($3 of them), each
# attempt that ends here still in flight, with the holds that are known here ($4 of them), and no request id taken on
# an earlier day ($8), which the insertion would not notice. The epoch is asked for last: limits may have changed while
# this waited for a counter. $5 is when the calls are sent, $6 the days on which a claim may stand, $7 those to claim.
# Counters first, then attempts, then request ids: of two ticks that claim one id at the same moment the second waits
# for the first, and fails.
_WRITE = f"""
WITH clock AS MATERIALIZED (SELECT ledger_now() AS now),
-- In the order of the parameters, which is that of the keys: only nested loops are allowed here.
moved AS (
    UPDATE counter c
    SET held = c.held + m.held, expected = c.expected + m.expected, settled = c.settled + m.settled
    FROM {_MOVE.unnest("m", first=_MOVES_FROM)}
    WHERE c.tenant_id = m.tenant_id AND c.limit_id = m.limit_id AND c.window_start = to_timestamp(m.starts)
    RETURNING c.held + c.settled <= m.most_held AND c.expected + c.settled <= m.most_expected
        AND (m.settled = 0 OR c.settled < c.alert_at) AS fits
),
ended AS (
    DELETE FROM attempt a USING {_ENDED.unnest("e", first=_ENDED_FROM)}
    WHERE a.tenant_id = e.tenant_id AND a.attempt_id = e.attempt_id AND a.top_ups = e.top_ups
    RETURNING 1
),
new AS MATERIALIZED (SELECT * FROM {ATTEMPT.unnest("new", first=_ATTEMPTS_FROM)}),
written AS MATERIALIZED (
    SELECT CASE WHEN $1::timestamptz IS NULL OR (
        clock.now >= $1 AND clock.now < $1 + interval '1 minute'
        AND (SELECT count(*) FROM moved WHERE fits) = $3::bigint AND (SELECT count(*) FROM ended) = $4::bigint
        AND NOT EXISTS (
            SELECT FROM new JOIN request_key k
                ON k.tenant_id = new.tenant_id AND k.request_id = new.request_id AND k.day = ANY ($8::date[])
            WHERE new.fingerprint <> ''
        )
        AND ledger_epoch() = $2::bigint
    ) THEN clock.now ELSE ledger_unfit() END AS at
    FROM clock
),
booked AS (
    INSERT INTO usage_record (settled_at, {RECORD.names})
    SELECT written.at, {RECORD.selected} FROM {RECORD.unnest("record", first=_RECORDS_FROM)}, written
),
started AS (
    INSERT INTO attempt (tenant_id, attempt_id, request_id, worker_epoch, dispatched_at, terms, holds)
    SELECT tenant_id, attempt_id, request_id, worker_epoch, $5::timestamptz, terms, holds FROM new, written
),
-- A call that goes on to another target: its request id stands for the attempt that is under way now.
passed_on AS (
    UPDATE request_key k SET attempt_id = new.attempt_id FROM new, written
    WHERE new.fingerprint = '' AND k.tenant_id = new.tenant_id AND k.request_id = new.request_id
        AND k.day = ANY ($6::date[])
),
claimed AS (
    INSERT INTO request_key (tenant_id, request_id, day, fingerprint, attempt_id)
    SELECT new.tenant_id, new.request_id, days.day, decode(new.fingerprint, 'hex'), new.attempt_id
    FROM new CROSS JOIN written CROSS JOIN unnest($7::date[]) AS days (day) WHERE new.fingerprint <> ''
    ORDER BY 1, 2, 3
)
SELECT at FROM written
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
        _LOOK, *_COUNTER.texts(counters), *ATTEMPT_KEY.texts(ending), *_REQUEST_KEY.texts(requests), days.seen
    )
    row = _epoch_row(row, "epoch")
    epoch, now, places, held, expected, settled, alerts, ended_places, holds, taken_places, fingerprints = row
    found = Look(epoch=epoch, now=now)
    if places:
        states = map(Counter.found, held, expected, settled, alerts)
        found.counters.update(zip([counters[place - 1] for place in places], states, strict=True))
    if ended_places:
        found.ended.update(zip([ending[place - 1][1].int for place in ended_places], holds, strict=True))
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
    admitted: Iterable[Reservation],
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
    ended = sorted(map(_ended_row, bookings), key=_attempt_integer) if plan else []
    try:
        at: datetime = await connection.fetchval(
            _WRITE,
            plan and plan.minute,
            plan and plan.epoch,
            len(moves),
            len(ended),
            dispatched_at,
            days.seen,
            days.claimed,
            days.earlier,
            *_MOVE.texts(moves),
            *_ENDED.texts(ended),
            *RECORD.texts(map(record_row, bookings)),
            *ATTEMPT.texts(map(attempt_row, admitted)),
        )
    except asyncpg.PostgresError as error:
        if plan and error.sqlstate in _PLAN_FAILED:
            raise PlanFailedError from error
        raise
    suspended = [booking for booking in bookings if booking.is_suspense]
    if suspended:
        await connection.execute(_OPEN_SUSPENSE, *SUSPENSE.texts(map(suspense_row, suspended)))
    return at


def _ended_row(booking: Booking) -> tuple[str, UUID, int]:
    terms = booking.reservation.terms
    return (terms.scope.tenant_id, terms.attempt_id, booking.reservation.top_ups)


def _attempt_integer(row: tuple[str, UUID, int]) -> int:
    """Sort attempts as PostgreSQL sorts them, by what is quick to compare."""
    return row[1].int


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
