"""The tick's SQL for what became of attempts while this process was cut off or taken for dead, and of its sessions."""

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from tollhouse_server.ledger import store
from tollhouse_server.ledger.columns import Columns
from tollhouse_server.ledger.connections import as_login
from tollhouse_server.ledger.rows import ATTEMPT_KEY
from tollhouse_server.ledger.store import AttemptKey
from tollhouse_server.ledger.terms import Amounts, CallTerms, RecordKind, Reservation

if TYPE_CHECKING:
    from tollhouse_server.ledger.store import Connection

_STARTED_AT = "SELECT backend_start FROM pg_stat_get_activity(pg_backend_pid())"

_SESSION = Columns("pid integer, started_at timestamptz")

_END_SESSIONS = f"""
SELECT coalesce(bool_and(pg_terminate_backend(a.pid, 3000)), true) FROM {_SESSION.unnest("lost", first=1)}
JOIN pg_stat_get_activity(NULL) a ON a.pid = lost.pid AND a.backend_start = lost.started_at
"""  # noqa: S608 - columns of this module

# Whoever inserts a key waits for a transaction that is inserting it too: after this nothing is in doubt any more.
_WAIT_FOR_ATTEMPTS = f"""
INSERT INTO attempt (tenant_id, attempt_id, request_id, worker_epoch, dispatched_at, terms, holds)
SELECT tenant_id, attempt_id, attempt_id, 0, now(), '{{}}', '[]'
FROM {ATTEMPT_KEY.unnest("doubtful", first=1)}
ON CONFLICT DO NOTHING
RETURNING tenant_id, attempt_id
"""  # noqa: S608 - columns of this module

_END_ATTEMPTS = f"""
DELETE FROM attempt a USING {ATTEMPT_KEY.unnest("ended", first=1)}
WHERE a.tenant_id = ended.tenant_id AND a.attempt_id = ended.attempt_id
"""  # noqa: S608 - columns of this module

_LOAD_ENDED = f"""
SELECT r.attempt_id, r.kind, r.holds::text FROM {ATTEMPT_KEY.unnest("wanted", first=1)}
JOIN usage_record r USING (tenant_id, attempt_id)
WHERE r.kind <> 'ADJUSTMENT'
"""  # noqa: S608 - columns of this module

_CLOSE_SUSPENSE = """
UPDATE suspense SET resolved_at = now(), resolution = $3
WHERE tenant_id = $1 AND attempt_id = $2 AND resolved_at IS NULL
RETURNING requests, input_tokens, output_tokens, images, cost_nanos
"""

_FIND_BOOKING = """
SELECT coalesce((SELECT s.resolved_by FROM suspense s WHERE s.tenant_id = $1 AND s.attempt_id = $2), '')
FROM usage_record WHERE tenant_id = $1 AND attempt_id = $2 LIMIT 1
"""


class Session(NamedTuple):
    """A session of PostgreSQL; the server may give its process id to another one later."""

    pid: int
    started_at: datetime


async def session_of(connection: "Connection") -> Session:
    """Return the session of a connection."""
    async with as_login(connection):
        return Session(connection.get_server_pid(), await connection.fetchval(_STARTED_AT))


async def end_sessions(connection: "Connection", sessions: Iterable[Session]) -> bool:
    """End sessions, whatever they are at; tell whether all have ended, or were over already."""
    async with as_login(connection):
        have_ended: bool = await connection.fetchval(_END_SESSIONS, *_SESSION.texts(sessions))
    return have_ended


async def recognise_attempts(connection: "Connection", attempts: Iterable[AttemptKey]) -> dict[int, Reservation]:
    """Return those attempts in flight of which nobody knew whether their commit happened; wait until that is clear."""
    keys = sorted(attempts)
    made = await connection.fetch(_WAIT_FOR_ATTEMPTS, *ATTEMPT_KEY.texts(keys))
    await connection.execute(_END_ATTEMPTS, *ATTEMPT_KEY.texts([(row[0], UUID(int=row[1].int)) for row in made]))
    return await store.load_attempts(connection, keys)


class EndedCall(NamedTuple):
    """How an attempt has ended, and its holds as JSON."""

    kind: RecordKind
    holds_text: str


async def load_ended(connection: "Connection", attempts: Iterable[AttemptKey]) -> dict[int, EndedCall]:
    """Return how those of the attempts that have a record have ended."""
    rows = await connection.fetch(_LOAD_ENDED, *ATTEMPT_KEY.texts(sorted(attempts)))
    return {row[0].int: EndedCall(RecordKind(row[1]), row[2]) for row in rows}


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
