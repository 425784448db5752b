"""A ledger after a mixed run: every kind of limit and window, every way in which an attempt ends, some in flight."""

import asyncio
from dataclasses import dataclass
from uuid import UUID

from tollhouse_server.database.engine import Database
from tollhouse_server.ledger import suspense_store
from tollhouse_server.ledger.suspense_store import Resolution, Ruling
from tollhouse_server.ledger.terms import NOT_SENT, Amounts, Reservation, suspended
from tollhouse_server.names import SuspenseName

from tests.drivers.ledger import LedgerProcess, LedgerView, settled, terms

LIMITS = (
    ("budget", "tenants/acme", "COST", "MONTH", ""),
    ("for-ever", "tenants/acme", "COST", "TOTAL", ""),
    ("calls", "tenants/acme/departments/research", "REQUESTS", "DAY", ""),
    ("tokens", "tenants/acme/departments/vision/projects/labels", "OUTPUT_TOKENS", "ROLLING_10_MINUTES", ""),
    ("flash", "tenants/acme", "INPUT_TOKENS", "HOUR", "tiers/flash"),
    ("pro", "tenants/acme", "COST", "MONTH", "tiers/pro"),
    ("abreast", "tenants/acme", "CONCURRENCY", "TOTAL", ""),
    ("fiscal", "tenants/acme", "COST", "FISCAL_MONTH", ""),
)
ADMIN = "tenants/acme/principals/ann"


@dataclass(frozen=True, slots=True)
class MixedRun:
    """What a mixed run left behind: attempts by how they ended."""

    in_flight: list[Reservation]
    settled: list[UUID]
    refused: list[UUID]
    open: list[UUID]
    accepted: UUID
    voided: UUID
    actual: UUID
    late: UUID


async def mixed_run(view: LedgerView, process: LedgerProcess, database: Database) -> MixedRun:
    """Make the limits of tenant acme, which must be there, and let calls end in every way."""
    for name, scope, metric, window, selector in LIMITS:
        await view.add_limit(name, scope, metric, window, 10**12, selector)
    ledger = process.ledger
    calls = [await ledger.reserve(terms(cost_nanos=100 + n), timeout_seconds=5) for n in range(20)]
    await asyncio.gather(*(ledger.settle(call, settled(50 + n)) for n, call in enumerate(calls[:8])))
    await asyncio.gather(*(ledger.settle(call, NOT_SENT) for call in calls[8:10]))
    await asyncio.gather(*(ledger.settle(call, suspended(call)) for call in calls[10:16]))
    ids = [call.terms.attempt_id for call in calls]
    await ledger.settle(calls[10], settled(40))
    await resolve(database, ids[11], Resolution.ACCEPT)
    await resolve(database, ids[12], Resolution.VOID)
    await resolve(database, ids[13], Resolution.ACTUAL, Amounts(1, 3, 4, 0, 77))
    return MixedRun(
        in_flight=calls[16:],
        settled=ids[:8],
        refused=ids[8:10],
        open=ids[14:16],
        accepted=ids[11],
        voided=ids[12],
        actual=ids[13],
        late=ids[10],
    )


async def resolve(database: Database, attempt: UUID, resolution: Resolution, actual: Amounts | None = None) -> None:
    """Resolve the suspense of one attempt of tenant acme."""
    ruling = Ruling(resolution=resolution, actual=actual, resolved_by=ADMIN, reason="Google's bill says so")
    async with database.transaction() as session:
        entry = await suspense_store.get_suspense(session, SuspenseName("acme", str(attempt)))
        await suspense_store.resolve(session, entry, ruling)
