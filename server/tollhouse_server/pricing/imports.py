"""Putting a price file in force, with the question whether it can be meant."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.errors import PricesImplausible
from tollhouse_server.pricing import store
from tollhouse_server.pricing.plausibility import Allowances, Comparison, implausible
from tollhouse_server.pricing.price_file import ParsedPriceFile, merge, merge_surcharges
from tollhouse_server.pricing.tables import PriceBookVersionRow
from tollhouse_server.pricing.terms import PriceBook


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """A file with who imports it and what it may do. `shutdowns`: when models are retired, by model."""

    parsed: ParsedPriceFile
    importer: str
    approver: str = ""
    base_version: int = 0
    allowances: Allowances = field(default_factory=Allowances)
    shutdowns: Mapping[str, datetime] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """The version that an import made, and the books before and after it."""

    row: PriceBookVersionRow
    before: PriceBook
    after: PriceBook


async def import_file(session: AsyncSession, wanted: Import) -> Imported:
    """Put a file in force as the next version.

    Raises:
        EtagMismatch: another version is in force than `base_version`.
        PricesImplausible: it leaves gaps, jumps, or makes something free that nobody said is; nothing is changed.
    """
    row = await store.put_in_force(
        session,
        wanted.parsed,
        importer=wanted.importer,
        approver=wanted.approver,
        base_version=wanted.base_version,
    )
    before = await store.load(session, row.version - 1)
    after = await store.load(session, row.version)
    require_plausible(wanted, before, after)
    return Imported(row=row, before=before, after=after)


def book_with(book: PriceBook, parsed: ParsedPriceFile) -> PriceBook:
    """Return the book that the import of a file would make of another one; pure."""
    return PriceBook(
        book.version + 1, merge(book.lists(), parsed.lists), merge_surcharges(book.surcharges(), parsed.surcharges)
    )


def require_plausible(wanted: Import, before: PriceBook, after: PriceBook) -> None:
    """Return if what an import makes of a book can be meant.

    Raises:
        PricesImplausible: see `import_file`.
    """
    comparison = Comparison(
        parsed=wanted.parsed,
        before=before,
        after=after,
        allowances=wanted.allowances,
        shutdowns=wanted.shutdowns,
    )
    violations = implausible(comparison)
    if violations:
        raise PricesImplausible(violations=violations)
