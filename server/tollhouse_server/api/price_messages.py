"""Prices, versions and proposals on the wire, and price files off it."""

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import zip_longest
from typing import Protocol

from tollhouse.admin.v1 import prices_pb2 as pb

from tollhouse_server.api.price_notations import file_refused, yaml_as_json
from tollhouse_server.api.values import etag, money, timestamp
from tollhouse_server.money import UNITS_PER_PRICE
from tollhouse_server.names import PriceBookName, PriceProposalName, invalid
from tollhouse_server.pricing import store
from tollhouse_server.pricing.history_store import Episode
from tollhouse_server.pricing.imports import Imported
from tollhouse_server.pricing.plausibility import DEFAULT_JUMP_FACTOR, Allowances
from tollhouse_server.pricing.price_file import ParsedPriceFile, import_prices
from tollhouse_server.pricing.proposal_store import ProposalView
from tollhouse_server.pricing.skus import LONG, RELAY_SURCHARGE, SKUS, Unit
from tollhouse_server.pricing.tables import PriceBookVersionRow
from tollhouse_server.pricing.terms import STANDARD, ModelPrices, PriceBook, PriceList, Surcharge


class FileRequest(Protocol):
    """A request that carries a price file; it is a protobuf message."""

    format: "pb.PriceFileFormat.ValueType"
    content: str


def parsed_file(request: FileRequest) -> ParsedPriceFile:
    """Return the price file of a request.

    Raises:
        PriceFileInvalid: it has defects, or is in another notation than the request says.
    """
    text = request.content
    if request.format == pb.PRICE_FILE_FORMAT_YAML:
        text = yaml_as_json(text)
    elif (request.format == pb.PRICE_FILE_FORMAT_JSON) != text.lstrip().startswith("{"):
        raise file_refused("the file is not in the notation that the request names")
    parsed = import_prices(text)
    return dataclasses.replace(parsed, digest=hashlib.sha256(request.content.encode()).hexdigest())


def allowances_of(message: pb.PriceAllowances) -> Allowances:
    """Return what an import may do.

    Raises:
        InvalidRequest: jumps are allowed and nobody says why.
    """
    reason = message.reason.strip()
    if message.allow_jumps and not reason:
        raise invalid("allowances.reason", "is required with allow_jumps: who audits must know why")
    return Allowances(
        max_jump_factor=message.max_jump_factor or DEFAULT_JUMP_FACTOR, allow_jumps=message.allow_jumps, reason=reason
    )


def price_changes(before: PriceBook, after: PriceBook, *, model: str = "") -> list[pb.PriceChange]:
    """Return every difference between two books, or of one model without surcharges; surcharges come first."""
    surcharges = () if model else store.surcharge_diff(before.surcharges(), after.surcharges())
    lists = [[one for one in book.lists() if not model or one.model == model] for book in (before, after)]
    return [*map(_surcharge_change, surcharges), *map(_change, store.diff(*lists))]


def import_answer(imported: Imported) -> pb.ImportPricesResponse:
    """Return what an import has changed, or would change."""
    changes = price_changes(imported.before, imported.after)
    return pb.ImportPricesResponse(
        price_book=book_message(imported.row), changes=changes, unchanged_count=unchanged(imported, changes)
    )


def unchanged(imported: Imported, changes: Sequence[pb.PriceChange]) -> int:
    """Return how many prices of the new book are in the old one just so."""
    concerned = {_place(change.after) for change in changes if change.HasField("after")}
    return imported.row.price_count - len(concerned)


def _place(price: pb.Price) -> tuple[str, str, str, int]:
    return price.endpoint, price.model, price.sku, price.effective_time.seconds


def proposal_message(view: ProposalView, imported: Imported | None = None) -> pb.PriceProposal:
    """Return a proposal, with its differences where it is known between which books it stands."""
    row = view.row
    changes = [] if imported is None else price_changes(imported.before, imported.after)
    return pb.PriceProposal(
        name=str(PriceProposalName(row.proposal_id)),
        state=pb.PriceProposal.State.Value(f"STATE_{view.state}"),
        base_version=row.base_version,
        source=row.note,
        content_sha256=row.digest,
        allowances=pb.PriceAllowances(
            max_jump_factor=row.max_jump_factor, allow_jumps=row.allows_jumps, reason=row.reason
        ),
        proposer=row.requested_by,
        decider=row.decided_by or "",
        decide_time=timestamp(row.decided_at),
        decision_reason=row.decision_reason,
        expire_time=timestamp(row.expires_at),
        create_time=timestamp(row.created_at),
        update_time=timestamp(row.updated_at),
        etag=etag(row.version),
        price_book=str(PriceBookName(str(row.price_version))) if row.price_version else "",
        changes=changes,
        unchanged_count=0 if imported is None else unchanged(imported, changes),
    )


def episode_message(episode: Episode) -> pb.PriceEpisode:
    """Return a price and the time in which the book said it."""
    return pb.PriceEpisode(
        price=_price(episode.terms, episode.sku, episode.nanos),
        version=episode.version,
        known_time=timestamp(episode.known_from),
        until_version=episode.until_version or 0,
        known_until_time=timestamp(episode.known_until),
    )


def book_prices(book: PriceBook, *, model: str, at: datetime | None) -> Iterable[pb.Price]:
    """Yield the prices of a book, or of one model without surcharges; those that hold at a moment if one is given."""
    if not model:
        yield from _surcharges(book.surcharges(), at)
    for name in [model] if model else sorted({one.model for one in book.lists()}):
        for prices in book.history(name):
            end = prices.effective_until
            if _holds(prices.terms.effective_from, end, at):
                yield from _list_prices(prices)


def _holds(start: datetime, end: datetime | None, at: datetime | None) -> bool:
    """Tell whether a span counts for a question about the moment `at`; None asks for all."""
    return at is None or (start <= at and (end is None or at < end))


def _surcharges(surcharges: tuple[Surcharge, ...], at: datetime | None) -> Iterable[pb.Price]:
    for one, following in zip_longest(surcharges, surcharges[1:]):
        end = following.effective_from if following and following.endpoint == one.endpoint else None
        if _holds(one.effective_from, end, at):
            price = _surcharge(one)
            if end is not None:
                price.end_time.FromDatetime(end)
            yield price


def _list_prices(prices: ModelPrices) -> Iterable[pb.Price]:
    for sku, nanos in prices.terms.nanos_per_million.items():
        price = _price(prices.terms, sku, nanos)
        if prices.effective_until is not None:
            price.end_time.FromDatetime(prices.effective_until)
        yield price


def position_of(price: pb.Price) -> str:
    """Return the place of a price in a list."""
    return f"{price.model}\0{price.sku}\0{price.endpoint}\0{price.effective_time.seconds:020d}"


def _price(terms: PriceList, sku: str, nanos: int, service_tier: str = STANDARD) -> pb.Price:
    return pb.Price(
        model=terms.model,
        sku=sku,
        amount=money(nanos),
        per_units=UNITS_PER_PRICE,
        unit=SKUS[sku].unit,
        effective_time=timestamp(terms.effective_from),
        above_prompt_tokens=(terms.long_above_tokens or 0) if sku.endswith(LONG) else 0,
        service_tier="" if service_tier == STANDARD else service_tier,
        source=terms.source,
    )


def _surcharge(one: Surcharge) -> pb.Price:
    return pb.Price(
        sku=RELAY_SURCHARGE,
        amount=money(one.per_million),
        per_units=UNITS_PER_PRICE,
        unit=Unit.NANOS,
        effective_time=timestamp(one.effective_from),
        source=one.source,
        endpoint=one.endpoint,
        percent=f"{(Decimal(one.per_million) / 10_000).normalize():f}",
    )


def _surcharge_change(change: store.SurchargeChange) -> pb.PriceChange:
    return pb.PriceChange(
        before=None if change.before is None else _surcharge(change.before),
        after=None if change.after is None else _surcharge(change.after),
    )


def _change(change: store.Change) -> pb.PriceChange:
    before, after = change.before_nanos, change.after_nanos
    return pb.PriceChange(
        before=None
        if change.before is None or before is None
        else _price(change.before, change.sku, before, change.service_tier),
        after=None
        if change.after is None or after is None
        else _price(change.after, change.sku, after, change.service_tier),
    )


def book_message(row: PriceBookVersionRow) -> pb.PriceBook:
    """Return what is known about a version."""
    return pb.PriceBook(
        name=str(PriceBookName(str(row.version))),
        version=row.version,
        import_time=timestamp(row.recorded_at),
        importer=row.importer,
        source=row.note,
        price_count=row.price_count,
        content_sha256=row.digest,
        approver=row.approver,
    )
