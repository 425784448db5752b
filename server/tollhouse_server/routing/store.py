"""The SQL of the catalogue; accounts and keys are in `account_store.py`. All work in their caller's transaction."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, func
from sqlmodel import SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.epochs import Topic, bump, lock
from tollhouse_server.database.integrity import constraints
from tollhouse_server.database.rows import change, check_version, find, insert
from tollhouse_server.errors import ResourceNotFound
from tollhouse_server.names import TierName
from tollhouse_server.pricing.ceiling import ModelBounds
from tollhouse_server.routing.account_store import limits_of
from tollhouse_server.routing.addresses import Addresses
from tollhouse_server.routing.catalogue import CatalogueParts
from tollhouse_server.routing.catalogue_file import CatalogueFile, TierEntry
from tollhouse_server.routing.model_store import Origin, put_packaged
from tollhouse_server.routing.models import Alias, Capability, Model, Tier, TierChoice
from tollhouse_server.routing.policy_store import load_policies
from tollhouse_server.routing.tables import (
    AccountRow,
    ApiVersionRow,
    CatalogueRevisionRow,
    ModelAliasRow,
    ModelRow,
    TierRow,
    TierTargetRow,
    UpstreamKeyRow,
)
from tollhouse_server.routing.targets import Account, AccountLimit, UpstreamKeyMeta
from tollhouse_server.upstream.protocol import UpstreamKind


async def seeded_revision(session: AsyncSession) -> int:
    """Return the revision of the newest packaged catalogue that was stored, 0 before the first; locks the catalogue."""
    await lock(session, Topic.CATALOGUE)
    return (await session.exec(select(func.coalesce(func.max(CatalogueRevisionRow.revision), 0)))).one()


async def store_catalogue(session: AsyncSession, parsed: CatalogueFile) -> tuple[str, ...]:
    """Put the packaged catalogue's rows in force; rows that an administrator edited stay as they are.

    Returns the aliases that an administrator made and that are the names of packaged models now: those are gone.
    """
    overruled = await put_packaged(session, parsed.models)
    await _store_tiers(session, parsed.tiers)
    edited = {(row.kind, row.method) for row in await _edited(session, ApiVersionRow)}
    for kind, versions in parsed.api_versions.items():
        for method, api_version in versions.items():
            if (kind.value, method) not in edited:
                await put_api_version(session, kind, method, api_version, origin=Origin.PACKAGED)
    session.add(CatalogueRevisionRow(revision=parsed.revision or 0))
    await session.flush()
    await bump(session, Topic.CATALOGUE)
    return overruled


async def put_api_version(
    session: AsyncSession, kind: UpstreamKind, method: str, api_version: str, *, origin: Origin
) -> None:
    """Write the API version of a kind of account and a method; who calls has locked the catalogue."""
    await session.merge(ApiVersionRow(kind=kind.value, method=method, api_version=api_version, origin=origin.value))


async def _edited(session: AsyncSession, table: type[SQLModel]) -> Sequence[Any]:
    return (await session.exec(select(table).where(table.origin != Origin.PACKAGED))).all()  # type: ignore[attr-defined]


async def _store_tiers(session: AsyncSession, entries: Sequence[TierEntry]) -> None:
    edited = {row.tier for row in await _edited(session, TierRow)}
    for entry in entries:
        if entry.tier not in edited:
            await put_tier(session, entry, origin=Origin.PACKAGED)


async def put_tier(session: AsyncSession, entry: TierEntry, *, origin: Origin) -> None:
    """Write a tier as an entry of a file has it; who calls has locked the catalogue and checked the models.

    Raises:
        ResourceNotFound: a target's account does not exist.
    """
    choices = [TierChoice(**target.model_dump()) for target in entry.targets]
    await _require_accounts(session, choices)
    texts: dict[str, Any] = {
        "display_name": entry.display_name,
        "description": entry.description,
        "origin": origin.value,
    }
    row = await session.get(TierRow, entry.tier, populate_existing=True)
    if row is None:
        await insert(session, TierRow(tier=entry.tier, **texts))
    elif tuple(choices) != await tier_choices(session, entry.tier):
        # The targets are part of the tier: its version counts up though no column of its own may change.
        await change(session, row, **texts, updated_at=datetime.now(UTC))
    else:
        await change(session, row, **texts)
    await _replace_targets(session, entry.tier, choices)


async def get_tier(session: AsyncSession, tier: str, *, lock: bool = False) -> TierRow:
    """Return a tier; with `lock` nobody else changes it until the transaction ends.

    Raises:
        ResourceNotFound: there is no such tier.
    """
    return await find(session, select(TierRow).where(col(TierRow.tier) == tier), TierName(tier), lock=lock)


async def tier_choices(session: AsyncSession, tier: str) -> tuple[TierChoice, ...]:
    """Return the choices of one tier, the first one first."""
    query = select(TierTargetRow).where(col(TierTargetRow.tier) == tier).order_by(col(TierTargetRow.position))
    return tuple(map(_choice, (await session.exec(query)).all()))


async def set_tier_choices(
    session: AsyncSession, tier: str, choices: Sequence[TierChoice], *, version: int | None = None
) -> TierRow:
    """Map a tier to other models, the first choice first; later packaged catalogues leave it alone.

    Raises:
        ResourceNotFound: there is no such tier, model or account.
        EtagMismatch: the tier has another version.
    """
    row = await get_tier(session, tier, lock=True)
    check_version(row, version, str(TierName(tier)))
    row.origin, row.version, row.updated_at = Origin.EDITED.value, row.version + 1, datetime.now(UTC)
    await _require_accounts(session, choices)
    with constraints({"tier_target_model_fkey": ResourceNotFound(name="one of the models")}):
        await _replace_targets(session, tier, choices)
    await bump(session, Topic.CATALOGUE)
    return row


async def _require_accounts(session: AsyncSession, choices: Sequence[TierChoice]) -> None:
    """Hold the named accounts to be there, and to stay until the tier names them."""
    named = sorted({one.account_id for one in choices} - {""})
    if not named:
        return
    query = select(AccountRow.account_id).where(col(AccountRow.account_id).in_(named)).order_by("account_id")
    found = set((await session.exec(query.with_for_update(read=True))).all())
    for account in named:
        if account not in found:
            raise ResourceNotFound(name=f"accounts/{account}")


async def _replace_targets(session: AsyncSession, tier: str, choices: Sequence[TierChoice]) -> None:
    await session.exec(delete(TierTargetRow).where(col(TierTargetRow.tier) == tier))
    for position, choice in enumerate(choices):
        session.add(
            TierTargetRow(
                tier=tier,
                position=position,
                model=choice.model,
                account_id=choice.account_id,
                region=choice.region,
                rank=choice.rank,
                weight=choice.weight,
            )
        )
    await session.flush()


async def load_parts(session: AsyncSession, addresses: Addresses) -> tuple[CatalogueParts, tuple[str, ...]]:
    """Return everything the catalogue is made of, and the ids of accounts whose way `addresses` do not allow."""
    accounts = (await session.exec(select(AccountRow).where(col(AccountRow.state) == "ACTIVE"))).all()
    limits = await limits_of(session, [row.account_id for row in accounts])
    keys = (await session.exec(select(UpstreamKeyRow).where(col(UpstreamKeyRow.state) == "ACTIVE"))).all()
    parts = CatalogueParts(
        models=tuple(_model(row) for row in (await session.exec(select(ModelRow))).all()),
        aliases=tuple(
            Alias(alias=row.alias, model=row.model, shutdown_at=row.shutdown_at)
            for row in (await session.exec(select(ModelAliasRow))).all()
        ),
        tiers=await _tiers(session),
        accounts=tuple(
            _account(row, addresses, limits.get(row.account_id, ())) for row in accounts if addresses.allows(row)
        ),
        keys=tuple(_key(row) for row in keys),
        api_versions={
            (row.kind, row.method): row.api_version for row in (await session.exec(select(ApiVersionRow))).all()
        },
        policies=await load_policies(session),
    )
    return parts, tuple(row.account_id for row in accounts if not addresses.allows(row))


async def _tiers(session: AsyncSession) -> tuple[Tier, ...]:
    targets = (
        await session.exec(select(TierTargetRow).order_by(col(TierTargetRow.tier), col(TierTargetRow.position)))
    ).all()
    return tuple(
        Tier(
            tier=row.tier,
            display_name=row.display_name,
            description=row.description,
            choices=tuple(_choice(target) for target in targets if target.tier == row.tier),
        )
        for row in (await session.exec(select(TierRow))).all()
    )


def _choice(row: TierTargetRow) -> TierChoice:
    return TierChoice(model=row.model, account_id=row.account_id, region=row.region, rank=row.rank, weight=row.weight)


def _model(row: ModelRow) -> Model:
    return Model(
        model=row.model,
        display_name=row.display_name,
        upstreams=tuple(UpstreamKind(kind) for kind in row.upstreams),
        capabilities=frozenset(Capability(capability) for capability in row.capabilities),
        bounds=ModelBounds(
            input_token_limit=row.input_token_limit,
            output_token_limit=row.output_token_limit,
            images_per_answer=row.images_per_answer,
            grounding_queries=row.grounding_queries,
            tool_prompt_tokens=row.tool_prompt_tokens,
        ),
        shutdown_at=row.shutdown_at,
        notice_at=row.notice_at,
        successor=row.successor,
        source=row.source,
    )


def _account(row: AccountRow, addresses: Addresses, limits: tuple[AccountLimit, ...]) -> Account:
    return Account(
        account_id=row.account_id,
        kind=UpstreamKind(row.kind),
        project=row.project,
        base_url=addresses.base_url(row.base_url_key, row.region),
        endpoint=row.base_url_key,
        region=row.region,
        egress_url=addresses.egress_urls[row.egress] if row.egress else "",
        tenant_id=row.tenant_id,
        environment=row.environment,
        limits=limits,
    )


def _key(row: UpstreamKeyRow) -> UpstreamKeyMeta:
    return UpstreamKeyMeta(
        account_id=row.account_id,
        key_id=row.key_id,
        vault_version=row.vault_version,
        fingerprint=row.fingerprint,
        created_at=row.created_at or datetime.now(UTC),
    )
