# ruff: noqa: S608 - what is put into the statement are columns of this room and numbers of parameters
"""The statement that writes a tick, put together from the parts that the tick has.

PostgreSQL sets up every node of a plan before it runs the first, so a tick with few works pays mostly for those that it
has no use for.
"""

from functools import cache
from typing import NamedTuple

from tollhouse_server.ledger.columns import Columns
from tollhouse_server.ledger.rows import ATTEMPT, RECORD

MOVE = Columns(
    "tenant_id text, limit_id bigint, starts bigint, held bigint, expected bigint, settled bigint,"
    "most_held bigint, most_expected bigint"
)
"""What is added to a counter, and the most that it may then come to: settled and held, and settled and expected."""


class Parts(NamedTuple):
    """What a tick writes besides its counters' moves.

    Parameters, each only with its part: `is_planned`: minute, epoch, number of moves. MOVE. `ends`: RECORD; both:
    number of attempts, sum of their top-ups, their tenants, their ids. `begins`: ATTEMPT, when they are sent, the days
    to claim; both: the day of an earlier claim. `passes_on`: the first and the last day on which a claim may stand.
    """

    is_planned: bool
    ends: bool
    begins: bool
    passes_on: bool


class _Places(NamedTuple):
    """The number of the first parameter of each part."""

    moves: int
    records: int
    ended: int
    attempts: int
    begun: int
    earlier: int
    seen: int


def _places(parts: Parts) -> _Places:
    moves = 1 + 3 * parts.is_planned
    records = moves + len(MOVE)
    ended = records + len(RECORD) * parts.ends
    attempts = ended + 4 * (parts.ends and parts.is_planned)
    begun = attempts + len(ATTEMPT) * parts.begins
    earlier = begun + 2 * parts.begins
    seen = earlier + (parts.begins and parts.is_planned)
    return _Places(moves, records, ended, attempts, begun, earlier, seen)


@cache
def write_sql(parts: Parts) -> str:
    """Return the statement, which answers with the moment of the bookings.

    After a look nothing can be other than it was seen. A planned tick has not looked: everything must be as it was
    planned, or nothing is written. Counters first, then attempts, then request ids: of two ticks that claim one id at
    the same moment the second waits for the first, and fails.
    """
    at = _places(parts)
    steps = ["clock AS MATERIALIZED (SELECT ledger_now() AS now)", _moved(parts, at)]
    if parts.ends and parts.is_planned:
        steps.append(_ended(at))
    if parts.begins:
        steps.append(f"new AS MATERIALIZED (SELECT * FROM {ATTEMPT.unnest('new', first=at.attempts)})")
    steps.append(_written(parts, at))
    if parts.ends:
        steps.append(_booked(at))
    if parts.begins:
        steps += [_started(at), _claimed(at)]
    if parts.passes_on:
        steps.append(_passed_on(at))
    return f"WITH {', '.join(steps)} SELECT at FROM written"


def _moved(parts: Parts, at: _Places) -> str:
    # In the order of the parameters, which is that of the keys: only nested loops are allowed here.
    moved = f"""
    UPDATE counter c
    SET held = c.held + m.held, expected = c.expected + m.expected, settled = c.settled + m.settled
    FROM {MOVE.unnest("m", first=at.moves)}
    WHERE c.tenant_id = m.tenant_id AND c.limit_id = m.limit_id AND c.window_start = to_timestamp(m.starts)"""
    fits = """
    RETURNING c.held + c.settled <= m.most_held AND c.expected + c.settled <= m.most_expected
        AND (m.settled = 0 OR c.settled < c.alert_at) AS fits"""
    return f"moved AS ({moved}{fits if parts.is_planned else ''})"


def _ended(at: _Places) -> str:
    # By arrays, not by a join: where the table was empty when it was last vacuumed, the planner joins by reading all of
    # its index, which has the entries of every call since.
    return f"""ended AS (
    DELETE FROM attempt
    WHERE tenant_id = ANY (${at.ended + 2}::text::text[]) AND attempt_id = ANY (${at.ended + 3}::text::uuid[])
    RETURNING top_ups
)"""


def _written(parts: Parts, at: _Places) -> str:
    if not parts.is_planned:
        return "written AS MATERIALIZED (SELECT now AS at FROM clock)"
    as_planned = [
        "clock.now >= $1::timestamptz AND clock.now < $1 + interval '1 minute'",
        # Room on each counter, and no alert due.
        "(SELECT count(*) FROM moved WHERE fits) = $3::bigint",
    ]
    if parts.ends:
        # Each attempt still in flight, with the holds that are known here: nobody knows of a top-up that was not, so
        # the sums are the same only if each number is.
        as_planned.append(
            f"(${at.ended}::bigint, ${at.ended + 1}::bigint) = (SELECT count(*), coalesce(sum(top_ups), 0) FROM ended)"
        )
    if parts.begins:
        # No request id taken on an earlier day, which the insertion would not notice.
        as_planned.append(f"""NOT EXISTS (
            SELECT FROM new JOIN request_key k
                ON k.tenant_id = new.tenant_id AND k.request_id = new.request_id AND k.day = ${at.earlier}::date
            WHERE new.fingerprint <> ''
        )""")
    # Asked for last: limits may have changed while this waited for a counter.
    as_planned.append("ledger_epoch() = $2::bigint")
    return f"""written AS MATERIALIZED (
    SELECT CASE WHEN {" AND ".join(as_planned)} THEN clock.now ELSE ledger_unfit() END AS at FROM clock
)"""


def _booked(at: _Places) -> str:
    return f"""booked AS (
    INSERT INTO usage_record (settled_at, {RECORD.names})
    SELECT written.at, {RECORD.selected} FROM {RECORD.unnest("record", first=at.records)}, written
)"""


def _started(at: _Places) -> str:
    return f"""started AS (
    INSERT INTO attempt (tenant_id, attempt_id, request_id, worker_epoch, dispatched_at, terms, holds)
    SELECT tenant_id, attempt_id, request_id, worker_epoch, ${at.begun}::timestamptz, terms, holds FROM new, written
)"""


def _claimed(at: _Places) -> str:
    return f"""claimed AS (
    INSERT INTO request_key (tenant_id, request_id, day, fingerprint, attempt_id)
    SELECT new.tenant_id, new.request_id, days.day, decode(new.fingerprint, 'hex'), new.attempt_id
    FROM new CROSS JOIN written CROSS JOIN unnest(${at.begun + 1}::date[]) AS days (day) WHERE new.fingerprint <> ''
    ORDER BY 1, 2, 3
)"""


def _passed_on(at: _Places) -> str:
    # A call that goes on to another target: its request id stands for the attempt that is under way now.
    return f"""passed_on AS (
    UPDATE request_key k SET attempt_id = new.attempt_id FROM new, written
    WHERE new.fingerprint = '' AND k.tenant_id = new.tenant_id AND k.request_id = new.request_id
        AND k.day BETWEEN ${at.seen}::date AND ${at.seen + 1}::date
)"""
