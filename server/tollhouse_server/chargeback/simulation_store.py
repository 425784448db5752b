"""The SQL of simulations: a month's records in the order in which they were sent, a few at a time."""

from collections.abc import AsyncIterator
from typing import Any, Final

from sqlalchemy import BigInteger, column, select
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.chargeback.rerouting import PastUsage
from tollhouse_server.chargeback.simulation import PastCall
from tollhouse_server.ledger.terms import Amounts, CallTerms, RecordKind
from tollhouse_server.ledger.terms import Scope as CallScope
from tollhouse_server.names import Scope
from tollhouse_server.reporting.facts import in_period, in_scope
from tollhouse_server.reporting.periods import Period
from tollhouse_server.reporting.rollup_store import require_records
from tollhouse_server.reporting.tables import RECORD

_RECORDS_AT_A_TIME: Final = 2_000

_NAMES: Final = (
    *("attempt_id", "request_id", "kind", "dispatched_at", "settled_at", "department_path", "project_id"),
    *("credential_id", "method", "tier", "model", "account_id", "price_version", "input_tokens", "output_tokens"),
    *("images", "cost_nanos"),
)


async def stream_calls(session: AsyncSession, scope: Scope, period: Period) -> AsyncIterator[list[PastCall]]:
    """Yield the records that were booked in a period as calls, in the order in which they were sent.

    Raises:
        RecordsDropped: some of them were dropped after an export.
    """
    more = (column("requests", BigInteger), column("ceiling_nanos", BigInteger))
    query = select(*(RECORD.c[name] for name in _NAMES), *more)
    scopes: dict[tuple[object, ...], CallScope] = {}
    async for rows in _streamed(session, query, scope, period):
        yield [_call(row, _scope_of(row, scope.tenant, scopes)) for row in rows]


async def stream_usage(session: AsyncSession, scope: Scope, period: Period) -> AsyncIterator[list[PastUsage]]:
    """Yield what the records that were booked in a period say of usage, in the order in which they were sent.

    Raises:
        RecordsDropped: some of them were dropped after an export.
    """
    names = ("tier", "model", "dispatched_at", "cost_nanos", "usage")
    query = select(*(RECORD.c[name] for name in names))
    async for rows in _streamed(session, query, scope, period):
        yield [PastUsage(*row) for row in rows]


async def _streamed(session: AsyncSession, query: Any, scope: Scope, period: Period) -> AsyncIterator[Any]:
    await require_records(session, scope.tenant, [period])
    query = query.where(*in_scope(RECORD, scope), *in_period(period))
    query = query.order_by(RECORD.c.dispatched_at, RECORD.c.attempt_id, RECORD.c.settled_at)
    connection = await session.connection()
    async with connection.stream(query) as result:
        async for rows in result.partitions(_RECORDS_AT_A_TIME):
            yield rows


def _scope_of(row: Any, tenant: str, known: dict[tuple[object, ...], CallScope]) -> CallScope:
    path = tuple(row.department_path)
    key = (path, row.project_id, row.credential_id)
    found = known.get(key)
    if found is None:
        project = f"tenants/{tenant}/departments/{path[-1]}/projects/{row.project_id}"
        found = known[key] = CallScope(
            tenant_id=tenant,
            department_path=path,
            project_id=row.project_id,
            credential_id=row.credential_id,
            credential_name=f"{project}/apiKeys/{row.credential_id}",
            principal_id="",
        )
    return found


def _call(row: Any, scope: CallScope) -> PastCall:
    used = Amounts(row.requests, row.input_tokens, row.output_tokens, row.images, row.cost_nanos)
    terms = CallTerms(
        attempt_id=row.attempt_id,
        request_id=row.request_id,
        fingerprint=b"",
        first=True,
        scope=scope,
        method=row.method,
        tier=row.tier,
        model=row.model,
        account_id=row.account_id,
        labels={},
        price_version=row.price_version,
        # A call is one request while it is in flight; it never held less than it came to.
        ceiling=used._replace(requests=1, cost_nanos=max(row.ceiling_nanos, row.cost_nanos)),
    )
    return PastCall(
        terms=terms,
        used=used,
        dispatched_at=row.dispatched_at,
        settled_at=row.settled_at,
        is_correction=row.kind == RecordKind.ADJUSTMENT.value,
    )
