"""The SQL of rotation policies. Every function works in its caller's transaction."""

from datetime import timedelta
from typing import Any

from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.custody.tables import KeyPolicyRow
from tollhouse_server.custody.terms import DEFAULT_POLICY, KeyPolicy, ProviderKind
from tollhouse_server.database.rows import change, check_version, insert
from tollhouse_server.names import KeyPolicyName


async def find_policy(session: AsyncSession, account_id: str, *, lock: bool = False) -> KeyPolicyRow | None:
    """Return what was set for an account, None where nothing was."""
    query = select(KeyPolicyRow).where(KeyPolicyRow.account_id == account_id)
    if lock:
        query = query.with_for_update()
    return (await session.exec(query.execution_options(populate_existing=True))).one_or_none()


async def policy_of(session: AsyncSession, account_id: str) -> KeyPolicy:
    """Return how an account's keys are rotated."""
    return policy_in(await find_policy(session, account_id))


def policy_in(row: KeyPolicyRow | None) -> KeyPolicy:
    """Return what a row says, the defaults without one."""
    if row is None:
        return DEFAULT_POLICY
    return KeyPolicy(
        provider=ProviderKind(row.provider),
        rotation_period=timedelta(days=row.rotation_period_days),
        drain_seconds=row.drain_seconds,
    )


async def set_policy(
    session: AsyncSession, account_id: str, policy: KeyPolicy, *, version: int | None = None
) -> KeyPolicyRow:
    """Set how an account's keys are rotated from now on; rotations under way go on as they began.

    Raises:
        EtagMismatch: it is at another version; one that was never set is at version 0.
    """
    values: dict[str, Any] = {
        "provider": policy.provider.value,
        "rotation_period_days": policy.rotation_period.days,
        "drain_seconds": policy.drain_seconds,
    }
    row = await find_policy(session, account_id, lock=True)
    if row is None:
        fresh = KeyPolicyRow(account_id=account_id, version=0, **values)
        check_version(fresh, version, str(KeyPolicyName(account_id)))
        fresh.version = 1
        return await insert(session, fresh)
    check_version(row, version, str(KeyPolicyName(account_id)))
    return await change(session, row, **values)
