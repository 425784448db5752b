"""The SQL of the book's past: which version was in force when, and what each said of a model."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.pricing.tables import PriceBookVersionRow, PriceListRow, PriceRow
from tollhouse_server.pricing.terms import PriceList


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """A price in the book from one version on, until another one says something else; None while it is still there.

    `terms` has this one price only. `known_*` are the moments of the two imports.
    """

    sku: str
    nanos: int
    terms: PriceList
    version: int
    known_from: datetime
    until_version: int | None = None
    known_until: datetime | None = None


async def version_known_at(session: AsyncSession, moment: datetime) -> int:
    """Return the version that was in force at a moment; 0 before the first."""
    query = select(func.coalesce(func.max(PriceBookVersionRow.version), 0)).where(
        col(PriceBookVersionRow.recorded_at) <= moment
    )
    return (await session.exec(query)).one()


async def list_versions(session: AsyncSession, *, below: int | None, size: int) -> Sequence[PriceBookVersionRow]:
    """Return up to `size` versions, the newest first, of those below a number if one is given."""
    query = select(PriceBookVersionRow).order_by(col(PriceBookVersionRow.version).desc()).limit(size)
    if below is not None:
        query = query.where(col(PriceBookVersionRow.version) < below)
    return (await session.exec(query)).all()


async def history(session: AsyncSession, model: str, *, sku: str = "") -> tuple[Episode, ...]:
    """Return every price that a model ever had in the book, by SKU, effective date and import."""
    versions = (await session.exec(select(PriceBookVersionRow).order_by(col(PriceBookVersionRow.version)))).all()
    query = (
        select(PriceRow, PriceListRow)
        .join(
            PriceListRow,
            (col(PriceListRow.version) == col(PriceRow.version))
            & (col(PriceListRow.model) == col(PriceRow.model))
            & (col(PriceListRow.effective_from) == col(PriceRow.effective_from)),
        )
        .where(PriceRow.model == model)
    )
    if sku:
        query = query.where(PriceRow.sku == sku)
    said: dict[tuple[str, datetime], dict[int, tuple[int, PriceListRow]]] = {}
    for price, terms in (await session.exec(query)).all():
        said.setdefault((price.sku, price.effective_from), {})[price.version] = (price.nanos_per_million, terms)
    return tuple(
        episode for (name, _), by_version in sorted(said.items()) for episode in _episodes(name, by_version, versions)
    )


def _episodes(
    sku: str, said: dict[int, tuple[int, PriceListRow]], versions: Iterable[PriceBookVersionRow]
) -> Iterable[Episode]:
    """Yield what successive versions say of one price as stretches in which they say the same."""
    running: Episode | None = None
    for version in versions:
        nanos, terms = said.get(version.version, (None, None))
        if running is not None and nanos != running.nanos:
            yield _ended(running, version)
            running = None
        if running is None and nanos is not None and terms is not None:
            running = Episode(
                sku=sku, nanos=nanos, terms=_terms(terms, sku, nanos), version=version.version, known_from=_at(version)
            )
    if running is not None:
        yield running


def _ended(episode: Episode, version: PriceBookVersionRow) -> Episode:
    return Episode(
        sku=episode.sku,
        nanos=episode.nanos,
        terms=episode.terms,
        version=episode.version,
        known_from=episode.known_from,
        until_version=version.version,
        known_until=_at(version),
    )


def _at(version: PriceBookVersionRow) -> datetime:
    assert version.recorded_at is not None  # noqa: S101 - the row was read
    return version.recorded_at


def _terms(row: PriceListRow, sku: str, nanos: int) -> PriceList:
    return PriceList(
        model=row.model,
        effective_from=row.effective_from,
        source=row.source,
        nanos_per_million={sku: nanos},
        long_above_tokens=row.long_above_tokens,
    )
