"""The first sheet of a workbook: what the month came to, what it is of, and what holds for the other sheets."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from zoneinfo import ZoneInfo

from tollhouse_server.chargeback.statement import EntryKind, Statement
from tollhouse_server.documents.language import Language


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryRow:
    """A row: a label with an amount, a number or a text; or a heading, or a note over the whole width."""

    label: str
    nanos: int | None = None
    number: int | None = None
    text: str = ""
    note: str = ""
    is_heading: bool = False
    is_note: bool = False
    is_strong: bool = False


def summary_rows(statement: Statement, language: Language) -> Iterator[SummaryRow]:
    """Yield the rows in their order."""
    say = language.say
    for rows in (_identity, _from_cost_to_charge, _use, _savings, _forecast, _seal):
        yield from rows(statement, language)
    yield SummaryRow(label=say("amounts_note"), is_note=True)
    yield SummaryRow(label=say("spreadsheet_note"), is_note=True)


def entry_sums(statement: Statement) -> dict[EntryKind, int]:
    """Return what the entries of each kind come to; kinds without entries are left out."""
    sums: dict[EntryKind, int] = {}
    for kind in EntryKind:
        amounts = [entry.amount_nanos for entry in statement.entries if entry.kind is kind]
        if amounts:
            sums[kind] = sum(amounts)
    return sums


def facts(statement: Statement, language: Language) -> Iterator[tuple[str, str]]:
    """Yield what the statement is of: labels and texts."""
    say, zone = language.say, ZoneInfo(statement.time_zone)
    first, end = statement.period.start.astimezone(zone).date(), statement.period.end.astimezone(zone)
    last = (end - timedelta(microseconds=1)).date()
    days = say("period_range", start=language.long_date(first), end=language.long_date(last))
    yield say("scope"), str(statement.scope)
    yield say("fiscal_month" if statement.is_fiscal else "calendar_month"), days
    yield say("time_zone"), statement.time_zone
    yield say("state"), say(f"state_{statement.state.value.lower()}")
    yield say("generated"), language.moment(statement.generated_at, statement.time_zone)
    if statement.price_versions:
        yield say("price_versions"), ", ".join(str(version) for version in statement.price_versions)
    if statement.currency:
        rate = language.rate(statement.currency.per_dollar_millionths)
        dated = language.long_date(statement.currency.dated)
        text = say(
            "currency_note", rate=rate, code=statement.currency.code, date=dated, source=statement.currency.source
        )
        yield statement.currency.code, text


def seal_facts(statement: Statement, language: Language) -> Iterator[tuple[str, str]]:
    """Yield what vouches for the statement: labels and texts."""
    if statement.seal is None:
        return
    yield language.say("digest"), statement.seal.sha256
    yield language.say("signature"), statement.seal.signature
    yield language.say("key_version"), str(statement.seal.key_version)


def seal_sentence(statement: Statement, language: Language, *, person: str) -> str:
    """Return that `person` closed the month and when, or that nobody has."""
    if statement.seal is None:
        return language.say("verify_open")
    moment = language.moment(statement.seal.closed_at, statement.time_zone)
    return language.say("verify_closed", moment=moment, person=person)


def _identity(statement: Statement, language: Language) -> Iterator[SummaryRow]:
    for label, text in facts(statement, language):
        yield SummaryRow(label=label, text=text)


def _from_cost_to_charge(statement: Statement, language: Language) -> Iterator[SummaryRow]:
    say = language.say
    yield SummaryRow(label=say("waterfall"), text=say("value_usd"), note=say("value_exact"), is_heading=True)
    yield SummaryRow(label=say("cost_long"), nanos=statement.totals.cost_nanos)
    for kind, nanos in entry_sums(statement).items():
        yield SummaryRow(label=say(f"kind_{kind.value.lower()}"), nanos=nanos)
    yield SummaryRow(label=say("charge"), nanos=statement.totals.charge_nanos, is_strong=True)
    if statement.totals.suspense_calls:
        yield SummaryRow(label=say("suspense"), nanos=statement.totals.suspense_nanos)


def _use(statement: Statement, language: Language) -> Iterator[SummaryRow]:
    say, totals = language.say, statement.totals
    yield SummaryRow(label=say("headline"), text=say("quantity"), is_heading=True)
    yield SummaryRow(label=say("calls"), number=totals.calls)
    for name in ("input_tokens", "cached_tokens", "output_tokens", "thoughts_tokens", "images"):
        yield SummaryRow(label=say(name), number=getattr(totals, name))


def _savings(statement: Statement, language: Language) -> Iterator[SummaryRow]:
    say, savings = language.say, statement.savings
    yield SummaryRow(label=say("savings"), text=say("value_usd"), note=say("value_exact"), is_heading=True)
    yield SummaryRow(label=say("savings_cache"), nanos=savings.cache_nanos)
    yield SummaryRow(label=say("savings_batch"), nanos=savings.batch_nanos)
    yield SummaryRow(label=say("savings_device"), nanos=savings.on_device_nanos)
    yield SummaryRow(label=say("total"), nanos=savings.total_nanos, is_strong=True)
    yield SummaryRow(label=say("refused"), nanos=statement.refusals.ceiling_nanos)


def _forecast(statement: Statement, language: Language) -> Iterator[SummaryRow]:
    forecast, say = statement.forecast, language.say
    if forecast is None:
        return
    yield SummaryRow(label=say("forecast"), text=say("value_usd"), note=say("value_exact"), is_heading=True)
    for label, nanos in (
        ("expected_cost", forecast.expected_nanos),
        ("low", forecast.low_charge_nanos),
        ("expected_charge", forecast.expected_charge_nanos),
        ("high", forecast.high_charge_nanos),
        ("recommended", forecast.recommended_charge_nanos),
    ):
        yield SummaryRow(label=say(label), nanos=nanos, is_strong=label == "recommended")


def _seal(statement: Statement, language: Language) -> Iterator[SummaryRow]:
    yield SummaryRow(label=language.say("verify"), is_heading=True)
    person = statement.seal.closed_by if statement.seal else ""
    yield SummaryRow(label=seal_sentence(statement, language, person=person), is_note=True)
    for label, text in seal_facts(statement, language):
        yield SummaryRow(label=label, text=text)
