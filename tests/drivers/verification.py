"""What `tollhouse ledger verify` finds, for tests that have made a ledger of their own."""

from tollhouse_server.database.engine import Database
from tollhouse_server.ledger.verification import LedgerVerification
from tollhouse_server.ledger.verification_store import Finding
from tollhouse_server.reporting.rollup_findings import rollup_findings


async def findings_in(database: Database, *, tenant: str | None = None) -> list[Finding]:
    """Verify a tenant's ledger, or everyone's, and return what does not add up."""
    events = LedgerVerification(database, rollup_findings).verify(tenant=tenant)
    return [event async for event in events if isinstance(event, Finding)]
