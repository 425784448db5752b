"""Tables that divide a statement's totals, the dearest first."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tollhouse_server.chargeback.statement import Part, Statement
from tollhouse_server.documents.language import Language
from tollhouse_server.documents.names_for_people import part_title
from tollhouse_server.documents.outline import MOST_ROWS, Column, Row, Section, Table, parts_of
from tollhouse_server.reporting.sums import Dimension

_SHOWN: Final = (Dimension.DEPARTMENT, Dimension.MODEL, Dimension.TIER, Dimension.PROJECT)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Figures:
    """What one row says, before it is written."""

    title: str
    calls: int = 0
    tokens: int = 0
    cost_nanos: int = 0
    charge_nanos: int = 0


def breakdown_sections(statement: Statement, language: Language) -> Iterator[Section]:
    """Yield a section for each division that the statement has, then its labels and what was priced."""
    for dimension in _SHOWN:
        parts = statement.breakdowns.get(dimension, ())
        if parts:
            titles = [part_title(statement, dimension.value, part.key, language) for part in parts]
            table = _table(language, dimension.value, _figures(titles, parts), has_total=True)
            yield Section(key=f"by-{dimension.value}", title=language.say(f"by_{dimension.value}"), table=table)
    if statement.labels:
        figures = _figures([part.key for part in statement.labels], statement.labels)
        table = _table(language, "label", figures, has_total=False)
        yield Section(key="by-label", title=language.say("by_label"), lead=language.say("labels_note"), table=table)
    if statement.lines:
        yield Section(key="by-sku", title=language.say("by_sku"), table=_skus(statement, language))


def _figures(titles: Sequence[str], parts: Sequence[Part]) -> list[_Figures]:
    return [
        _Figures(
            title=title,
            calls=part.amounts.calls,
            tokens=part.amounts.input_tokens + part.amounts.output_tokens,
            cost_nanos=part.amounts.cost_nanos,
            charge_nanos=part.amounts.charge_nanos,
        )
        for title, part in zip(titles, parts, strict=True)
    ]


def _table(language: Language, label: str, figures: list[_Figures], *, has_total: bool) -> Table:
    # By title among equals, so that the order never hangs on anything else.
    ordered = sorted(figures, key=lambda each: (-each.charge_nanos, -each.cost_nanos, each.title))
    shown, rest = ordered[:MOST_ROWS], ordered[MOST_ROWS:]
    if rest:
        shown.append(_together(rest, language.say("other", count=language.count(len(rest)))))
    whole = _together(ordered, language.say("total"))
    lengths = parts_of([each.charge_nanos for each in shown])
    columns = _columns(language, label)
    return Table(
        columns=columns if has_total else columns[:-1],
        rows=tuple(
            Row(cells=_cells(language, each, whole.charge_nanos)[: None if has_total else -1], length=length)
            for each, length in zip(shown, lengths, strict=True)
        ),
        total=_cells(language, whole, whole.charge_nanos) if has_total else (),
    )


def _columns(language: Language, label: str) -> tuple[Column, ...]:
    say = language.say
    return (
        Column(say(label), is_number=False, is_wide=True),
        Column(say("calls"), is_minor=True),
        Column(say("tokens"), is_minor=True),
        Column(say("cost")),
        Column(say("charge")),
        Column(say("share")),
    )


def _cells(language: Language, each: _Figures, whole_nanos: int) -> tuple[str, ...]:
    return (
        each.title,
        language.count(each.calls),
        language.short_count(each.tokens),
        language.money(each.cost_nanos),
        language.money(each.charge_nanos),
        language.percent(each.charge_nanos, whole_nanos),
    )


def _together(figures: Sequence[_Figures], title: str) -> _Figures:
    return _Figures(
        title=title,
        calls=sum(each.calls for each in figures),
        tokens=sum(each.tokens for each in figures),
        cost_nanos=sum(each.cost_nanos for each in figures),
        charge_nanos=sum(each.charge_nanos for each in figures),
    )


def _skus(statement: Statement, language: Language) -> Table:
    quantities: dict[tuple[str, str, str], int] = defaultdict(int)
    costs: dict[tuple[str, str, str], int] = defaultdict(int)
    for line in statement.lines:
        quantities[line.model, line.sku, line.unit] += line.quantity
        costs[line.model, line.sku, line.unit] += line.cost_nanos
    ordered = sorted(costs, key=lambda key: (-costs[key], key))
    shown = ordered[:MOST_ROWS]
    rest = sum(costs[key] for key in ordered[MOST_ROWS:])
    rows = [
        Row(
            cells=(
                model,
                sku,
                language.count(quantities[model, sku, unit]),
                unit,
                language.money(costs[model, sku, unit]),
            )
        )
        for model, sku, unit in shown
    ]
    if len(ordered) > len(shown):
        other = language.say("other", count=language.count(len(ordered) - len(shown)))
        rows.append(Row(cells=(other, "", "", "", language.money(rest))))
    return Table(columns=_sku_columns(language), rows=tuple(rows), total=_sku_total(language, sum(costs.values())))


def _sku_columns(language: Language) -> tuple[Column, ...]:
    say = language.say
    return (
        Column(say("model"), is_number=False, is_wide=True),
        Column(say("sku"), is_number=False),
        Column(say("quantity"), is_minor=True),
        Column(say("unit"), is_number=False, is_minor=True),
        Column(say("cost")),
    )


def _sku_total(language: Language, nanos: int) -> tuple[str, ...]:
    return (language.say("total"), "", "", "", language.money(nanos))
