"""Lines of Google's export: read exactly, and refused with line and field when they are bad."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from tollhouse_server.errors import InvalidRequest
from tollhouse_server.reconciliation.lines import BillLine
from tollhouse_server.reconciliation.reader import MOST_NAMED, BillFormat, read_piece

from tests.drivers.google_bill import Row, as_csv, as_jsonl, bill_line, changed, exported_later

ROW = bill_line(datetime(2026, 10, 7, 6, 30, tzinfo=UTC), "alpha", "gemini-3.8-flash", "input_text", 1_000)


def read(text: str, kind: BillFormat = BillFormat.JSONL, first_line: int = 1) -> list[BillLine]:
    """Read a piece."""
    return read_piece(text, kind, first_line=first_line)


def one(**values: Any) -> BillLine:
    """Read one line with other values."""
    (line,) = read(as_jsonl([changed(ROW, **values)]))
    return line


def defects(text: str, kind: BillFormat = BillFormat.JSONL, first_line: int = 1) -> list[str]:
    """Return what is named of a bad piece."""
    with pytest.raises(InvalidRequest) as refused:
        read(text, kind, first_line)
    return [violation.path for violation in refused.value.violations]


def test_a_line_is_of_the_pacific_day_that_its_use_began_on() -> None:
    """06:30 UTC is the evening before in California, in summer time."""
    line = one()

    assert (line.day, line.usage_start) == (date(2026, 10, 6), datetime(2026, 10, 7, 6, 30, tzinfo=UTC))


@pytest.mark.parametrize(
    ("text", "nanos"),
    [("0.1", "100000000"), ("1.2e-05", "12000"), ("0.0000000004", "0.4"), ("-3", "-3000000000"), ("0", "0")],
)
def test_money_is_read_from_its_decimal_text(text: str, nanos: str) -> None:
    """No float on the way: a tenth is a tenth, and fractions of a nano-dollar are kept."""
    line = read(json.dumps(ROW).replace(f'"cost": {ROW["cost"]}', f'"cost": {text}'))[0]

    assert line.cost_nanos == Decimal(nanos)


def test_money_of_another_currency_is_kept_and_converted() -> None:
    """The cost stays in euros beside its rate; nano-dollars are the quotient."""
    line = one(cost=0.46, currency="EUR", currency_conversion_rate=0.92)

    assert (line.currency, line.cost, line.conversion_rate) == ("EUR", Decimal("0.46"), Decimal("0.92"))
    assert line.cost_nanos == Decimal(500_000_000)


def test_credits_are_kept_one_by_one_and_those_of_a_free_tier_apart() -> None:
    """Their sum is what Google takes off."""
    line = one(
        credits=[
            {"type": "PROMOTION", "full_name": "Welcome", "amount": -0.25},
            {"type": "FREE_TIER", "name": "Free", "amount": -0.5},
        ]
    )

    assert (line.credits_nanos, line.free_nanos) == (Decimal(-750_000_000), Decimal(-500_000_000))
    assert line.credits[0] == {"type": "PROMOTION", "name": "Welcome", "amount": "-0.25"}


def test_a_line_is_the_same_in_json_and_csv_with_empty_columns_and_nested_or_flat_names() -> None:
    """Its digest does not depend on how it was written down."""
    row = changed(ROW, credits=[{"type": "PROMOTION", "amount": -0.25}])
    flat = as_csv([row | {"tags": [], "seller_name": ""}])

    (nested,) = read(as_jsonl([row]))
    (dotted,) = read(flat, BillFormat.CSV)
    (underscored,) = read(flat.replace("sku.", "sku_").replace("usage.a", "usage_a"), BillFormat.CSV)

    assert nested == dotted == underscored


def test_a_line_exported_once_more_is_another_line_of_the_same_use() -> None:
    """One digest tells lines apart, the other one uses."""
    (first, later) = read(as_jsonl([ROW, exported_later(ROW)]))

    assert (first.line_digest == later.line_digest, first.usage_digest == later.usage_digest) == (False, True)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"cost": None}, "cost"),
        ({"cost": "much"}, "cost"),
        ({"cost": "NaN"}, "cost"),
        ({"cost": "1e999"}, "cost"),
        ({"usage_start_time": "yesterday"}, "usage_start_time"),
        ({"export_time": ""}, "export_time"),
        ({"sku": {"description": "no id"}}, "sku.id"),
        ({"sku": "a text"}, "sku.id"),
        ({"currency": "EURO"}, "currency"),
        ({"currency": "EUR", "currency_conversion_rate": None}, "currency_conversion_rate"),
        ({"currency": "EUR", "currency_conversion_rate": 0}, "currency_conversion_rate"),
        ({"credits": [{"type": "PROMOTION"}]}, "credits[0].amount"),
        ({"credits": "none"}, "credits"),
        ({"invoice": {"month": "2026-10"}}, "invoice.month"),
        ({"cost_type": "bribe"}, "cost_type"),
        ({"project": {"id": "x" * 2000}}, "project.id"),
        ({"usage": {"amount": "few"}}, "usage.amount"),
    ],
)
def test_a_bad_field_is_named_with_its_line(values: Row, field: str) -> None:
    """The second of three lines is the bad one."""
    rows = [ROW, changed(ROW, **values), ROW]

    assert defects(as_jsonl(rows), first_line=41) == [f"line 42: {field}"]


@pytest.mark.parametrize("line", ["{", "[]", '"text"', "nonsense", '{"cost": ' + "[" * 100_000])
def test_a_line_that_is_no_object_is_named(line: str) -> None:
    """Half a line, a list, a text, and what is nested too deeply."""
    assert defects(f"{line}\n") == ["line 1: (line)"]


def test_lines_of_csv_are_counted_as_an_editor_counts_them() -> None:
    """The first line of use is the second of the file."""
    text = as_csv([ROW, changed(ROW, cost="much")])

    assert defects(text, BillFormat.CSV, first_line=2) == ["line 3: cost"]
    assert defects(f"{text}too,few\n", BillFormat.CSV, first_line=2) == ["line 3: cost", "line 4: (line)"]


def test_not_every_line_of_a_wrong_file_is_named() -> None:
    """A file of something else is refused quickly."""
    assert len(defects(as_jsonl([{"a": 1}] * 1000))) == MOST_NAMED


def with_more(value: str) -> str:
    """Return a good line with a field that nobody reads, as JSON."""
    return json.dumps(ROW)[:-1] + f', "x": {value}}}'


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (with_more("1e9999999"), "line 1: (line)"),
        (with_more("1e-999999"), "line 1: (line)"),
        (with_more("9" * 5000), "line 1: (line)"),
        (with_more('{"a":' * 900 + "1" + "}" * 900), "line 1: (line)"),
        (with_more("[" * 400 + "]" * 400), "line 1: (line)"),
        (with_more('"\\ud800"'), "line 1: (line)"),
        (json.dumps(changed(ROW, usage_start_time="0001-01-01T00:00:00Z")), "line 1: usage_start_time"),
        (json.dumps(changed(ROW, cost="999999999999999999e99")), "line 1: cost"),
        (json.dumps(changed(ROW, currency="EUR", currency_conversion_rate="1e-99")), "line 1: cost"),
        (json.dumps(changed(ROW, cost="\u0661")), "line 1: cost"),
        (json.dumps(changed(ROW, credits="[" * 5000)), "line 1: credits"),
    ],
)
def test_a_hostile_line_is_refused_as_quickly_as_any_bad_one(text: str, path: str) -> None:
    """Numbers with a million digits, nesting without an end, texts that are none, years before there were bills."""
    assert defects(text) == [path]


@pytest.mark.parametrize("header", ["sku,sku.id", "sku.id,sku", "sku.id,sku_id", "cost,cost"])
def test_columns_that_contradict_one_another_are_refused(header: str) -> None:
    """Which of the two would count is for nobody to guess."""
    assert defects(f"{header}\n1,2\n", BillFormat.CSV) == ["line 0: (header)"]


def test_texts_that_only_look_like_something_else_are_texts() -> None:
    """A label may begin as a moment or a list does."""
    for text in ("2026-10-01 07:00 run", "[" * 5000, "2026-10-01 23:59:59+24:00", "[NaN]"):
        one(labels=[{"key": "note", "value": text}])
