"""Price files that are well formed and cannot be meant."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import pytest
from tollhouse_server.pricing.book import packaged_prices
from tollhouse_server.pricing.imports import book_with
from tollhouse_server.pricing.plausibility import Allowances, Comparison, implausible
from tollhouse_server.pricing.price_file import import_prices
from tollhouse_server.pricing.terms import PriceBook

from .builders import BOOK

WHOLE = (
    ("model", '"gemini-2.5-flash-lite"'),
    ("effective_from", "2027-03-01"),
    ("source", '"contract"'),
    ("input", '"0.20"'),
    ("cached", '"0.02"'),
    ("output", '"0.80"'),
    ("cache_storage", '"1.00"'),
    ("grounding_prompt", '"35"'),
    ("service_tiers", '{ batch = "0.5", flex = "0.5", priority = "1.8" }'),
)
"""A list that has all that the book has of the model."""
SHUT_DOWN = {"gemini-2.5-flash-lite": datetime(2027, 2, 1, tzinfo=UTC)}


def file_with(**changes: str | None) -> str:
    """The whole list as a file, with fields changed, or left out where None."""
    fields = {**dict(WHOLE), **changes}
    return "[[prices]]\n" + "".join(f"{key} = {value}\n" for key, value in fields.items() if value is not None)


def faults(
    text: str,
    *,
    before: PriceBook = BOOK,
    allowances: Allowances | None = None,
    shutdowns: Mapping[str, datetime] | None = None,
) -> Sequence[str]:
    """The paths that are refused when a file comes over a book."""
    parsed = import_prices(text)
    comparison = Comparison(
        parsed=parsed,
        before=before,
        after=book_with(before, parsed),
        allowances=allowances or Allowances(),
        shutdowns=shutdowns or {},
    )
    return [violation.path for violation in implausible(comparison)]


def test_a_whole_list_with_other_prices_is_fine() -> None:
    """Twice the price is news, not a mistake."""
    assert faults(file_with()) == []


def test_the_packaged_file_can_be_imported_over_itself_and_over_nothing() -> None:
    """What comes with the software passes what an administrator's file must pass."""
    parsed = packaged_prices()

    for before in (BOOK, PriceBook(0, ())):
        assert implausible(Comparison(parsed=parsed, before=before, after=book_with(before, parsed))) == ()


@pytest.mark.parametrize(
    ("left_out", "path"),
    [
        ("cache_storage", "prices[0].cache_storage"),
        ("grounding_prompt", "prices[0].grounding_prompt"),
        ("service_tiers", "prices[0].service_tiers.batch"),
    ],
)
def test_what_a_model_in_use_would_lose_is_named(left_out: str, path: str) -> None:
    """A gap would refuse calls that work today, or charge them at another kind's price."""
    assert path in faults(file_with(**{left_out: None}))


def test_a_model_that_is_shut_down_by_then_may_lose_its_prices() -> None:
    """From its shutdown on nobody can call it; before, everybody can."""
    after, before = (file_with(cache_storage=None, effective_from=day) for day in ("2027-03-01", "2027-01-01"))

    assert faults(after, shutdowns=SHUT_DOWN) == []
    assert faults(before, shutdowns=SHUT_DOWN) == ["prices[0].cache_storage"]


def test_a_gap_at_a_later_date_of_the_book_is_found() -> None:
    """The file's one list takes the place of all later ones, and of what these alone had."""
    before = book_with(BOOK, import_prices(file_with(effective_from="2027-06-01", output_image='"3"')))

    assert faults(file_with(), before=before) == ["prices[0].output_image"]


@pytest.mark.parametrize(
    ("output", "is_refused"),
    [('"4.00"', False), ('"4.01"', True), ('"0.04"', False), ('"0.039"', True)],
)
def test_a_jump_of_more_than_ten_times_is_refused_both_ways(output: str, *, is_refused: bool) -> None:
    """The book has $0.40: ten times that, or a tenth, may just be; a decimal point more may not."""
    assert ("prices[0].output_text" in faults(file_with(output=output))) is is_refused


def test_the_factor_is_the_imports_own() -> None:
    """Stricter or wider; with jumps allowed there is none."""
    text = file_with(output='"1.30"')

    assert faults(text, allowances=Allowances(max_jump_factor=3)) == ["prices[0].output_text", "prices[0].thoughts"]
    assert faults(text, allowances=Allowances(max_jump_factor=4)) == []
    assert faults(file_with(output='"400"'), allowances=Allowances(allow_jumps=True, reason="a test")) == []


def test_a_jump_between_two_lists_of_a_new_model_is_refused() -> None:
    """Nothing in the book to compare with, but the file itself."""
    first = file_with(model='"new-model"')
    second = file_with(model='"new-model"', effective_from="2027-04-01", output='"80"')

    assert faults(first) == []
    assert faults(first + second) == ["prices[1].output_text", "prices[1].thoughts"]


def test_a_service_tier_and_an_image_size_can_jump_too() -> None:
    """Batch at five times the price instead of half of it is a slip."""
    tiers = '{ batch = "5.5", flex = "0.5", priority = "1.8" }'

    assert faults(file_with(service_tiers=tiers)) == ["prices[0].service_tiers.batch"]


def test_zero_must_be_said() -> None:
    """Of a model that has a price, and of a new one; where the book has zero already there is nothing to say."""
    gemma = (
        '[[prices]]\nmodel = "gemma-4-31b-it"\neffective_from = 2027-01-01\nsource = "s"\ninput = "0"\noutput = "0"\n'
    )

    assert faults(file_with(cached='"0"'))[0].startswith("prices[0].cached_")
    assert faults(file_with(cached='"0"', zero_prices="true")) == []
    assert faults(file_with(cached='"0"', model='"new-model"')) != []
    assert faults(gemma) == []


def test_a_price_after_zero_is_no_jump() -> None:
    """An internal rate for a model that was free."""
    gemma = (
        '[[prices]]\nmodel = "gemma-4-31b-it"\neffective_from = 2027-01-01\nsource = "s"\ninput = "1"\noutput = "9"\n'
    )

    assert faults(gemma) == []


def test_a_surcharge_can_jump() -> None:
    """Seventy-five per cent instead of seven and a half is ten times; eighty is more."""
    relay = '[[surcharges]]\nendpoint = "gemini_api-relay"\npercent = "{}"\neffective_from = {}\n'
    before = book_with(BOOK, import_prices(relay.format("7.5", "2026-11-01")))

    assert faults(relay.format("75", "2026-12-01"), before=before) == []
    assert faults(relay.format("80", "2026-12-01"), before=before) == ["surcharges[0].percent"]
