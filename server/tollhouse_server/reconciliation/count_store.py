"""The SQL of counts: the ledger's attempts by Google project, model and day of US Pacific time."""

from datetime import date
from typing import Final

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.rows import run_sql
from tollhouse_server.ledger.windows import midnight
from tollhouse_server.reconciliation.counts import CountKey, Counts
from tollhouse_server.reconciliation.dates import PACIFIC
from tollhouse_server.reconciliation.use_store import CORRECTED_WITHIN
from tollhouse_server.upstream.protocol import UpstreamKind

# A correction is no attempt of its own, and has the rest of its attempt's tokens.
_ATTEMPTS: Final = """
SELECT CAST(r.dispatched_at AT TIME ZONE :zone AS date) AS day,
    coalesce(nullif(a.project, ''), r.account_id) AS project, r.model,
    count(*) FILTER (WHERE r.kind <> 'ADJUSTMENT') AS requests,
    count(*) FILTER (WHERE r.kind = 'REFUSED') AS refused,
    count(*) FILTER (WHERE r.kind = 'SUSPENSE') AS unknown,
    coalesce(sum(r.input_tokens + r.output_tokens) FILTER (WHERE r.kind <> 'REFUSED'), 0) AS tokens
FROM usage_record r LEFT JOIN account a ON a.account_id = r.account_id
WHERE r.settled_at >= :start AND r.settled_at < :settled_until AND r.dispatched_at >= :start AND r.dispatched_at < :end
    AND r.account_id <> '' AND coalesce(a.kind, '') <> :own_models
GROUP BY 1, 2, 3
"""


async def attempts_of_days(session: AsyncSession, first: date, last: date) -> dict[CountKey, Counts]:
    """Return what was sent to Google on the days from `first` to before `last`, of all tenants."""
    start, end = midnight(first, PACIFIC), midnight(last, PACIFIC)
    values: dict[str, object] = {"zone": str(PACIFIC), "start": start, "end": end}
    values |= {"settled_until": end + CORRECTED_WITHIN, "own_models": UpstreamKind.OPENAI_COMPATIBLE.value}
    rows = await run_sql(session, _ATTEMPTS, values)
    return {
        CountKey(row.day, row.project, row.model): Counts(
            requests=row.requests, tokens=int(row.tokens), refused=row.refused, unknown=row.unknown
        )
        for row in rows
    }
