"""Statements for programs: JSON, the very text that is sealed, and CSV of the lines, entries and totals."""

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Final

import orjson

from tollhouse_server.chargeback.canonical import canonical_json, encoded
from tollhouse_server.chargeback.statement import Statement
from tollhouse_server.documents.language import Language
from tollhouse_server.documents.spreadsheet_text import no_formula

_COLUMNS: Final = (
    *("scope", "month", "row", "department", "project", "tier", "model", "sku", "unit", "quantity", "calls"),
    *("cost_nanos", "charge_nanos", "rule", "reason", "for_month"),
)


def render_json(statement: Statement, _: Language) -> bytes:
    """Return the statement and, of a closed month, its seal. The member `statement` is the text that was digested."""
    seal = b"null" if statement.seal is None else orjson.dumps(encoded(statement.seal), option=orjson.OPT_SORT_KEYS)
    return b'{"seal":%s,"statement":%s}\n' % (seal, canonical_json(statement))


def render_csv(statement: Statement, _: Language) -> bytes:
    """Return a row for each line and each entry, and a last one with the totals; amounts are whole nano-dollars."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _COLUMNS, restval="", lineterminator="\r\n")
    writer.writeheader()
    place = {"scope": str(statement.scope), "month": statement.month}
    writer.writerows(_without_formulas(place | row) for row in _rows(statement))
    return text.getvalue().encode()


def _without_formulas(row: Mapping[str, object]) -> dict[str, object]:
    """Keep numbers, which may be negative, and quote texts."""
    return {name: no_formula(value) if isinstance(value, str) else value for name, value in row.items()}


def _rows(statement: Statement) -> Iterator[dict[str, object]]:
    for line in statement.lines:
        yield {"row": "line", **encoded(line), "charge_nanos": line.cost_nanos}
    for entry in statement.entries:
        yield {
            "row": entry.kind.value.lower(),
            "department": entry.department,
            "project": entry.project,
            "tier": entry.tier,
            "model": entry.model,
            "cost_nanos": 0,
            "charge_nanos": entry.amount_nanos,
            "rule": entry.rule,
            "reason": entry.reason,
            "for_month": entry.for_month,
        }
    totals = statement.totals
    yield {
        "row": "total",
        "calls": totals.calls,
        "cost_nanos": totals.cost_nanos,
        "charge_nanos": totals.charge_nanos,
    }
