"""The only SQL of the price book. Every function works in its caller's transaction."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import func, insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.epochs import Topic, bump, lock
from tollhouse_server.errors import EtagMismatch, ResourceNotFound
from tollhouse_server.pricing.price_file import ParsedPriceFile, merge, merge_surcharges
from tollhouse_server.pricing.skus import LONG, SKUS, Unit
from tollhouse_server.pricing.tables import PriceBookVersionRow, PriceListRow, PriceRow, PriceSurchargeRow
from tollhouse_server.pricing.terms import STANDARD, STANDARD_PERMILLE, PriceBook, PriceList, Surcharge


class Origin(StrEnum):
    """Where a version or a price list came from: the packaged file, or an administrator."""

    PACKAGED = "PACKAGED"
    IMPORTED = "IMPORTED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One difference between two price books; None stands for "no price".

    Prices of another service tier than the standard one are shown only where the tier's own factor differs.
    """

    before: PriceList | None
    after: PriceList | None
    sku: str
    before_nanos: int | None
    after_nanos: int | None
    service_tier: str = STANDARD


@dataclass(frozen=True, slots=True, kw_only=True)
class SurchargeChange:
    """One difference between the surcharges of two price books; None stands for "nothing stated"."""

    before: Surcharge | None
    after: Surcharge | None


def diff(current: Iterable[PriceList], new: Iterable[PriceList]) -> tuple[Change, ...]:
    """Return every price that differs between two whole books, by model, date and SKU; pure."""
    before = {(one.model, one.effective_from): one for one in current}
    after = {(one.model, one.effective_from): one for one in new}
    changes: list[Change] = []
    for key in sorted(before.keys() | after.keys()):
        changes.extend(_changes(before.get(key), after.get(key)))
    return tuple(changes)


def surcharge_diff(current: Iterable[Surcharge], new: Iterable[Surcharge]) -> tuple[SurchargeChange, ...]:
    """Return every surcharge that differs between two whole books, by address and date; pure."""
    before = {(one.endpoint, one.effective_from): one for one in current}
    after = {(one.endpoint, one.effective_from): one for one in new}
    return tuple(
        SurchargeChange(before=was, after=now)
        for key in sorted(before.keys() | after.keys())
        if (was := before.get(key)) != (now := after.get(key))
    )


def _changes(before: PriceList | None, after: PriceList | None) -> Iterable[Change]:
    was = before.nanos_per_million if before else {}
    now = after.nanos_per_million if after else {}
    for sku in sorted(was.keys() | now.keys()):
        if was.get(sku) != now.get(sku) or _threshold(before, sku) != _threshold(after, sku):
            yield Change(before=before, after=after, sku=sku, before_nanos=was.get(sku), after_nanos=now.get(sku))
        for tier in _changed_tiers(before, after, sku):
            yield Change(
                before=before,
                after=after,
                sku=sku,
                before_nanos=_tier_nanos(before, sku, tier),
                after_nanos=_tier_nanos(after, sku, tier),
                service_tier=tier,
            )


def _threshold(terms: PriceList | None, sku: str) -> int | None:
    return terms.long_above_tokens if terms is not None and sku.endswith(LONG) else None


def _changed_tiers(before: PriceList | None, after: PriceList | None, sku: str) -> Iterable[str]:
    """Yield the service tiers whose factor on a token SKU that both lists have is another one."""
    if before is None or after is None or SKUS[sku].unit is not Unit.TOKEN:
        return
    if sku in before.nanos_per_million and sku in after.nanos_per_million:
        tiers = before.tier_permille.keys() | after.tier_permille.keys()
        yield from sorted(tier for tier in tiers if before.permille(sku, tier) != after.permille(sku, tier))


def _tier_nanos(terms: PriceList | None, sku: str, tier: str) -> int | None:
    if terms is None or (permille := terms.permille(sku, tier)) is None:
        return None
    return -(-terms.nanos_per_million[sku] * permille // STANDARD_PERMILLE)


async def put_in_force(
    session: AsyncSession,
    parsed: ParsedPriceFile,
    *,
    origin: Origin = Origin.IMPORTED,
    importer: str = "",
    approver: str = "",
    base_version: int = 0,
) -> PriceBookVersionRow:
    """Put a parsed file in force as the next version, and tell every process; earlier versions stay as they are.

    Args:
        session: the caller's transaction.
        parsed: the file; its lists and surcharges come over the current ones as `merge` says.
        origin: PACKAGED leaves models alone whose prices an administrator imported.
        importer: resource name of the principal who imports.
        approver: resource name of the principal who has approved it, if that was asked.
        base_version: the version that the file was made from; 0 means no check.

    Raises:
        EtagMismatch: another version is in force than `base_version`.
    """
    # The bump comes first: it locks the topic's row, so two imports queue and neither loses the other's lists.
    await bump(session, Topic.PRICES)
    version = await current_version(session)
    if base_version not in (0, version):
        raise EtagMismatch(name=f"priceBooks/{version}")
    current = await _list_rows(session, version)
    edited = {row.model for row in current if row.origin == Origin.IMPORTED}
    new = [one for one in parsed.lists if origin is Origin.IMPORTED or one.model not in edited]
    lists = merge(await _lists(session, version), new)
    origins = {(row.model, row.effective_from): row.origin for row in current}
    origins |= {(one.model, one.effective_from): origin.value for one in new}
    surcharges = merge_surcharges(await _surcharges(session, version), parsed.surcharges)
    row = version_row(
        PriceBook(version + 1, lists, surcharges), parsed, origin=origin, importer=importer, approver=approver
    )
    session.add(row)
    await session.flush()
    await session.refresh(row)
    if lists:
        await _insert_lists(session, row.version, lists, origins)
    session.add_all(
        PriceSurchargeRow(
            version=row.version,
            endpoint=one.endpoint,
            effective_from=one.effective_from,
            per_million=one.per_million,
            source=one.source,
        )
        for one in surcharges
    )
    await session.flush()
    return row


def version_row(
    book: PriceBook,
    parsed: ParsedPriceFile,
    *,
    origin: Origin = Origin.IMPORTED,
    importer: str = "",
    approver: str = "",
) -> PriceBookVersionRow:
    """Return the row of a version that a file makes, not written yet."""
    return PriceBookVersionRow(
        version=book.version,
        origin=origin.value,
        revision=parsed.revision if origin is Origin.PACKAGED else 0,
        digest=parsed.digest,
        importer=importer,
        approver=approver,
        note=parsed.note,
        price_count=sum(len(one.nanos_per_million) for one in book.lists()) + len(book.surcharges()),
    )


async def _insert_lists(
    session: AsyncSession, version: int, lists: Sequence[PriceList], origins: dict[tuple[str, datetime], str]
) -> None:
    connection = await session.connection()
    await connection.execute(
        insert(PriceListRow),
        [
            {
                "version": version,
                "model": one.model,
                "effective_from": one.effective_from,
                "origin": origins[one.model, one.effective_from],
                "source": one.source,
                "long_above_tokens": one.long_above_tokens,
                "tokens_per_image": dict(one.tokens_per_image),
                "tier_permille": dict(one.tier_permille),
                "cached_tier_permille": dict(one.cached_tier_permille),
            }
            for one in lists
        ],
    )
    await connection.execute(
        insert(PriceRow),
        [
            {
                "version": version,
                "model": one.model,
                "effective_from": one.effective_from,
                "sku": sku,
                "nanos_per_million": nanos,
            }
            for one in lists
            for sku, nanos in one.nanos_per_million.items()
        ],
    )


async def current_version(session: AsyncSession) -> int:
    """Return the number of the version in force; 0 before the first."""
    return (await session.exec(select(func.coalesce(func.max(PriceBookVersionRow.version), 0)))).one()


async def seeded_revision(session: AsyncSession) -> int:
    """Return the revision of the newest packaged file that was stored, 0 before the first; locks the price book."""
    await lock(session, Topic.PRICES)
    return (await session.exec(select(func.coalesce(func.max(PriceBookVersionRow.revision), 0)))).one()


async def get_version(session: AsyncSession, version: int) -> PriceBookVersionRow:
    """Return what is known about one version.

    Raises:
        ResourceNotFound: there is no such version.
    """
    row = await session.get(PriceBookVersionRow, version)
    if row is None:
        raise ResourceNotFound(name=f"priceBooks/{version}")
    return row


async def load(session: AsyncSession, version: int | None = None) -> PriceBook:
    """Return one version of the book, the one in force by default; an empty book of version 0 before the first."""
    wanted = await current_version(session) if version is None else version
    return PriceBook(wanted, await _lists(session, wanted), await _surcharges(session, wanted))


async def _list_rows(session: AsyncSession, version: int) -> Sequence[PriceListRow]:
    return (await session.exec(select(PriceListRow).where(col(PriceListRow.version) == version))).all()


async def _surcharges(session: AsyncSession, version: int) -> list[Surcharge]:
    rows = await session.exec(select(PriceSurchargeRow).where(col(PriceSurchargeRow.version) == version))
    return [
        Surcharge(
            endpoint=row.endpoint, effective_from=row.effective_from, per_million=row.per_million, source=row.source
        )
        for row in rows.all()
    ]


async def _lists(session: AsyncSession, version: int) -> list[PriceList]:
    nanos: dict[tuple[str, datetime], dict[str, int]] = {}
    for price in (await session.exec(select(PriceRow).where(col(PriceRow.version) == version))).all():
        nanos.setdefault((price.model, price.effective_from), {})[price.sku] = price.nanos_per_million
    return [
        PriceList(
            model=row.model,
            effective_from=row.effective_from,
            source=row.source,
            nanos_per_million=nanos[row.model, row.effective_from],
            long_above_tokens=row.long_above_tokens,
            tokens_per_image=row.tokens_per_image,
            tier_permille=row.tier_permille,
            cached_tier_permille=row.cached_tier_permille,
        )
        for row in await _list_rows(session, version)
    ]
