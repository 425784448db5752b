"""The SQL of what keys were used for, and of what was unusual about it. All work in their caller's transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.custody.tables import KeyAnomalyRow
from tollhouse_server.database.rows import run_sql

_ADD = """
INSERT INTO key_use AS u (account_id, key_id, hour, calls, cost_nanos)
SELECT account_id, key_id, date_trunc('hour', now()), calls, cost_nanos
FROM unnest(CAST(:accounts AS text[]), CAST(:keys AS text[]), CAST(:calls AS bigint[]), CAST(:costs AS bigint[]))
    AS n (account_id, key_id, calls, cost_nanos)
ORDER BY account_id, key_id
ON CONFLICT ON CONSTRAINT key_use_pkey
    DO UPDATE SET calls = u.calls + excluded.calls, cost_nanos = u.cost_nanos + excluded.cost_nanos
"""

# A key without a past of its own is held against what keys of its account usually do: rotation makes new keys.
_RUNNING = """
WITH running AS (
    SELECT account_id, key_id, hour, calls, cost_nanos FROM key_use WHERE hour = date_trunc('hour', now())
), past AS (
    SELECT * FROM key_use
    WHERE hour < date_trunc('hour', now()) AND hour >= now() - make_interval(days => :days)
), own AS (
    SELECT account_id, key_id, count(*) AS hours, avg(calls) AS calls_mean, stddev_pop(calls) AS calls_deviation,
        avg(cost_nanos) AS cost_mean, stddev_pop(cost_nanos) AS cost_deviation
    FROM past GROUP BY account_id, key_id HAVING count(*) >= :least_hours
), everyone AS (
    SELECT account_id, count(DISTINCT hour) AS hours, avg(calls) AS calls_mean, stddev_pop(calls) AS calls_deviation,
        avg(cost_nanos) AS cost_mean, stddev_pop(cost_nanos) AS cost_deviation
    FROM past GROUP BY account_id HAVING count(DISTINCT hour) >= :least_hours
)
SELECT r.account_id, r.key_id, r.hour, r.calls, r.cost_nanos,
    coalesce(o.calls_mean, e.calls_mean)::bigint AS calls_mean,
    coalesce(o.calls_deviation, e.calls_deviation)::bigint AS calls_deviation,
    coalesce(o.cost_mean, e.cost_mean)::bigint AS cost_mean,
    coalesce(o.cost_deviation, e.cost_deviation)::bigint AS cost_deviation
FROM running r LEFT JOIN own o USING (account_id, key_id) LEFT JOIN everyone e USING (account_id)
WHERE o.hours IS NOT NULL OR e.hours IS NOT NULL
"""

_RAISE = """
INSERT INTO key_anomaly (account_id, key_id, hour, metric, amount, usual, deviation)
VALUES (:account_id, :key_id, :hour, :metric, :amount, :usual, :deviation)
ON CONFLICT ON CONSTRAINT key_anomaly_pkey DO NOTHING
"""

_LAST_USE = "SELECT key_id, max(hour) AS hour FROM key_use WHERE account_id = :account_id GROUP BY key_id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """How much of one metric a key was used for in the running hour, and per hour before it."""

    amount: int
    usual: int
    deviation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HourOfUse:
    """The running hour of a key beside its past."""

    account_id: str
    key_id: str
    hour: datetime
    calls: Past
    cost_nanos: Past


async def add_use(session: AsyncSession, counts: Mapping[tuple[str, str], Sequence[int]]) -> None:
    """Add (calls, nano-dollars) per key to the running hour."""
    rows = [(*key, *count) for key, count in counts.items()]
    accounts, keys, calls, costs = (list(values) for values in zip(*rows, strict=True))
    await run_sql(session, _ADD, {"accounts": accounts, "keys": keys, "calls": calls, "costs": costs})


async def running_hours(session: AsyncSession, *, days: int, least_hours: int) -> list[HourOfUse]:
    """Return the running hour of every key that has a past of at least so many hours of use in so many days."""
    rows = (await run_sql(session, _RUNNING, {"days": days, "least_hours": least_hours})).all()
    return [
        HourOfUse(
            account_id=row.account_id,
            key_id=row.key_id,
            hour=row.hour,
            calls=Past(amount=row.calls, usual=row.calls_mean, deviation=row.calls_deviation),
            cost_nanos=Past(amount=row.cost_nanos, usual=row.cost_mean, deviation=row.cost_deviation),
        )
        for row in rows
    ]


async def raise_anomaly(session: AsyncSession, use: HourOfUse, metric: str, past: Past) -> bool:
    """Note an unusual hour; False when it was noted before."""
    facts = {"account_id": use.account_id, "key_id": use.key_id, "hour": use.hour, "metric": metric}
    amounts = {"amount": past.amount, "usual": past.usual, "deviation": past.deviation}
    return (await run_sql(session, _RAISE, {**facts, **amounts})).rowcount == 1


async def last_use(session: AsyncSession, account_id: str) -> dict[str, datetime]:
    """Return the beginning of the last hour in which each key of an account was used."""
    rows = (await run_sql(session, _LAST_USE, {"account_id": account_id})).all()
    return {row.key_id: row.hour for row in rows}


async def anomalies(session: AsyncSession, account_id: str, *, days: int) -> Sequence[KeyAnomalyRow]:
    """Return what was unusual about an account's keys in the last days, newest first."""
    cutoff = (await run_sql(session, "SELECT now() - make_interval(days => :days) AS at", {"days": days})).one().at
    query = select(KeyAnomalyRow).where(KeyAnomalyRow.account_id == account_id, col(KeyAnomalyRow.raised_at) >= cutoff)
    return (await session.exec(query.order_by(col(KeyAnomalyRow.raised_at).desc()))).all()


async def forget_old_use(session: AsyncSession, *, days: int) -> None:
    """Drop hours and anomalies of which nothing is asked any more."""
    await run_sql(session, "DELETE FROM key_use WHERE hour < now() - make_interval(days => :days)", {"days": days})
    sql = "DELETE FROM key_anomaly WHERE raised_at < now() - make_interval(days => :days)"
    await run_sql(session, sql, {"days": days})
