"""The SQL of models and their other names. Every function works in its caller's transaction.

All who change the catalogue lock it first: names of models and aliases are one set, which no constraint can hold. A
`version` that a function takes is the row's version as the caller read it; None means no check.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.epochs import Topic, bump, lock
from tollhouse_server.database.rows import change, check_version, find, insert
from tollhouse_server.errors import ResourceExists, ResourceInUse, WrongState
from tollhouse_server.names import AliasName, ModelName, PriceBookName, invalid
from tollhouse_server.pricing import store as price_store
from tollhouse_server.routing.catalogue_file import AliasEntry, ModelEntry, checked, packaged_catalogue
from tollhouse_server.routing.policies import RoutingPolicy
from tollhouse_server.routing.policy_store import load_policies
from tollhouse_server.routing.tables import AccountLimitRow, ModelAliasRow, ModelRow, TierTargetRow


class Origin(StrEnum):
    """Where a row came from: the packaged catalogue, or an administrator."""

    PACKAGED = "PACKAGED"
    EDITED = "EDITED"


_OWN: Final = "one that an administrator added (give this one a date instead)"


# --- models -----------------------------------------------------------------------------------------------------------


async def create_model(session: AsyncSession, entry: ModelEntry) -> ModelRow:
    """Insert a model that an administrator adds.

    Raises:
        ResourceExists: a model or an alias has the name.
        InvalidRequest: the successor is not in the catalogue.
    """
    await lock(session, Topic.CATALOGUE)
    await _require_free(session, entry.model)
    await _require_successor(session, entry)
    row = await insert(session, ModelRow(model=entry.model, origin=Origin.EDITED.value, **_columns(entry)))
    await bump(session, Topic.CATALOGUE)
    return row


async def get_model(session: AsyncSession, model: str) -> ModelRow:
    """Return a model by its own name.

    Raises:
        ResourceNotFound: there is none.
    """
    return await find(session, select(ModelRow).where(col(ModelRow.model) == model), ModelName(model))


async def list_models(
    session: AsyncSession, *, after: str = "", size: int = 1_000, origin: Origin | None = None
) -> Sequence[ModelRow]:
    """Return up to `size` models whose names come after `after`, in their order."""
    # Positions are compared as the server compares them, whatever the database's collation.
    name = col(ModelRow.model).collate("C")
    query = select(ModelRow).where(name > after).order_by(name).limit(size)
    return (await session.exec(query if origin is None else query.where(col(ModelRow.origin) == origin))).all()


async def update_model(
    session: AsyncSession, model: str, values: Mapping[str, Any], *, version: int | None = None
) -> ModelRow:
    """Change fields of a model, named as in a catalogue file; later packaged catalogues leave it alone.

    Raises:
        ResourceNotFound, EtagMismatch: as they say.
        InvalidRequest: the model would have defects.
    """
    await lock(session, Topic.CATALOGUE)
    row = await _locked_model(session, model, version)
    entry = checked(ModelEntry, {**entry_of(row).model_dump(), **values})
    await _require_successor(session, entry)
    if (columns := _columns(entry)) != _columns(entry_of(row)):
        await change(session, row, origin=Origin.EDITED.value, **columns)
        await bump(session, Topic.CATALOGUE)
    return row


async def delete_model(session: AsyncSession, model: str, *, version: int | None = None) -> None:
    """Delete a model that an administrator added and nothing names.

    Raises:
        ResourceNotFound, EtagMismatch: as they say.
        WrongState: it comes with Tollhouse.
        ResourceInUse: something names it.
    """
    await lock(session, Topic.CATALOGUE)
    row = await _locked_model(session, model, version)
    packaged = {one.model for one in packaged_catalogue().models}
    if row.origin == Origin.PACKAGED or model in packaged:
        raise WrongState(name=str(ModelName(model)), state=Origin.PACKAGED.value, needed=_OWN)
    if (user := await _user_of(session, model)) is not None:
        raise ResourceInUse(name=str(ModelName(model)), used_by=user)
    await session.delete(row)
    await session.flush()
    await bump(session, Topic.CATALOGUE)


async def put_model(session: AsyncSession, entry: ModelEntry, *, origin: Origin) -> None:
    """Write a model as an entry of a file has it, without its aliases; who calls has locked and checked."""
    row = await session.get(ModelRow, entry.model, populate_existing=True)
    if row is None:
        await insert(session, ModelRow(model=entry.model, origin=origin.value, **_columns(entry)))
    else:
        await change(session, row, origin=origin.value, **_columns(entry))


def entry_of(row: ModelRow, aliases: Sequence[ModelAliasRow] = ()) -> ModelEntry:
    """Return a model as an entry of a file."""
    values = row.model_dump(include=set(ModelEntry.model_fields)) | {"successor": row.successor or None}
    entries = [AliasEntry(alias=one.alias, shutdown_at=one.shutdown_at) for one in aliases]
    return ModelEntry(**values, aliases=tuple(entries))


def _columns(entry: ModelEntry) -> dict[str, Any]:
    return entry.model_dump(exclude={"model", "aliases"}) | {
        "upstreams": [kind.value for kind in entry.upstreams],
        "capabilities": [capability.value for capability in entry.capabilities],
        "successor": entry.successor or "",
    }


async def _locked_model(session: AsyncSession, model: str, version: int | None) -> ModelRow:
    name = str(ModelName(model))
    row = await find(session, select(ModelRow).where(col(ModelRow.model) == model), name, lock=True)
    check_version(row, version, name)
    return row


async def _require_free(session: AsyncSession, name: str) -> None:
    """Refuse a name that a model or an alias has."""
    if await session.get(ModelRow, name) is not None:
        raise ResourceExists(name=str(ModelName(name)))
    if await session.get(ModelAliasRow, name) is not None:
        raise ResourceExists(name=str(AliasName(name)))


async def _require_successor(session: AsyncSession, entry: ModelEntry) -> None:
    if entry.successor and await session.get(ModelRow, entry.successor) is None:
        raise invalid("successor", f"{entry.successor} is not a model of the catalogue")


async def _user_of(session: AsyncSession, model: str) -> str | None:
    """Return the name of something that names the model, None if nothing does."""
    tier = select(TierTargetRow.tier).where(col(TierTargetRow.model) == model).order_by(col(TierTargetRow.tier))
    alias = select(ModelAliasRow.alias).where(col(ModelAliasRow.model) == model).order_by(col(ModelAliasRow.alias))
    before = select(ModelRow.model).where(col(ModelRow.successor) == model).order_by(col(ModelRow.model))
    account = select(AccountLimitRow.account_id).where(col(AccountLimitRow.model) == model)
    for kind, query in (("tiers", tier), ("aliases", alias), ("models", before), ("accounts", account)):
        if (found := (await session.exec(query)).first()) is not None:
            return f"{kind}/{found}"
    for scope, policy in sorted((await load_policies(session)).items()):
        if model in _named_in(policy):
            return f"{scope}/routingPolicy"
    book = await price_store.load(session)
    priced = any(one.model == model for one in book.lists())
    return str(PriceBookName(str(book.version))) if priced else None


def _named_in(policy: RoutingPolicy) -> Iterator[str]:
    yield from policy.allowed_models or ()
    yield from (name for rule in policy.on_device_rules for name in rule.models)
    yield from (choice.model for choices in policy.tier_overrides.values() for choice in choices)


# --- aliases ----------------------------------------------------------------------------------------------------------


async def create_alias(session: AsyncSession, entry: AliasEntry, *, model: str) -> ModelAliasRow:
    """Insert an alias that an administrator adds.

    Raises:
        ResourceExists: a model or an alias has the name.
        ResourceNotFound: there is no such model.
    """
    await lock(session, Topic.CATALOGUE)
    await _require_free(session, entry.alias)
    await get_model(session, model)
    row = _alias_row(entry, model, Origin.EDITED)
    await insert(session, row)
    await bump(session, Topic.CATALOGUE)
    return row


async def get_alias(session: AsyncSession, alias: str) -> ModelAliasRow:
    """Return an alias.

    Raises:
        ResourceNotFound: there is none of this name.
    """
    return await find(session, select(ModelAliasRow).where(col(ModelAliasRow.alias) == alias), AliasName(alias))


async def aliases_of(session: AsyncSession, models: Sequence[str]) -> dict[str, list[ModelAliasRow]]:
    """Return the aliases of each of these models in their order; nothing for one without."""
    query = select(ModelAliasRow).where(col(ModelAliasRow.model).in_(models))
    found: dict[str, list[ModelAliasRow]] = {}
    for row in (await session.exec(query.order_by(col(ModelAliasRow.alias).collate("C")))).all():
        found.setdefault(row.model, []).append(row)
    return found


async def update_alias(
    session: AsyncSession, alias: str, values: Mapping[str, Any], *, version: int | None = None
) -> ModelAliasRow:
    """Change an alias's `model` or `shutdown_at`; later packaged catalogues leave it alone.

    Raises:
        ResourceNotFound: there is no such alias or model.
        EtagMismatch: the alias has another version.
    """
    await lock(session, Topic.CATALOGUE)
    row = await _locked_alias(session, alias, version)
    if "model" in values:
        await get_model(session, values["model"])
    if any(getattr(row, name) != value for name, value in values.items()):
        await change(session, row, origin=Origin.EDITED.value, **values)
        await bump(session, Topic.CATALOGUE)
    return row


async def delete_alias(session: AsyncSession, alias: str, *, version: int | None = None) -> None:
    """Delete an alias that an administrator added.

    Raises:
        ResourceNotFound, EtagMismatch: as they say.
        WrongState: it comes with Tollhouse.
    """
    await lock(session, Topic.CATALOGUE)
    row = await _locked_alias(session, alias, version)
    packaged = {other.alias for one in packaged_catalogue().models for other in one.aliases}
    if row.origin == Origin.PACKAGED or alias in packaged:
        raise WrongState(name=str(AliasName(alias)), state=Origin.PACKAGED.value, needed=_OWN)
    await session.delete(row)
    await session.flush()
    await bump(session, Topic.CATALOGUE)


async def put_alias(session: AsyncSession, entry: AliasEntry, *, model: str, origin: Origin) -> None:
    """Write an alias as an entry of a file has it; who calls has locked and checked."""
    row = await session.get(ModelAliasRow, entry.alias, populate_existing=True)
    if row is None:
        await insert(session, _alias_row(entry, model, origin))
    else:
        await change(session, row, model=model, shutdown_at=entry.shutdown_at, origin=origin.value)


def _alias_row(entry: AliasEntry, model: str, origin: Origin) -> ModelAliasRow:
    return ModelAliasRow(alias=entry.alias, model=model, shutdown_at=entry.shutdown_at, origin=origin.value)


async def put_packaged(session: AsyncSession, entries: Sequence[ModelEntry]) -> tuple[str, ...]:
    """Write the models of a packaged catalogue with their aliases, and return the aliases that gave way to a model.

    What an administrator added or changed stays. Two things cannot have one name, though: his alias gives way to a
    packaged model, which tiers may need, and a packaged alias to whatever has its name.
    """
    named = col(ModelAliasRow.alias).in_([entry.model for entry in entries])
    overruled = (await session.exec(select(ModelAliasRow).where(named))).all()
    for row in overruled:
        await session.delete(row)
    edited = set((await session.exec(select(ModelRow.model).where(col(ModelRow.origin) == Origin.EDITED))).all())
    for entry in entries:
        if entry.model not in edited:
            await put_model(session, entry, origin=Origin.PACKAGED)
    kept = {*(await session.exec(select(ModelRow.model))).all()}
    kept |= {*(await session.exec(select(ModelAliasRow.alias).where(col(ModelAliasRow.origin) == Origin.EDITED))).all()}
    for entry in entries:
        for alias in entry.aliases:
            if alias.alias not in kept:
                await put_alias(session, alias, model=entry.model, origin=Origin.PACKAGED)
    return tuple(sorted(row.alias for row in overruled))


async def _locked_alias(session: AsyncSession, alias: str, version: int | None) -> ModelAliasRow:
    name = str(AliasName(alias))
    row = await find(session, select(ModelAliasRow).where(col(ModelAliasRow.alias) == alias), name, lock=True)
    check_version(row, version, name)
    return row


async def shutdowns(session: AsyncSession) -> dict[str, datetime]:
    """Return when models are shut down, or were, by model; those without a date are left out."""
    query = select(ModelRow).where(col(ModelRow.shutdown_at).is_not(None))
    return {row.model: row.shutdown_at for row in (await session.exec(query)).all() if row.shutdown_at is not None}
