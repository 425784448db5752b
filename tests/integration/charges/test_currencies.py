"""Currencies: rates that are only ever added, and which one a tenant reads."""

from datetime import date
from typing import Any

import pytest
from tollhouse.admin.v1 import currencies_pb2 as pb
from tollhouse_server.chargeback.currencies import display_currency
from tollhouse_server.chargeback.statement import DisplayCurrency
from tollhouse_server.errors import EtagMismatch, InvalidRequest, PermissionDenied

from tests.integration.admin.plane import Plane
from tests.unit.charges.facts import month_of

NAME = "tenants/acme/displayCurrency"


def rate(day: str, millionths: int, code: str = "EUR") -> pb.AddCurrencyRateRequest:
    """A rate of a day."""
    return pb.AddCurrencyRateRequest(
        currency_rate=pb.CurrencyRate(currency_code=code, rate_date=day, per_dollar_millionths=millionths, source="ECB")
    )


def choice(code: str, **fields: Any) -> pb.UpdateDisplayCurrencyRequest:
    """Tenant acme's choice."""
    return pb.UpdateDisplayCurrencyRequest(display_currency=pb.DisplayCurrency(name=NAME, currency_code=code, **fields))


async def shown(plane: Plane, month: str) -> DisplayCurrency | None:
    """What amounts of a month are shown in."""
    async with plane.database.within("acme") as session:
        return await display_currency(session, "acme", month_of(month))


async def test_a_month_is_shown_at_the_newest_rate_of_its_last_day_or_before(plane: Plane) -> None:
    """A rate of the next month changes nothing; one that corrects the same day does."""
    await plane.tenant("acme")
    for day, millionths in (
        ("2026-10-30", 930_000),
        ("2026-11-30", 920_000),
        ("2026-11-30", 921_500),
        ("2026-12-01", 1),
    ):
        await plane.call(rate(day, millionths))
    before = await shown(plane, "2026-11")

    await plane.call(choice("EUR"))

    assert before is None
    assert await shown(plane, "2026-09") is None
    assert await shown(plane, "2026-10") == DisplayCurrency(
        code="EUR", per_dollar_millionths=930_000, dated=date(2026, 10, 30), source="ECB"
    )
    november = await shown(plane, "2026-11")
    assert november is not None
    assert november.per_dollar_millionths == 921_500


async def test_a_choice_needs_a_rate_and_can_be_taken_back(plane: Plane) -> None:
    """And whoever chooses on an old reading is told."""
    await plane.tenant("acme")
    await plane.call(rate("2026-11-01", 7_100_000, "CNY"))
    fay = await plane.key("acme", "fay", ("finance", "tenants/acme"))
    read = await plane.call(pb.GetDisplayCurrencyRequest(name=NAME), key=fay)

    with pytest.raises(InvalidRequest, match="has no rate"):
        await plane.call(choice("EUR"), key=fay)
    chosen = await plane.call(choice("CNY", etag=read.etag), key=fay)
    with pytest.raises(EtagMismatch):
        await plane.call(choice("", etag=read.etag), key=fay)
    taken_back = await plane.call(choice("", etag=chosen.etag), key=fay)

    assert (read.currency_code, chosen.currency_code, taken_back.currency_code) == ("", "CNY", "")
    assert await shown(plane, "2026-11") is None


async def test_only_the_platform_records_rates_and_everybody_reads_them(plane: Plane) -> None:
    """In pages, the newest day of each currency first."""
    await plane.tenant("acme")
    fay = await plane.key("acme", "fay", ("finance", "tenants/acme"))
    for day, code in (("2026-11-01", "EUR"), ("2026-11-02", "EUR"), ("2026-11-01", "CNY")):
        await plane.call(rate(day, 1, code))

    with pytest.raises(PermissionDenied):
        await plane.call(rate("2026-11-03", 1), key=fay)
    listed, token = [], ""
    while True:
        page = await plane.call(pb.ListCurrencyRatesRequest(page_size=1, page_token=token), key=fay)
        listed += [(one.currency_code, one.rate_date) for one in page.currency_rates]
        if not (token := page.next_page_token):
            break
    with pytest.raises(InvalidRequest, match="USD"):
        await plane.call(rate("2026-11-03", 1, "USD"))

    assert listed == [("CNY", "2026-11-01"), ("EUR", "2026-11-02"), ("EUR", "2026-11-01")]
