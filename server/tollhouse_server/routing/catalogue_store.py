"""The SQL of whole catalogues: the one in force as a file, and files that come over it, in the caller's transaction."""

from sqlalchemy import func
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.epochs import Topic, bump, lock
from tollhouse_server.errors import EtagMismatch
from tollhouse_server.routing import model_store, store
from tollhouse_server.routing.catalogue_file import (
    CatalogueFile,
    TakenNames,
    TargetEntry,
    TierEntry,
    parse_edits,
)
from tollhouse_server.routing.catalogue_import import Difference, difference, etag_of
from tollhouse_server.routing.model_store import Origin
from tollhouse_server.routing.tables import ApiVersionRow, CatalogueRevisionRow, ModelRow, TierRow, TierTargetRow
from tollhouse_server.upstream.protocol import UpstreamKind

CATALOGUE = "catalogue"
"""Resource name of the catalogue as a whole."""


async def current_catalogue(session: AsyncSession) -> CatalogueFile:
    """Return the catalogue in force as a file, entries in the order of their names."""
    versions: dict[UpstreamKind, dict[str, str]] = {}
    for version in (await session.exec(select(ApiVersionRow))).all():
        versions.setdefault(UpstreamKind(version.kind), {})[version.method] = version.api_version
    models = (await session.exec(select(ModelRow))).all()
    aliases = await model_store.aliases_of(session, [row.model for row in models])
    return CatalogueFile.model_validate(
        {
            "revision": (await session.exec(select(func.max(CatalogueRevisionRow.revision)))).one(),
            "api_versions": {kind: dict(sorted(versions[kind].items())) for kind in sorted(versions)},
            "tiers": await _tiers(session),
            "models": [
                model_store.entry_of(row, aliases.get(row.model, ()))
                for row in sorted(models, key=lambda one: one.model)
            ],
        }
    )


async def _tiers(session: AsyncSession) -> list[TierEntry]:
    targets: dict[str, list[TargetEntry]] = {}
    for target in (await session.exec(select(TierTargetRow).order_by(col(TierTargetRow.position)))).all():
        entry = TargetEntry.model_validate(target.model_dump(include=set(TargetEntry.model_fields)))
        targets.setdefault(target.tier, []).append(entry)
    rows = sorted((await session.exec(select(TierRow))).all(), key=lambda one: one.tier)
    return [
        TierEntry(
            tier=row.tier, display_name=row.display_name, description=row.description, targets=tuple(targets[row.tier])
        )
        for row in rows
    ]


async def import_catalogue(session: AsyncSession, text: str, *, etag: str = "") -> tuple[Difference, str]:
    """Put the entries of a file over the catalogue, all or nothing; return what changed, and the new etag.

    What changes belongs to the administrator from then on; what is just so already does not change hands.

    Raises:
        EtagMismatch: the catalogue is not at `etag`, if one is given.
        InvalidRequest: the file has defects, each named by the path of its field.
        ResourceNotFound: a tier names an account that does not exist.
    """
    await lock(session, Topic.CATALOGUE)
    current = await current_catalogue(session)
    if etag not in ("", etag_of(current)):
        raise EtagMismatch(name=CATALOGUE)
    taken = TakenNames(
        models=frozenset(one.model for one in current.models),
        aliases=frozenset(alias.alias for one in current.models for alias in one.aliases),
    )
    edits = parse_edits(text, taken)
    found = difference(current, edits)
    if found.changes:
        await _write(session, edits, {change.name for change in found.changes})
        await bump(session, Topic.CATALOGUE)
    return found, etag_of(await current_catalogue(session))


async def _write(session: AsyncSession, edits: CatalogueFile, changed: set[str]) -> None:
    """Write the entries that differ: models before what names them."""
    for kind, versions in edits.api_versions.items():
        for method, version in versions.items():
            if f"apiVersions/{kind.value}/{method}" in changed:
                await store.put_api_version(session, kind, method, version, origin=Origin.EDITED)
    for model in edits.models:
        if f"models/{model.model}" in changed:
            await model_store.put_model(session, model, origin=Origin.EDITED)
    for model in edits.models:
        for alias in model.aliases:
            if f"aliases/{alias.alias}" in changed:
                await model_store.put_alias(session, alias, model=model.model, origin=Origin.EDITED)
    for tier in edits.tiers:
        if f"tiers/{tier.tier}" in changed:
            await store.put_tier(session, tier, origin=Origin.EDITED)
