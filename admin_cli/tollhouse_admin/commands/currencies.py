"""`tollhouse currencies`: what a dollar is elsewhere, and in which currency a tenant reads amounts."""

import re
from decimal import Decimal
from typing import Annotated

import typer
from tollhouse.admin.v1 import currencies_pb2 as pb
from tollhouse.admin.v1.currencies_pb2_grpc import CurrencyServiceStub

from tollhouse_admin.charge_options import parse_day
from tollhouse_admin.command import CHANGE, LIST, READ, Session, command, noun
from tollhouse_admin.failures import wrong_usage
from tollhouse_admin.output import Layout
from tollhouse_admin.resource import Etag, Kind
from tollhouse_admin.scopes import Tenant, tenant_name

app = noun("Currencies for display: rates with dates, and which one a tenant reads beside dollars.")

_RATE = re.compile(r"\d{1,9}(\.\d{1,6})?", re.ASCII)

Code = Annotated[str, typer.Argument(metavar="CODE", help="Three letters, such as EUR.")]


def _stub(session: Session) -> CurrencyServiceStub:
    return session.connection.stub(CurrencyServiceStub)


def _read(session: Session, name: str) -> pb.DisplayCurrency:
    return session.connection.call(_stub(session).GetDisplayCurrency, pb.GetDisplayCurrencyRequest(name=name))


RATE = Kind(Layout(["currency_code", "rate_date", "per_dollar_millionths", "source", "creator", "create_time"]), _read)
CHOICE = Kind(Layout(["name", "currency_code", "update_time"]), _read)


@command(app, "add-rate", CHANGE)
def add_rate(
    session: Session,
    code: Code,
    per_dollar: Annotated[str, typer.Argument(metavar="RATE", help="Units for one dollar, such as 0.9215.")],
    day: Annotated[str, typer.Option("--on", metavar="DAY", help="The day of the rate: 2026-11-30, or today.")],
    source: Annotated[str, typer.Option(metavar="TEXT", help="Where it is from.")],
) -> None:
    """Record a rate; rates are only ever added, and of two of one day the later counts."""
    if not _RATE.fullmatch(per_dollar):
        raise wrong_usage(f"{per_dollar!r} is not a rate", "Write it like 0.9215, with at most six decimals.")
    rate = pb.CurrencyRate(
        currency_code=code.upper(),
        rate_date=parse_day(day),
        per_dollar_millionths=int(Decimal(per_dollar) * 1_000_000),
        source=source,
    )
    request = pb.AddCurrencyRateRequest(currency_rate=rate)
    RATE.create(session, f"a rate of {code.upper()}", _stub(session).AddCurrencyRate, request)


@command(app, "list", LIST)
def list_rates(
    session: Session,
    *,
    code: Annotated[str | None, typer.Argument(metavar="CODE", help="Only of this currency.")] = None,
) -> None:
    """List the rates, the newest day of each currency first."""
    request = pb.ListCurrencyRatesRequest(currency_code=code.upper() if code else "")
    RATE.show_pages(session, _stub(session).ListCurrencyRates, request, "currency_rates")


@command(app, "show", READ)
def show(session: Session, *, tenant: Tenant = None) -> None:
    """Show in which currency a tenant reads amounts."""
    CHOICE.show(session, f"{tenant_name(session, tenant)}/displayCurrency")


@command(app, "choose", CHANGE)
def choose(session: Session, code: Code, *, tenant: Tenant = None, etag: Etag = None) -> None:
    """Choose the currency that a tenant reads beside dollars; USD: none."""
    name = f"{tenant_name(session, tenant)}/displayCurrency"
    chosen = "" if code.upper() == "USD" else code.upper()
    resource = pb.DisplayCurrency(name=name, currency_code=chosen, etag=etag or "")
    request = pb.UpdateDisplayCurrencyRequest(display_currency=resource)
    CHOICE.change(session, "change", name, _stub(session).UpdateDisplayCurrency, request)
