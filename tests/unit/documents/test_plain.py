"""Statements as CSV for programs and for spreadsheets: words of users stay words."""

import csv
from dataclasses import replace
from io import StringIO

import pytest
from tollhouse_server.chargeback.statement import Statement
from tollhouse_server.documents.formats import format_of

from tests.unit.documents.sample import statement


def _rows(written: Statement) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(format_of("csv").document(written).decode(), newline="")))


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r"])
def test_words_of_users_are_no_formulas(begin: str) -> None:
    """A reason, a name or a tier that a spreadsheet would run stands behind an apostrophe."""
    words = f"{begin}cmd|' /C calc'!A0"
    sample = statement()
    written = replace(
        sample,
        entries=(replace(sample.entries[0], reason=words, rule=words),),
        lines=(replace(sample.lines[0], tier=words, project=words),),
    )

    line, entry, _ = _rows(written)

    assert {line["tier"], line["project"], entry["reason"], entry["rule"]} == {f"'{words}"}


def test_amounts_stay_numbers_below_zero_too() -> None:
    """A credit of -18.40 dollars can be added up."""
    rows = _rows(statement())

    amounts = [int(row["charge_nanos"]) for row in rows]
    assert min(amounts) < 0
    assert sum(amounts[:-1]) == amounts[-1] == statement().totals.charge_nanos
