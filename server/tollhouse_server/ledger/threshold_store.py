"""The SQL with which a tick raises alerts, in the transaction of the settlement that caused them."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from tollhouse_server.ledger.definition_store import NO_ALERT
from tollhouse_server.ledger.terms import CounterKey

if TYPE_CHECKING:
    from tollhouse_server.ledger.store import Connection
from tollhouse_server.ledger.windows import moment

# Works out what each counter has reached by the amount in force, writes what is new, and notes what comes next. While
# an increase has not expired nothing is noted: nobody says so when it does, and less may be enough then. A minute of a
# rolling window raises nothing: it is the sum of the minutes that counts.
_RAISE = f"""
WITH reached AS MATERIALIZED (
    SELECT w.tenant_id, w.limit_id, w.window_start, w.settled::numeric AS settled, l.thresholds, l.alert_round,
        l."window" = 'ROLLING_10_MINUTES' AS is_rolling, increases.are_open AS will_change,
        l.amount::numeric + coalesce(increases.amount, 0) AS amount
    FROM unnest($1::text[], $2::bigint[], $3::timestamptz[], $4::bigint[])
        AS w (tenant_id, limit_id, window_start, settled)
    JOIN usage_limit l ON l.tenant_id = w.tenant_id AND l.limit_id = w.limit_id
    CROSS JOIN LATERAL (
        SELECT count(*) > 0 AS are_open, sum(i.amount) FILTER (WHERE coalesce(i.starts_at, $5) <= $5) AS amount
        FROM limit_increase i
        WHERE i.tenant_id = l.tenant_id AND i.limit_id = l.limit_id AND i.state = 'APPROVED' AND i.expires_at > $5
    ) AS increases
),
raised AS (
    INSERT INTO limit_alert (
        tenant_id, limit_id, window_start, kind, threshold, settled, amount, raised_at, alert_round)
    SELECT r.tenant_id, r.limit_id, r.window_start, 'THRESHOLD', t.per_cent, r.settled, r.amount, $5, r.alert_round
    FROM reached r CROSS JOIN unnest(r.thresholds) AS t (per_cent)
    WHERE r.settled > 0 AND r.settled * 100 >= r.amount * t.per_cent
        AND NOT r.is_rolling
    UNION ALL
    SELECT r.tenant_id, r.limit_id, r.window_start, 'PASSED', 0, r.settled, r.amount, $5, r.alert_round
    FROM reached r WHERE r.settled > r.amount
        AND NOT r.is_rolling
    ON CONFLICT DO NOTHING
)
UPDATE counter c SET alert_at = CASE
    WHEN r.is_rolling THEN {NO_ALERT}
    WHEN r.will_change THEN 0
    ELSE least(
        (SELECT min(div(r.amount * t.per_cent + 99, 100)) FROM unnest(r.thresholds) AS t (per_cent)
         WHERE r.settled * 100 < r.amount * t.per_cent),
        CASE WHEN r.settled <= r.amount THEN r.amount + 1 END,
        {NO_ALERT})
    END
FROM reached r
WHERE c.tenant_id = r.tenant_id AND c.limit_id = r.limit_id AND c.window_start = r.window_start
"""  # noqa: S608 - a constant of this module

_ABOVE_HOLD = """
INSERT INTO limit_alert (tenant_id, limit_id, window_start, kind, settled, amount, attempt_id, raised_at)
SELECT tenant_id, limit_id, window_start, 'ABOVE_HOLD', settled, held, attempt_id, $7
FROM unnest($1::text[], $2::bigint[], $3::timestamptz[], $4::bigint[], $5::bigint[], $6::uuid[])
    AS above (tenant_id, limit_id, window_start, settled, held, attempt_id)
"""


class AboveHold(NamedTuple):
    """A settlement that was more than what had been held for it on one counter."""

    key: CounterKey
    settled: int
    held: int
    attempt_id: UUID


async def raise_alerts(connection: "Connection", reached: Sequence[tuple[CounterKey, int]], now: datetime) -> None:
    """Raise what these (counter, settled) have reached, once each, and note when to look again."""
    await connection.execute(
        _RAISE,
        [key.tenant_id for key, _ in reached],
        [key.limit_id for key, _ in reached],
        [moment(key.window_start) for key, _ in reached],
        [settled for _, settled in reached],
        now,
    )


async def raise_above_hold(connection: "Connection", above: Sequence[AboveHold], now: datetime) -> None:
    """Raise one alert for each settlement above its hold: a ceiling that was too low is a defect to look into."""
    await connection.execute(
        _ABOVE_HOLD,
        [one.key.tenant_id for one in above],
        [one.key.limit_id for one in above],
        [moment(one.key.window_start) for one in above],
        [one.settled for one in above],
        [one.held for one in above],
        [one.attempt_id for one in above],
        now,
    )
