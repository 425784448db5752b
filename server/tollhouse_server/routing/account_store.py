"""The SQL of upstream accounts and of the metadata of their keys. Every function works in its caller's transaction.

A `version` that a function takes is the resource's version as the caller read it; None means no check.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, TypeVar

from sqlalchemy import delete
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
from tollhouse_server.names import AccountName, TenantName, UpstreamKeyName
from tollhouse_server.routing.addresses import Addresses
from tollhouse_server.routing.tables import AccountLimitRow, AccountRow, ModelRow, TierTargetRow, UpstreamKeyRow
from tollhouse_server.routing.targets import AccountLimit, AccountMetric
from tollhouse_server.tenancy.store import get_tenant

_Row = TypeVar("_Row", AccountRow, UpstreamKeyRow)
_ACCOUNT_FIELDS = frozenset(
    {"display_name", "project", "base_url_key", "region", "egress", "tenant_id", "environment", "state"}
)
_WAY = {"endpoint": "base_url_key", "egress": "egress", "region": "region", "google_project": "project"}
_KEY_FIELDS = frozenset({"display_name", "vault_version", "fingerprint", "state"})


# --- accounts ---------------------------------------------------------------------------------------------------------


async def create_account(
    session: AsyncSession, row: AccountRow, *, addresses: Addresses, limits: Sequence[AccountLimit] = ()
) -> AccountRow:
    """Insert an account with its limits; `addresses` are what the settings allow.

    Raises:
        ResourceExists: the id is taken.
        ResourceNotFound: there is no such tenant.
        InvalidRequest: it cannot be reached as it says, or a limit is of an unknown model or there twice.
    """
    _refuse(addresses.violations(row))
    await _check_tenant(session, row.tenant_id)
    with constraints({"account_pkey": ResourceExists(name=str(AccountName(row.account_id)))}):
        await _insert(session, row)
    await _put_limits(session, row.account_id, limits)
    return row


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


async def limits_of(session: AsyncSession, account_ids: Collection[str]) -> dict[str, tuple[AccountLimit, ...]]:
    """Return the limits of each of these accounts, in the order of metrics and models; none for one without."""
    query = select(AccountLimitRow).where(col(AccountLimitRow.account_id).in_(account_ids))
    rows = (await session.exec(query.order_by(col(AccountLimitRow.model)))).all()
    found: dict[str, tuple[AccountLimit, ...]] = {}
    for metric in AccountMetric:
        for row in rows:
            if row.metric == metric:
                limit = AccountLimit(metric=metric, amount=row.amount, model=row.model)
                found[row.account_id] = (*found.get(row.account_id, ()), limit)
    return found


async def update_account(
    session: AsyncSession,
    account_id: str,
    changes: Mapping[str, Any],
    *,
    addresses: Addresses,
    limits: Sequence[AccountLimit] | None = None,
    version: int | None = None,
) -> AccountRow:
    """Change an account's columns but its id and kind; `limits`, if not None, replace all that it has.

    Raises:
        ResourceNotFound, EtagMismatch: as they say; also for a tenant that does not exist.
        InvalidRequest: a field that cannot be changed, a way that settings do not allow, or a limit that cannot be.
    """
    _check_fields(changes, _ACCOUNT_FIELDS)
    row = await _locked_account(session, AccountName(account_id), version)
    _check_way(row, changes, addresses)
    if changes.get("tenant_id", row.tenant_id) != row.tenant_id:
        await _check_tenant(session, changes["tenant_id"])
    before = (await limits_of(session, [account_id])).get(account_id, ())
    if limits is None or set(limits) == set(before):
        return await _change(session, row, changes)
    await _put_limits(session, account_id, limits)
    # Limits are part of the resource: its version counts up though no column of its own may change.
    return await _change(session, row, {**changes, "updated_at": datetime.now(UTC)})


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


async def lock_key(session: AsyncSession, name: UpstreamKeyName, *, version: int | None = None) -> UpstreamKeyRow:
    """Return a key's metadata, which stays as it is until the transaction ends.

    Raises:
        ResourceNotFound, EtagMismatch: as they say.
    """
    query = select(UpstreamKeyRow).where(
        UpstreamKeyRow.account_id == name.account, UpstreamKeyRow.key_id == name.upstream_key
    )
    row = await find(session, query, name, lock=True)
    check_version(row, version, str(name))
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
    row = await lock_key(session, UpstreamKeyName(account_id, key_id), version=version)
    return await _change(session, row, changes)


async def delete_key(session: AsyncSession, account_id: str, key_id: str, *, version: int | None = None) -> None:
    """Delete a key's metadata; its secret is the Vault room's.

    Raises:
        ResourceNotFound, EtagMismatch: as they say.
    """
    row = await lock_key(session, UpstreamKeyName(account_id, key_id), version=version)
    await session.delete(row)
    await session.flush()
    await bump(session, Topic.ACCOUNTS)


def _check_fields(changes: Mapping[str, Any], known: Collection[str]) -> None:
    wrong = sorted(set(changes) - set(known))
    if wrong:
        raise InvalidRequest(
            violations=tuple(FieldViolation(path=name, description="cannot be changed") for name in wrong)
        )


def _check_way(row: AccountRow, changes: Mapping[str, Any], addresses: Addresses) -> None:
    """Refuse what a change makes wrong; an account whose address has left the settings may still be renamed."""
    before = addresses.violations(row)
    after = addresses.violations(AccountRow(**{**row.model_dump(), **changes}))
    set_anew = {
        f"account.{name}"
        for name, column in _WAY.items()
        if column in changes and changes[column] != getattr(row, column)
    }
    _refuse(tuple(violation for violation in after if violation not in before or violation.path in set_anew))


def _refuse(violations: tuple[FieldViolation, ...]) -> None:
    if violations:
        raise InvalidRequest(violations=violations)


async def _check_tenant(session: AsyncSession, tenant_id: str) -> None:
    if tenant_id and (await get_tenant(session, TenantName(tenant_id))).deleted_at is not None:
        raise ResourceNotFound(name=str(TenantName(tenant_id)))


async def _put_limits(session: AsyncSession, account_id: str, limits: Sequence[AccountLimit]) -> None:
    """Put limits in the place of all that an account has."""
    named = {limit.model for limit in limits if limit.model}
    known = set((await session.exec(select(ModelRow.model).where(col(ModelRow.model).in_(named)))).all())
    seen: set[tuple[AccountMetric, str]] = set()
    violations: list[FieldViolation] = []
    for index, limit in enumerate(limits):
        if limit.model and limit.model not in known:
            violations.append(_wrong(f"limits[{index}].model", "is not the id of a model of the catalogue"))
        if (limit.metric, limit.model) in seen:
            violations.append(_wrong(f"limits[{index}]", "repeats the metric and model of another limit"))
        seen.add((limit.metric, limit.model))
    _refuse(tuple(violations))
    await session.exec(delete(AccountLimitRow).where(col(AccountLimitRow.account_id) == account_id))
    session.add_all(
        AccountLimitRow(account_id=account_id, metric=limit.metric.value, model=limit.model, amount=limit.amount)
        for limit in limits
    )
    await session.flush()


def _wrong(field: str, description: str) -> FieldViolation:
    return FieldViolation(path=f"account.{field}", description=description)


async def _insert(session: AsyncSession, row: _Row) -> _Row:
    await insert(session, row)
    await bump(session, Topic.ACCOUNTS)
    return row


async def _locked_account(session: AsyncSession, name: AccountName, version: int | None) -> AccountRow:
    row = await find(session, select(AccountRow).where(AccountRow.account_id == name.account), name, lock=True)
    check_version(row, version, str(name))
    return row


async def _change(session: AsyncSession, row: _Row, changes: Mapping[str, Any]) -> _Row:
    await change(session, row, **changes)
    await bump(session, Topic.ACCOUNTS)
    return row
