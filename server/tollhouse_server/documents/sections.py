"""The outline of a statement: which figures it shows, in which order, and what is said of them."""

from collections.abc import Callable, Iterator
from datetime import date
from itertools import accumulate
from typing import Final, TypeAlias

from tollhouse_server.chargeback.statement import Amounts, BudgetUse, Forecast, PeriodState, Statement
from tollhouse_server.documents.breakdown_sections import breakdown_sections
from tollhouse_server.documents.language import Language
from tollhouse_server.documents.names_for_people import department_title, last_part, scope_title
from tollhouse_server.documents.outline import Bar, Column, Outline, Row, Section, Table, Tile, Tone, Upright, parts_of
from tollhouse_server.documents.summary_sheet import entry_sums, facts, seal_facts, seal_sentence
from tollhouse_server.money import nanos_to_dollars
from tollhouse_server.reporting.sums import Dimension

_TICK_EVERY: Final = 7
_Make: TypeAlias = Callable[[Statement, Language], Iterator[Section]]


def outline_of(statement: Statement, language: Language) -> Outline:
    """Return everything that a document for reading says."""
    say, state = language.say, statement.state.value.lower()
    moment = language.moment(statement.generated_at, statement.time_zone)
    return Outline(
        tag=language.tag,
        product=say("product"),
        kind=say("title"),
        organisation=statement.display_name,
        title=say("title_of", month=language.month(statement.month)),
        state=say(f"state_{state}"),
        state_note=say(f"state_{state}_note"),
        state_tone="good" if statement.state is PeriodState.CLOSED else "plain",
        prepared=say("prepared", moment=moment),
        facts=tuple(facts(statement, language)),
        sections=tuple(section for make in _SECTIONS for section in make(statement, language)),
        note=say("amounts_note"),
    )


def _headline(statement: Statement, language: Language) -> Iterator[Section]:
    say, totals = language.say, statement.totals
    added = totals.charge_nanos - totals.cost_nanos
    tokens = totals.input_tokens + totals.output_tokens
    per_call = f"{say('cost_per_call')}: {language.money(_per_call(totals))}" if totals.calls else ""
    saved_of = language.percent(statement.savings.total_nanos, statement.savings.total_nanos + totals.cost_nanos)
    split = f"{language.short_count(totals.input_tokens)} + {language.short_count(totals.output_tokens)}"
    tiles = [
        Tile(
            label=say("charge"),
            value=language.money(totals.charge_nanos),
            note=_in_currency(statement, language),
            tone="strong",
        ),
        Tile(label=say("cost_long"), value=language.money(totals.cost_nanos), note=per_call),
        Tile(
            label=say("adjusted"), value=language.signed_money(added), note=language.percent(added, totals.cost_nanos)
        ),
        Tile(label=say("savings"), value=language.money(statement.savings.total_nanos), note=saved_of, tone="good"),
        Tile(label=say("calls"), value=language.short_count(totals.calls), note=language.count(totals.calls)),
        Tile(label=say("tokens"), value=language.short_count(tokens), note=split),
    ]
    refused = language.count(statement.refusals.calls)
    if statement.refusals.calls:
        value = language.money(statement.refusals.ceiling_nanos)
        tiles.append(Tile(label=say("refused"), value=value, note=say("refused_note", calls=refused)))
    if statement.forecast:
        tiles.append(_forecast_tile(statement.forecast, language))
    yield Section(key="headline", title=say("headline"), tiles=tuple(tiles), note=_suspense(statement, language))


def _per_call(totals: Amounts) -> int:
    """Return the cost of a call, to a millionth of a dollar."""
    return totals.cost_nanos // totals.calls // 1000 * 1000


def _forecast_tile(forecast: Forecast, language: Language) -> Tile:
    low, high = language.money(forecast.low_charge_nanos), language.money(forecast.high_charge_nanos)
    expected = language.money(forecast.expected_charge_nanos)
    return Tile(label=language.say("forecast"), value=expected, note=f"{low} – {high}")


def _in_currency(statement: Statement, language: Language) -> str:
    currency = statement.currency
    if currency is None:
        return ""
    return f"≈ {language.money_in(statement.totals.charge_nanos, currency.code, currency.per_dollar_millionths)}"


def _suspense(statement: Statement, language: Language) -> str:
    totals = statement.totals
    if not totals.suspense_calls:
        return ""
    amount, calls = language.money(totals.suspense_nanos), language.count(totals.suspense_calls)
    return language.say("suspense_note", amount=amount, calls=calls)


def _waterfall(statement: Statement, language: Language) -> Iterator[Section]:
    say, totals = language.say, statement.totals
    steps = entry_sums(statement)
    levels = list(accumulate(steps.values(), initial=totals.cost_nanos))
    lowest, highest = min(0, *levels), max(1, *levels)

    def place(nanos: int) -> float:
        return (nanos - lowest) / (highest - lowest)

    def bar(label: str, text: str, since: int, until: int, tone: Tone) -> Bar:
        return Bar(label=label, text=text, start=place(min(since, until)), end=place(max(since, until)), tone=tone)

    bars = [bar(say("cost_long"), language.money(totals.cost_nanos), 0, totals.cost_nanos, "strong")]
    for (kind, nanos), since, until in zip(steps.items(), levels, levels[1:], strict=False):
        tone: Tone = "bad" if nanos > 0 else "good"
        bars.append(bar(say(f"kind_{kind.value.lower()}"), language.signed_money(nanos), since, until, tone))
    bars.append(bar(say("charge"), language.money(totals.charge_nanos), 0, totals.charge_nanos, "strong"))
    lead = say("waterfall_lead") if steps else say("no_entries")
    yield Section(key="waterfall", title=say("waterfall"), lead=lead, bars=tuple(bars), is_half=True)


def _budgets(statement: Statement, language: Language) -> Iterator[Section]:
    if not statement.budgets:
        return
    bars = tuple(_budget(statement, budget, language) for budget in statement.budgets)
    yield Section(key="budgets", title=language.say("budgets"), bars=bars, is_half=True)


def _budget(statement: Statement, budget: BudgetUse, language: Language) -> Bar:
    widest = max(budget.amount_nanos, budget.used_nanos, 1)
    is_over = budget.used_nanos > budget.amount_nanos
    share = language.percent(budget.used_nanos, budget.amount_nanos)
    warning = f" · {language.say('over_budget')}" if is_over else ""
    return Bar(
        label=budget.display_name or scope_title(statement, budget.scope),
        text=f"{language.money(budget.used_nanos)} / {language.money(budget.amount_nanos)}",
        note=f"{share}{warning}",
        end=budget.used_nanos / widest,
        mark=budget.amount_nanos / widest,
        tone="bad" if is_over else "plain",
    )


def _days(statement: Statement, language: Language) -> Iterator[Section]:
    parts = [part for part in statement.breakdowns.get(Dimension.DAY, ()) if part.key]
    if not parts:
        return
    days = [date.fromisoformat(part.key) for part in parts]
    costs = [part.amounts.cost_nanos for part in parts]
    uprights = tuple(
        Upright(
            label=language.short_date(day),
            text=language.money(nanos),
            height=height,
            tick=language.day_of_month(day) if place % _TICK_EVERY == 0 else "",
            is_quiet=day.weekday() >= 5,
        )
        for place, (day, nanos, height) in enumerate(zip(days, costs, parts_of(costs), strict=True))
    )
    yield Section(key="days", title=language.say("by_day"), lead=language.say("cost_long"), uprights=uprights)


def _savings(statement: Statement, language: Language) -> Iterator[Section]:
    say, savings = language.say, statement.savings
    rows = [
        (say("savings_cache"), savings.cache_nanos),
        (say("savings_batch"), savings.batch_nanos),
        (say("savings_device"), savings.on_device_nanos),
    ]
    if not savings.total_nanos:
        return
    lengths = parts_of([nanos for _, nanos in rows])
    bars = tuple(
        Bar(label=label, text=language.money(nanos), end=length, tone="good")
        for (label, nanos), length in zip(rows, lengths, strict=True)
    )
    yield Section(key="savings", title=say("savings"), lead=say("savings_lead"), bars=bars, is_half=True)


def _forecast(statement: Statement, language: Language) -> Iterator[Section]:
    forecast, say = statement.forecast, language.say
    if forecast is None:
        return
    low, high = language.money(forecast.low_charge_nanos), language.money(forecast.high_charge_nanos)
    confidence = language.percent(forecast.confidence_percent, 100)
    reserve = language.percent(forecast.reserve_percent, 100)
    tiles = (
        Tile(label=say("expected_charge"), value=language.money(forecast.expected_charge_nanos), tone="strong"),
        Tile(label=say("expected_cost"), value=language.money(forecast.expected_nanos)),
        Tile(
            label=say("recommended"),
            value=language.money(forecast.recommended_charge_nanos),
            note=say("recommended_note", reserve=reserve),
        ),
    )
    lead = say("forecast_lead", low=low, high=high, confidence=confidence)
    yield Section(key="forecast", title=say("forecast"), lead=lead, tiles=tiles, is_half=True)


def _returns(statement: Statement, language: Language) -> Iterator[Section]:
    say = language.say
    labels = ("unit", "units", "alternative", "actual", "saved", "return_percent")
    rows = tuple(
        Row(
            cells=(
                each.unit,
                language.count(each.units),
                language.money(each.alternative_nanos),
                language.money(each.actual_nanos),
                language.money(each.alternative_nanos - each.actual_nanos),
                language.percent(each.alternative_nanos - each.actual_nanos, each.actual_nanos),
            )
        )
        for each in statement.returns
    )
    if rows:
        columns = tuple(
            Column(say(label), is_number=place > 0, is_minor=place == 1) for place, label in enumerate(labels)
        )
        table = Table(columns=columns, rows=rows)
        yield Section(key="returns", title=say("returns"), lead=say("returns_lead"), table=table)


def _entries(statement: Statement, language: Language) -> Iterator[Section]:
    say = language.say
    if not statement.entries:
        return
    columns = (
        Column(say("reason"), is_number=False, is_wide=True),
        Column(say("entry_kind"), is_number=False, is_minor=True),
        Column(say("department"), is_number=False),
        Column(say("for_month"), is_number=False, is_minor=True),
        Column(say("basis"), is_minor=True),
        Column(say("amount")),
    )
    rows = tuple(
        Row(
            cells=(
                entry.reason,
                say(f"kind_{entry.kind.value.lower()}"),
                department_title(statement, entry.department) if entry.department else "",
                language.month(entry.for_month) if entry.for_month else "",
                "" if entry.basis_nanos is None else language.money(entry.basis_nanos),
                language.signed_money(entry.amount_nanos),
            )
        )
        for entry in statement.entries
    )
    added = language.signed_money(sum(entry.amount_nanos for entry in statement.entries))
    table = Table(columns=columns, rows=rows, total=(say("entries_total"), "", "", "", "", added))
    yield Section(key="entries", title=say("entries"), lead=say("entries_lead"), table=table)


def _verify(statement: Statement, language: Language) -> Iterator[Section]:
    say = language.say
    exact = (
        (say("exact_cost"), nanos_to_dollars(statement.totals.cost_nanos)),
        (say("exact_charge"), nanos_to_dollars(statement.totals.charge_nanos)),
    )
    person = last_part(statement.seal.closed_by) if statement.seal else ""
    yield Section(
        key="verify",
        title=say("verify"),
        lead=seal_sentence(statement, language, person=person),
        facts=(*exact, *seal_facts(statement, language)),
        note=say("verify_how"),
    )


_SECTIONS: Final[tuple[_Make, ...]] = (
    _headline,
    _waterfall,
    _budgets,
    _days,
    breakdown_sections,
    _savings,
    _forecast,
    _returns,
    _entries,
    _verify,
)
