"""The SQL of upstream accounts and of the metadata of their keys. Every function works in its caller's transaction.

A `version` that a function takes is the resource's version as the caller read it; None means no check.
"""

from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256
from typing import Any, TypeVar

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.epochs import Topic, bump
from tollhouse_server.database.integrity import constraints
from tollhouse_server.database.rows import change, check_version, find, insert
from tollhouse_server.errors import (
    FieldViolation,
    InvalidRequest,
    ResourceExists,
    ResourceInUse,
    ResourceNotFound,
)
from tollhouse_server.names import AccountName, UpstreamKeyName, invalid
from tollhouse_server.routing.tables import AccountRow, TierTargetRow, UpstreamKeyRow

_Row = TypeVar("_Row", AccountRow, UpstreamKeyRow)
_ACCOUNT_FIELDS = frozenset({"display_name", "project", "base_url_key", "region", "state"})
_KEY_FIELDS = frozenset({"display_name", "vault_version", "fingerprint", "state"})


# --- accounts ---------------------------------------------------------------------------------------------------------


async def create_account(session: AsyncSession, row: AccountRow, *, base_url_keys: Collection[str]) -> AccountRow:
    """Insert an account; `base_url_keys` are the addresses that the settings allow.

    Raises:
        ResourceExists: the id is taken.
        InvalidRequest: its address is not one of them.
    """
    _check_address(row.base_url_key, base_url_keys)
    with constraints({"account_pkey": ResourceExists(name=str(AccountName(row.account_id)))}):
        return await _insert(session, row)


async def get_account(session: AsyncSession, account_id: str) -> AccountRow:
    """Return an account.

    Raises:
        ResourceNotFound: there is none of this id.
    """
    row = await session.get(AccountRow, account_id)
    if row is None:
        raise ResourceNotFound(name=str(AccountName(account_id)))
    return row


async def list_accounts(session: AsyncSession, *, after: str = "", size: int = 1_000) -> Sequence[AccountRow]:
    """Return up to `size` accounts whose ids come after `after`, in their order."""
    query = select(AccountRow).where(col(AccountRow.account_id) > after)
    return (await session.exec(query.order_by(col(AccountRow.account_id)).limit(size))).all()


async def update_account(
    session: AsyncSession,
    account_id: str,
    changes: Mapping[str, Any],
    *,
    base_url_keys: Collection[str],
    version: int | None = None,
) -> AccountRow:
    """Change display_name, project, base_url_key, region or state; the kind of an account never changes.

    Raises:
        ResourceNotFound, EtagMismatch: as they say.
        InvalidRequest: a field that cannot be changed, or an address that settings do not allow.
    """
    _check_fields(changes, _ACCOUNT_FIELDS)
    if "base_url_key" in changes:
        _check_address(changes["base_url_key"], base_url_keys)
    row = await _locked_account(session, AccountName(account_id), version)
    return await _change(session, row, changes)


async def delete_account(session: AsyncSession, account_id: str, *, version: int | None = None) -> None:
    """Delete an account.

    Raises:
        ResourceNotFound, EtagMismatch: as they say.
        ResourceInUse: it still has keys, or a tier names it.
    """
    name = str(AccountName(account_id))
    row = await _locked_account(session, AccountName(account_id), version)
    query = select(TierTargetRow.tier).where(col(TierTargetRow.account_id) == account_id)
    tier = (await session.exec(query)).first()
    if tier is not None:
        raise ResourceInUse(name=name, used_by=f"tiers/{tier}")
    with constraints({"upstream_key_account_fkey": ResourceInUse(name=name, used_by="its upstream keys")}):
        await session.delete(row)
        await session.flush()
    await bump(session, Topic.ACCOUNTS)


# --- keys -------------------------------------------------------------------------------------------------------------


def fingerprint_of(secret: str) -> str:
    """Return what may be stored and shown of a key: the first 16 hex digits of its SHA-256."""
    return sha256(secret.encode()).hexdigest()[:16]


async def create_key(session: AsyncSession, row: UpstreamKeyRow) -> UpstreamKeyRow:
    """Insert a key's metadata.

    Raises:
        ResourceExists: the account has a key of this id.
        ResourceNotFound: there is no such account.
    """
    facts = {
        "upstream_key_pkey": ResourceExists(name=str(UpstreamKeyName(row.account_id, row.key_id))),
        "upstream_key_account_fkey": ResourceNotFound(name=str(AccountName(row.account_id))),
    }
    with constraints(facts):
        return await _insert(session, row)


async def get_key(session: AsyncSession, account_id: str, key_id: str) -> UpstreamKeyRow:
    """Return a key's metadata.

    Raises:
        ResourceNotFound: the account has no key of this id.
    """
    row = await session.get(UpstreamKeyRow, (account_id, key_id))
    if row is None:
        raise ResourceNotFound(name=str(UpstreamKeyName(account_id, key_id)))
    return row


async def list_keys(
    session: AsyncSession, account_id: str, *, after: str = "", size: int = 1_000
) -> Sequence[UpstreamKeyRow]:
    """Return up to `size` keys of an account whose ids come after `after`, in their order."""
    query = select(UpstreamKeyRow).where(
        col(UpstreamKeyRow.account_id) == account_id, col(UpstreamKeyRow.key_id) > after
    )
    return (await session.exec(query.order_by(col(UpstreamKeyRow.key_id)).limit(size))).all()


async def update_key(
    session: AsyncSession, account_id: str, key_id: str, changes: Mapping[str, Any], *, version: int | None = None
) -> UpstreamKeyRow:
    """Change display_name, vault_version, fingerprint or state (ACTIVE, DISABLED, QUARANTINED).

    Raises:
        ResourceNotFound, EtagMismatch: as they say.
        InvalidRequest: a field that cannot be changed.
    """
    _check_fields(changes, _KEY_FIELDS)
    row = await _locked_key(session, UpstreamKeyName(account_id, key_id), version)
    return await _change(session, row, changes)


async def delete_key(session: AsyncSession, account_id: str, key_id: str, *, version: int | None = None) -> None:
    """Delete a key's metadata; its secret is the Vault room's.

    Raises:
        ResourceNotFound, EtagMismatch: as they say.
    """
    row = await _locked_key(session, UpstreamKeyName(account_id, key_id), version)
    await session.delete(row)
    await session.flush()
    await bump(session, Topic.ACCOUNTS)


def _check_fields(changes: Mapping[str, Any], known: Collection[str]) -> None:
    wrong = sorted(set(changes) - set(known))
    if wrong:
        raise InvalidRequest(
            violations=tuple(FieldViolation(path=name, description="cannot be changed") for name in wrong)
        )


def _check_address(base_url_key: str, allowed: Collection[str]) -> None:
    """An account names an address of the settings: nobody can send keys to a host of his own choice."""
    if base_url_key not in allowed:
        raise invalid("base_url_key", f"must be one of: {', '.join(sorted(allowed))}")


async def _insert(session: AsyncSession, row: _Row) -> _Row:
    await insert(session, row)
    await bump(session, Topic.ACCOUNTS)
    return row


async def _locked_account(session: AsyncSession, name: AccountName, version: int | None) -> AccountRow:
    row = await find(session, select(AccountRow).where(AccountRow.account_id == name.account), name, lock=True)
    check_version(row, version, str(name))
    return row


async def _locked_key(session: AsyncSession, name: UpstreamKeyName, version: int | None) -> UpstreamKeyRow:
    query = select(UpstreamKeyRow).where(
        UpstreamKeyRow.account_id == name.account, UpstreamKeyRow.key_id == name.upstream_key
    )
    row = await find(session, query, name, lock=True)
    check_version(row, version, str(name))
    return row


async def _change(session: AsyncSession, row: _Row, changes: Mapping[str, Any]) -> _Row:
    await change(session, row, **changes)
    await bump(session, Topic.ACCOUNTS)
    return row
