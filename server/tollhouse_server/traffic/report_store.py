"""The SQL of processes' reports and of accounts' days. Every function works in its caller's transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

import orjson
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.rows import run_sql

LIVING_SECONDS: Final = 5.0
"""A process that has said nothing for so long is taken for dead."""

LEAVES: Final = "leaves"
"""This section stands in the report of a process that takes no calls any more: it claims no share."""

READ_SECONDS: Final = 660.0
"""What a dead process used counts for as long as the longest window is."""

# All in one statement, so in one round trip. Days are counted in the order of their key: two processes that count the
# same ones must not deadlock. The reads see what was there before this statement.
_EXCHANGE = """
WITH published AS (
    INSERT INTO process_report (process_key, reported_at, sections)
    VALUES (:process_key, clock_timestamp(), CAST(:sections AS jsonb))
    ON CONFLICT (process_key) DO UPDATE SET reported_at = excluded.reported_at, sections = excluded.sections
), counted AS (
    INSERT INTO account_day (day, account_id, model, requests)
    SELECT day, account_id, model, requests
    FROM jsonb_to_recordset(CAST(:counts AS jsonb)) AS c (day date, account_id text, model text, requests bigint)
    ORDER BY day, account_id, model
    ON CONFLICT (day, account_id, model) DO UPDATE SET requests = account_day.requests + excluded.requests
)
SELECT
    (SELECT jsonb_agg(jsonb_build_array(
        process_key, extract(epoch FROM clock_timestamp() - reported_at), sections
    )) FROM process_report
    WHERE process_key <> :process_key
    AND reported_at > clock_timestamp() - make_interval(secs => :read_seconds)) AS reports,
    (SELECT jsonb_agg(jsonb_build_array(account_id, model, requests)) FROM account_day WHERE day = :today) AS days
"""

_LIVING = """
SELECT process_key, reported_at, sections FROM process_report
WHERE reported_at > clock_timestamp() - make_interval(secs => :seconds) AND NOT jsonb_exists(sections, :leaves)
ORDER BY process_key
"""

_FORGET_REPORTS = "DELETE FROM process_report WHERE reported_at < clock_timestamp() - make_interval(secs => :seconds)"

# The days are Pacific ones, the database's may be any: two back is over everywhere.
_FORGET_DAYS = "DELETE FROM account_day WHERE day < CURRENT_DATE - 2"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessReport:
    """What one process said last, by the database's clock."""

    process_key: str
    reported_at: datetime
    sections: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeardReport:
    """What another process said `age_seconds` ago."""

    process_key: str
    age_seconds: float
    sections: Mapping[str, Any]

    @property
    def is_living(self) -> bool:
        """Tell whether it may still use what it has a share of."""
        return self.age_seconds <= LIVING_SECONDS and LEAVES not in self.sections


@dataclass(frozen=True, slots=True, kw_only=True)
class DayCount:
    """Requests of an account for a model, or for all when that is empty, on a day of the Pacific calendar."""

    day: str
    account_id: str
    model: str
    requests: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """What was read: other processes' reports, and today's requests by (account, model), counted before this one.

    `process_key` is one's own.
    """

    process_key: str
    reports: Sequence[HeardReport]
    requests_today: Mapping[tuple[str, str], int]


async def exchange(
    session: AsyncSession, *, process_key: str, sections: Mapping[str, Any], counts: Sequence[DayCount], today: str
) -> Exchange:
    """Publish a process's report, add its day counts, and read the others'."""
    found = await run_sql(
        session,
        _EXCHANGE,
        {
            "process_key": process_key,
            "sections": orjson.dumps(sections).decode(),
            "counts": orjson.dumps(counts).decode(),
            "today": date.fromisoformat(today),
            "read_seconds": READ_SECONDS,
        },
    )
    read = found.mappings().one()
    return Exchange(
        process_key=process_key,
        reports=[
            HeardReport(process_key=key, age_seconds=float(age_seconds), sections=said)
            for key, age_seconds, said in _json(read["reports"])
        ],
        requests_today={(account_id, model): requests for account_id, model, requests in _json(read["days"])},
    )


async def list_living(session: AsyncSession) -> Sequence[ProcessReport]:
    """Return the last reports of the processes that live."""
    found = await run_sql(session, _LIVING, {"seconds": LIVING_SECONDS, "leaves": LEAVES})
    return [
        ProcessReport(process_key=row.process_key, reported_at=row.reported_at, sections=_json(row.sections))
        for row in found
    ]


async def forget_old(session: AsyncSession) -> None:
    """Delete what nobody reads any more."""
    await run_sql(session, _FORGET_REPORTS, {"seconds": 2 * READ_SECONDS})
    await run_sql(session, _FORGET_DAYS)


def _json(value: Any) -> Any:
    """Return a jsonb value, which the driver hands over as text or parsed."""
    return orjson.loads(value) if isinstance(value, str | bytes) else value or []
