"""CurrencyService: rates of currencies, and which one a tenant reads."""

from datetime import date

from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import currencies_pb2 as pb

from tollhouse_server.api.call import Call
from tollhouse_server.api.charge_dates import day_of
from tollhouse_server.api.mutation import Change, Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.values import etag, timestamp, version_of, written
from tollhouse_server.chargeback import currency_store as store
from tollhouse_server.chargeback.charge_tables import CurrencyRateRow, DisplayCurrencyRow
from tollhouse_server.database.engine import Database
from tollhouse_server.names import DisplayCurrencyName, TenantName, invalid
from tollhouse_server.tenancy.store import require_active


class CurrencyService:
    """Records rates, and which currency tenants choose."""

    def __init__(self, database: Database, mutations: Mutations, pages: PageTokens) -> None:
        self._database = database
        self._mutations = mutations
        self._pages = pages

    async def add_currency_rate(self, request: pb.AddCurrencyRateRequest, call: Call) -> pb.CurrencyRate:
        asked = request.currency_rate
        if asked.currency_code == "USD":
            raise invalid("currency_rate.currency_code", "must not be USD: a dollar is a dollar")
        row = CurrencyRateRow(
            code=asked.currency_code,
            dated=day_of(asked.rate_date, "currency_rate.rate_date"),
            per_dollar_millionths=asked.per_dollar_millionths,
            source=written(asked.source, "currency_rate.source"),
            creator=call.principal.name,
        )

        async def act(session: AsyncSession) -> Change[pb.CurrencyRate]:
            after = _rate_message(await store.add_rate(session, row))
            resource = f"currencyRates/{row.code.lower()}-{row.dated}"
            return Change(resource=resource, before=None, after=after, answer=after)

        return await self._mutations.run(call, request, pb.CurrencyRate, act)

    async def list_currency_rates(
        self, request: pb.ListCurrencyRatesRequest, call: Call
    ) -> pb.ListCurrencyRatesResponse:
        async with self._database.within(call.domain) as session:
            rows = await store.list_rates(
                session,
                code=request.currency_code,
                after=_place(self._pages.after(request)),
                size=self._pages.size(request) + 1,
            )
        page, last = self._pages.split(request, rows)
        token = self._pages.next(request, f"{last.code} {last.dated} {last.rate_id}") if last else ""
        return pb.ListCurrencyRatesResponse(currency_rates=map(_rate_message, page), next_page_token=token)

    async def get_display_currency(self, request: pb.GetDisplayCurrencyRequest, call: Call) -> pb.DisplayCurrency:
        name = DisplayCurrencyName.parse(request.name)
        async with self._database.within(call.domain) as session:
            await require_active(session, TenantName(name.tenant))
            return _message(name, await store.chosen_currency(session, name.tenant))

    async def update_display_currency(self, request: pb.UpdateDisplayCurrencyRequest, call: Call) -> pb.DisplayCurrency:
        asked = request.display_currency
        name = DisplayCurrencyName.parse(asked.name, "display_currency.name")
        version = version_of(asked.etag, asked.name)
        code = "" if asked.currency_code == "USD" else asked.currency_code

        async def act(session: AsyncSession) -> Change[pb.DisplayCurrency]:
            await require_active(session, TenantName(name.tenant))
            before = _message(name, await store.chosen_currency(session, name.tenant))
            if code and not await store.has_rate(session, code):
                raise invalid("display_currency.currency_code", "has no rate; the platform records rates")
            after = _message(name, await store.choose_currency(session, name, code, expected_version=version))
            return Change(resource=asked.name, before=before, after=after, answer=after)

        return await self._mutations.run(call, request, pb.DisplayCurrency, act)


def _place(position: str) -> tuple[str, date, int] | None:
    if not position:
        return None
    code, dated, rate_id = position.split(" ")
    return code, date.fromisoformat(dated), int(rate_id)


def _rate_message(row: CurrencyRateRow) -> pb.CurrencyRate:
    return pb.CurrencyRate(
        currency_code=row.code,
        rate_date=row.dated.isoformat(),
        per_dollar_millionths=row.per_dollar_millionths,
        source=row.source,
        creator=row.creator,
        create_time=timestamp(row.recorded_at),
    )


def _message(name: DisplayCurrencyName, row: DisplayCurrencyRow | None) -> pb.DisplayCurrency:
    if row is None:
        return pb.DisplayCurrency(name=str(name), etag=etag(0))
    return pb.DisplayCurrency(
        name=str(name), currency_code=row.code, update_time=timestamp(row.updated_at), etag=etag(row.version)
    )
