"""PriceService: what a unit of each model costs, and what an upstream address costs on top, from which day on."""

import dataclasses
import hashlib
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from itertools import zip_longest

from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import prices_pb2 as pb

from tollhouse_server.api.call import Call
from tollhouse_server.api.mutation import Change, Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.price_notations import file_refused, yaml_as_json
from tollhouse_server.api.values import moment_of, money, timestamp
from tollhouse_server.database.engine import Database
from tollhouse_server.money import UNITS_PER_PRICE
from tollhouse_server.names import PriceBookName
from tollhouse_server.pricing import store
from tollhouse_server.pricing.price_file import ParsedPriceFile, import_prices
from tollhouse_server.pricing.skus import LONG, RELAY_SURCHARGE, SKUS, Unit
from tollhouse_server.pricing.tables import PriceBookVersionRow
from tollhouse_server.pricing.terms import ModelPrices, PriceBook, PriceList, Surcharge


class PriceService:
    """Imports price files; reads the book in force."""

    def __init__(self, database: Database, mutations: Mutations, pages: PageTokens) -> None:
        self._database = database
        self._mutations = mutations
        self._pages = pages

    async def import_prices(self, request: pb.ImportPricesRequest, call: Call) -> pb.ImportPricesResponse:
        parsed = _parsed(request)

        async def act(session: AsyncSession) -> Change[pb.ImportPricesResponse]:
            row = await store.put_in_force(
                session, parsed, importer=call.principal.name, base_version=request.base_version
            )
            before = await store.load(session, row.version - 1)
            after = await store.load(session, row.version)
            changes = [
                *map(_surcharge_change, store.surcharge_diff(before.surcharges(), after.surcharges())),
                *map(_change, store.diff(before.lists(), after.lists())),
            ]
            answer = pb.ImportPricesResponse(
                price_book=_book(row),
                changes=changes,
                unchanged_count=row.price_count - sum(change.HasField("after") for change in changes),
            )
            # The trail names the version and its digest; what changed is in the book itself, for good.
            return Change(resource=answer.price_book.name, before=None, after=answer.price_book, answer=answer)

        return await self._mutations.run(call, request, pb.ImportPricesResponse, act)

    async def list_prices(self, request: pb.ListPricesRequest, call: Call) -> pb.ListPricesResponse:
        async with self._database.within(call.domain) as session:
            book = await store.load(session)
        prices = {_position(price): price for price in _prices(book, request)}
        after = self._pages.after(request)
        positions = sorted(position for position in prices if position > after)
        page, last = self._pages.split(request, positions)
        token = self._pages.next(request, last) if last else ""
        return pb.ListPricesResponse(
            prices=[prices[position] for position in page], next_page_token=token, version=book.version
        )

    async def get_price_book(self, request: pb.GetPriceBookRequest, call: Call) -> pb.PriceBook:
        wanted = PriceBookName.parse(request.name).version
        async with self._database.within(call.domain) as session:
            version = await store.current_version(session) if wanted == "current" else int(wanted)
            return _book(await store.get_version(session, version))


def _parsed(request: pb.ImportPricesRequest) -> ParsedPriceFile:
    text = request.content
    if request.format == pb.PRICE_FILE_FORMAT_YAML:
        text = yaml_as_json(text)
    elif (request.format == pb.PRICE_FILE_FORMAT_JSON) != text.lstrip().startswith("{"):
        raise file_refused("the file is not in the notation that the request names")
    parsed = import_prices(text)
    return dataclasses.replace(parsed, digest=hashlib.sha256(request.content.encode()).hexdigest())


def _prices(book: PriceBook, request: pb.ListPricesRequest) -> Iterable[pb.Price]:
    at = moment_of(request.effective_at, "effective_at") if request.HasField("effective_at") else None
    if not request.model:
        yield from _surcharges(book.surcharges(), at)
    models = [request.model] if request.model else sorted({one.model for one in book.lists()})
    for model in models:
        for prices in book.history(model):
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


def _position(price: pb.Price) -> str:
    return f"{price.model}\0{price.sku}\0{price.endpoint}\0{price.effective_time.seconds:020d}"


def _price(terms: PriceList, sku: str, nanos: int) -> pb.Price:
    return pb.Price(
        model=terms.model,
        sku=sku,
        amount=money(nanos),
        per_units=UNITS_PER_PRICE,
        unit=SKUS[sku].unit,
        effective_time=timestamp(terms.effective_from),
        above_prompt_tokens=(terms.long_above_tokens or 0) if sku.endswith(LONG) else 0,
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
        before=None if change.before is None or before is None else _price(change.before, change.sku, before),
        after=None if change.after is None or after is None else _price(change.after, change.sku, after),
    )


def _book(row: PriceBookVersionRow) -> pb.PriceBook:
    return pb.PriceBook(
        name=str(PriceBookName(str(row.version))),
        version=row.version,
        import_time=timestamp(row.recorded_at),
        importer=row.importer,
        source=row.note,
        price_count=row.price_count,
        content_sha256=row.digest,
    )
