"""Whether the books are in order: the ledger, the audit trail, deliveries."""

import time
from typing import Final

from tollhouse_server.operations.checks import store
from tollhouse_server.operations.checks.terms import (
    Finding,
    Surroundings,
    duration_text,
    failure,
    fine,
    skipped,
    warning,
)
from tollhouse_server.operations.status_store import open_suspense
from tollhouse_server.telemetry.declarations import audit, ledger

_OLD_SUSPENSE_SECONDS: Final = 3600.0
_OLD_VERIFICATION_SECONDS: Final = 2 * 86_400.0
_OLD_ANCHOR_SECONDS: Final = 3600.0
_LATE_FACTOR: Final = 5


async def suspense(surroundings: Surroundings) -> Finding:
    """See whether somebody has to find out what became of calls."""
    async with surroundings.database.single_query() as session:
        found = await open_suspense(session, None)
    if found.oldest_at is None:
        return fine("nothing is in suspense")
    age = time.time() - found.oldest_at.timestamp()
    seen = f"{found.count} attempts, the oldest for {duration_text(age)}"
    if age < _OLD_SUSPENSE_SECONDS:
        return fine(seen)
    return warning(seen, "Find out what became of them: tollhouse ledger suspense list --tenant ID")


async def verification(surroundings: Surroundings) -> Finding:
    """See what the last verification of the whole ledger found."""
    at = await surroundings.scrape.value(ledger.LEDGER_VERIFIED)
    findings = int(await surroundings.scrape.value(ledger.LEDGER_FINDINGS) or 0)
    if findings:
        return failure(f"the ledger does not add up in {findings} places", "See which: tollhouse ledger verify")
    if not at:
        return skipped("not verified since this server began; it is every night")
    age = time.time() - at
    seen = f"it added up {duration_text(age)} ago"
    if age > _OLD_VERIFICATION_SECONDS:
        return warning(seen, "It should every night; do it now: tollhouse ledger verify")
    return fine(seen)


async def rollups(surroundings: Surroundings) -> Finding:
    """See that days that are over are rolled up, and to what the records say."""
    behind = int(await surroundings.scrape.value(ledger.TENANTS_BEHIND) or 0)
    differences = int(await surroundings.scrape.value(ledger.ROLLUP_DIFFERENCES) or 0)
    if differences:
        return failure(f"{differences} values differ from the records", "See which: tollhouse ledger verify")
    if behind:
        return warning(
            f"{behind} tenants have days to be rolled up", "See rollups in the server's log; reports are slower"
        )
    return fine("none behind")


async def checkpoints(surroundings: Surroundings) -> Finding:
    """See that the audit trail is signed in time."""
    age = await surroundings.scrape.value(audit.AUDIT_UNSIGNED)
    if age is None:
        return skipped("not known yet")
    if age <= 0:
        return fine("every event is signed")
    seen = f"the oldest unsigned event is {duration_text(age)} old"
    if age > _LATE_FACTOR * surroundings.settings.audit_checkpoint_seconds:
        return failure(seen, "Signing needs Vault: see vault.sealed, and audit in the server's log")
    return fine(seen)


async def anchor(surroundings: Surroundings) -> Finding:
    """See that what was signed is also outside the database."""
    at = await surroundings.scrape.value(audit.AUDIT_ANCHORED)
    if not at:
        return skipped("not anchored since this server began")
    age = time.time() - at
    seen = f"all checkpoints were in it {duration_text(max(0.0, age))} ago"
    if age > max(_OLD_ANCHOR_SECONDS, _LATE_FACTOR * surroundings.settings.audit_checkpoint_seconds):
        return failure(seen, "See that TOLLHOUSE_AUDIT_ANCHOR_DIR can be written; then tollhouse audit verify")
    return fine(seen)


async def deliveries(surroundings: Surroundings) -> Finding:
    """See whether statements have not gone out."""
    async with surroundings.database.single_query() as session:
        found = await store.delivery_counts(session)
    if found.failed:
        advice = f"See why, and send them again: tollhouse deliveries list --tenant {found.tenant_id}"
        return warning(f"{found.failed} have failed for good", advice)
    return fine("none has failed" + (f", {found.retried} are tried again" if found.retried else ""))
