"""The SQL of quarantine."""

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.epochs import Topic, bump
from tollhouse_server.database.rows import run_sql

_QUARANTINE = """
UPDATE upstream_key SET state = 'QUARANTINED', version = version + 1, updated_at = now()
WHERE account_id = :account_id AND key_id = :key_id AND fingerprint = :fingerprint AND state = 'ACTIVE'
"""


async def quarantine(session: AsyncSession, account_id: str, key_id: str, *, fingerprint: str) -> bool:
    """Quarantine a key that is active and still has this fingerprint, and tell everyone; False where it is not."""
    wanted = {"account_id": account_id, "key_id": key_id, "fingerprint": fingerprint}
    if (await run_sql(session, _QUARANTINE, wanted)).rowcount != 1:
        return False
    await bump(session, Topic.ACCOUNTS)
    return True
