"""Price files: exact, refused whole, every defect named."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tollhouse_server.errors import PriceFileInvalid
from tollhouse_server.pricing.book import packaged_prices
from tollhouse_server.pricing.price_file import import_prices, merge
from tollhouse_server.pricing.store import diff
from tollhouse_server.routing.catalogue_file import packaged_catalogue

GOOD: dict[str, Any] = {
    "model": "gemini-x",
    "effective_from": "2026-01-01",
    "source": "a test",
    "input": "0.30",
    "input_audio": "1.00",
    "cached": "0.03",
    "output": "2.50",
    "service_tiers": {"batch": "0.5"},
}


def file_of(*lists: dict[str, Any], **fields: Any) -> str:
    return json.dumps({"note": "test", "prices": list(lists), **fields})


def violations_of(text: str) -> dict[str, str]:
    with pytest.raises(PriceFileInvalid) as refused:
        import_prices(text)
    return {violation.path: violation.description for violation in refused.value.violations}


def test_shorthands_spread_over_their_skus_and_give_way_to_a_sku_of_its_own() -> None:
    """`input` prices all five modalities, `input_audio` overrules it; dollars become nano-dollars per million."""
    parsed = import_prices(file_of(GOOD)).lists[0]

    assert parsed.nanos_per_million["input_document"] == 300_000_000
    assert parsed.nanos_per_million["input_audio"] == 1_000_000_000
    assert parsed.nanos_per_million["thoughts"] == parsed.nanos_per_million["output_text"] == 2_500_000_000
    assert parsed.tier_permille == {"batch": 500}
    assert parsed.effective_from == datetime(2026, 1, 1, tzinfo=UTC)


def test_toml_and_json_say_the_same() -> None:
    """Both notations, quoted or bare numbers, are the same prices."""
    toml = 'note="t"\n[[prices]]\nmodel="m"\neffective_from=2026-01-01\nsource="s"\ninput_text=0.1\noutput="2"\n'
    entry = {"model": "m", "effective_from": "2026-01-01", "source": "s", "input_text": "0.10", "output": 2}

    assert import_prices(toml).lists == import_prices(file_of(entry)).lists


@pytest.mark.parametrize("field", ["input", "output", "cached", "input_audio", "service_tiers"])
@pytest.mark.parametrize(
    "value",
    [None, "", " ", "-1", -1, -0.5, "1001", 1e300, "0.0000000001", "1e-3", "NaN", float("inf"), "1,5", True, [], "1_0"],
)
def test_every_price_field_refuses_what_is_no_price(field: str, value: Any) -> None:
    """Null, blank, negative, huge, too fine, not plain: refused with the field named."""
    found = violations_of(file_of({**GOOD, field: value}))

    assert list(found) == [f"prices[0].{field}"]


@pytest.mark.parametrize("field", ["model", "effective_from", "source"])
@pytest.mark.parametrize("value", [None, "", " ", 7, [], {}, "\x00" * 600])
def test_every_other_field_refuses_what_it_cannot_be(field: str, value: Any) -> None:
    """Null, blank, a number, a list, too long: refused with the field named."""
    assert list(violations_of(file_of({**GOOD, field: value}))) == [f"prices[0].{field}"]


def test_missing_fields_are_named() -> None:
    """What must be there and is not is named as well."""
    found = violations_of(file_of({"input": "1"}))

    assert {"prices[0].model", "prices[0].effective_from", "prices[0].source"} <= set(found)


def test_unknown_keys_are_refused_and_not_ignored() -> None:
    """A misspelt price would otherwise be a missing one."""
    found = violations_of(file_of({**GOOD, "inptu_audio": "1", "service_tiers": {"turbo": "2"}}, colour="red"))

    assert set(found) == {"prices[0].inptu_audio", "prices[0].service_tiers.turbo", "colour"}


def test_all_defects_are_named_at_once() -> None:
    """Nobody has to import a file as often as it has mistakes."""
    found = violations_of(file_of({**GOOD, "input": "-1", "output": None}, {**GOOD, "model": ""}))

    assert set(found) == {"prices[0].input", "prices[0].output", "prices[1].model"}


def test_two_lists_for_one_moment_are_refused_however_the_moment_is_written() -> None:
    """The same instant in two time zones is the same instant."""
    same = {**GOOD, "effective_from": "2025-12-31T16:00:00-08:00"}

    assert violations_of(file_of(GOOD, same)) == {"prices[1]": "repeats the model and date of prices[0]"}


def test_a_key_that_is_there_twice_is_refused() -> None:
    """Neither the first nor the last of two prices is silently taken."""
    text = file_of(GOOD).replace('"cached"', '"output"')

    assert violations_of(text) == {"output": "is there twice"}
    assert "TOML" in violations_of("note='a'\nnote='b'\n")[""]


def test_a_price_that_ends_without_a_successor_is_a_gap() -> None:
    """A later list must price everything that an earlier one did."""
    later = {key: value for key, value in GOOD.items() if key != "cached"} | {"effective_from": "2027-01-01"}

    found = violations_of(file_of(GOOD, later))

    assert "is priced before 2027-01-01" in found["gemini-x.cached_text"]


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"input": None, "input_audio": "1"}, "prices[0].input_text"),
        ({"output": None, "output_image": "30"}, "prices[0].output_text"),
        ({"output": None, "output_text": "30"}, "prices[0].thoughts"),
        ({"input_long": "0.60"}, "prices[0].long_above_tokens"),
        ({"long_above_tokens": 200_000}, "prices[0].long_above_tokens"),
        ({"long_above_tokens": 200_000, "input_long": "0.60"}, "prices[0].output_text"),
        ({"service_tiers": {"flex": "0.333"}, "input": "0.000000001"}, "prices[0].input_text"),
    ],
)
def test_a_list_that_leaves_a_use_unpriced_is_refused(changes: dict[str, Any], path: str) -> None:
    """Output without input, long prices without a threshold, factors that make no whole price."""
    entry = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}

    assert path in violations_of(file_of(entry))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"prices": []}', '{"prices": [1]}', "prices = 5", "[" * 100_000])
def test_what_is_no_price_file_is_refused(text: str) -> None:
    """Not TOML, not JSON, no lists."""
    assert violations_of(text)


def test_an_oversized_file_is_refused_unread() -> None:
    """A price file has a limit too."""
    assert "larger than" in violations_of("#" * 1_100_000)[""]


@given(st.integers(0, 10**12))
def test_every_decimal_is_read_exactly(nanos: int) -> None:
    """A price of n nano-dollars per million, written as dollars, is read as n."""
    dollars = f"{nanos // 10**9}.{nanos % 10**9:09d}"
    entry = {"model": "m", "effective_from": "2026-01-01", "source": "s", "input_text": dollars}

    assert import_prices(file_of(entry)).lists[0].nanos_per_million == {"input_text": nanos}


@given(st.text(max_size=300))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    """Never a crash."""
    with pytest.raises(PriceFileInvalid):
        import_prices(text)


def test_the_packaged_file_prices_every_model_of_the_catalogue() -> None:
    """No model of the packaged catalogue is unpriced, and none is priced without being in it."""
    priced = {one.model for one in packaged_prices().lists}

    assert priced == {one.model for one in packaged_catalogue().models}


def test_every_packaged_price_names_its_source() -> None:
    """A price without a source cannot be checked."""
    assert all(one.source.startswith("https://") for one in packaged_prices().lists)


def test_a_file_replaces_a_models_lists_from_its_first_date_on() -> None:
    """Earlier lists stay for what was used then; later ones give way; other models are untouched."""
    at = {year: {**GOOD, "effective_from": f"{year}-01-01"} for year in (2025, 2026, 2027)}
    other = {**GOOD, "model": "gemini-y"}
    current = import_prices(file_of(at[2025], at[2027], other)).lists
    new = import_prices(file_of({**at[2026], "input": "9"})).lists

    merged = merge(current, new)

    kept = [(one.model, one.effective_from.year, one.nanos_per_million["input_text"]) for one in merged]
    assert kept == [
        ("gemini-x", 2025, 300_000_000),
        ("gemini-x", 2026, 9_000_000_000),
        ("gemini-y", 2026, 300_000_000),
    ]


def test_the_difference_names_each_price_that_changes() -> None:
    """What a dry run shows is exactly what an import does."""
    before = import_prices(file_of(GOOD)).lists
    after = import_prices(file_of({**GOOD, "input_audio": "2", "grounding_query": "14"})).lists

    changes = [(change.sku, change.before_nanos, change.after_nanos) for change in diff(before, after)]

    assert changes == [
        ("grounding_query", None, 14_000_000_000_000),
        ("input_audio", 1_000_000_000, 2_000_000_000),
    ]
