"""Price files drafted from `genai-prices`: what it says, what it cannot say, and what the book keeps."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from genai_prices.data import providers
from genai_prices.types import (
    ClauseEquals,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    PriceVariant,
    StartDateConstraint,
    Tier,
    TieredPrices,
)
from hypothesis import given
from hypothesis import strategies as st
from tollhouse_server.pricing.book import packaged_prices
from tollhouse_server.pricing.draft import draft_from, draft_prices
from tollhouse_server.pricing.imports import book_with
from tollhouse_server.pricing.plausibility import Comparison, implausible
from tollhouse_server.pricing.price_file import import_prices
from tollhouse_server.pricing.price_text import price_file_text
from tollhouse_server.pricing.public_prices import NoteKind, lists_of
from tollhouse_server.pricing.skus import SKUS, TOKEN_SKUS
from tollhouse_server.pricing.terms import PriceBook, PriceList

from .builders import BOOK

GOOGLE = next(provider for provider in providers if provider.id == "google")
FROM = datetime(2025, 1, 1, tzinfo=UTC)


def public(prices: Any, *variants: PriceVariant) -> ModelInfo:
    """A model as the package has it."""
    return ModelInfo(id="new-model", match=ClauseEquals("new-model"), prices=prices, price_variants=list(variants))


def in_book(**nanos: int) -> PriceBook:
    """A book with one list of the model, in whole dollars for a million."""
    prices = {sku: dollars * 10**9 for sku, dollars in nanos.items()}
    one = PriceList(model="new-model", effective_from=FROM, source="book", nanos_per_million=prices)
    return PriceBook(1, [one])


def test_the_packaged_prices_read_back_from_their_text() -> None:
    """What a draft writes, an import reads: to the nano-dollar, with all factors and sizes."""
    lists = packaged_prices().lists

    read = import_prices(price_file_text(lists, note='a "note"'))

    assert read.lists == lists
    assert read.note == 'a "note"'


@given(prices=st.fixed_dictionaries(dict.fromkeys(TOKEN_SKUS, st.sampled_from([0, 1, 10**9, 10**12 - 1]))))
def test_any_prices_read_back_from_their_text(prices: dict[str, int]) -> None:
    """Shorthands are used only where they say the same."""
    one = PriceList(model="m-1", effective_from=FROM, source="s", nanos_per_million=prices)

    (read,) = import_prices(price_file_text([one], note="n")).lists

    assert read == one


async def test_the_draft_over_the_packaged_book_can_be_imported_as_it_is() -> None:
    """It leaves no gap, and over itself there is nothing left to draft."""
    draft = await draft_prices(BOOK, ())

    parsed = import_prices(draft.content)
    after = book_with(BOOK, parsed)
    assert implausible(Comparison(parsed=parsed, before=BOOK, after=after)) == ()
    assert (await draft_prices(after, ())).content == ""
    assert draft.source_version.startswith("genai-prices ")


async def test_what_the_source_does_not_know_is_said() -> None:
    """Models, tiers and SKUs that it lacks: kept from the book or absent, by name."""
    notes = {(note.kind, note.model, note.subject) for note in (await draft_prices(BOOK, ())).notes}

    assert (NoteKind.ABSENT, "veo-3.1-generate-preview", "") in notes
    assert (NoteKind.ABSENT, "gemma-4-31b-it", "") in notes
    assert (NoteKind.KEPT, "gemini-2.5-pro", "cache_storage") in notes
    assert (NoteKind.KEPT, "gemini-2.5-pro", "service_tiers.priority") in notes
    assert (NoteKind.KEPT, "gemini-embedding-2", "input_document") in notes
    assert (NoteKind.NOT_MAPPED, "gemini-3.5-flash-lite", "cached_service_tiers.batch") in notes


def test_dates_begin_at_midnight_in_california() -> None:
    """The source has days; Google's begin there, in summer and winter time."""
    draft = draft_from(GOOGLE, PriceBook(0, ()), ["gemini-4-argon"], source_version="s")

    starts = [one.effective_from.isoformat() for one in import_prices(draft.content).lists]

    assert starts == ["2025-01-01T00:00:00+00:00", "2026-10-14T07:00:00+00:00", "2026-12-01T08:00:00+00:00"]


def test_a_model_new_to_the_book_has_all_modalities_and_long_prices() -> None:
    """A price for long prompts is one of every token SKU, or it would be no complete list."""
    prices = ModelPrice(
        input_mtok=TieredPrices(base=Decimal("1.25"), tiers=[Tier(start=200_000, price=Decimal("2.5"))]),
        input_audio_mtok=Decimal("3"),
        output_mtok=TieredPrices(base=Decimal(10), tiers=[Tier(start=200_000, price=Decimal(15))]),
        web_searches_kcount=Decimal(14),
    )

    (one,), notes = lists_of("new-model", public(prices), (), source="s")

    nanos = one.nanos_per_million
    assert (nanos["input_video"], nanos["input_video_long"]) == (1_250_000_000, 2_500_000_000)
    assert (nanos["input_audio"], nanos["input_audio_long"]) == (3_000_000_000, 3_000_000_000)
    assert (nanos["thoughts"], nanos["thoughts_long"]) == (10_000_000_000, 15_000_000_000)
    assert nanos["grounding_query"] == 14 * 10**9 * 1_000
    assert (one.long_above_tokens, notes) == (200_000, [])
    assert import_prices(price_file_text([one], note="n")).lists[0].nanos_per_million == nanos


def test_a_price_that_the_book_tells_apart_is_not_flattened() -> None:
    """The source has one price of input; the book has audio dearer, and keeps it."""
    book = in_book(input_text=1, input_audio=3, output_text=5, thoughts=5)

    (one,), notes = lists_of(
        "new-model",
        public(ModelPrice(input_mtok=Decimal(2), output_mtok=Decimal(5))),
        book.history("new-model"),
        source="s",
    )

    assert {sku: nanos // 10**9 for sku, nanos in one.nanos_per_million.items()} == {
        "input_text": 2,
        "input_audio": 3,
        "output_text": 5,
        "thoughts": 5,
    }
    assert [(note.kind, note.subject) for note in notes] == [(NoteKind.KEPT, "input_audio")]


def test_units_that_the_book_does_not_count_are_said() -> None:
    """Writing to a cache by tokens has no SKU; it is named, not dropped in silence."""
    prices = ModelPrice(input_mtok=Decimal(1), output_mtok=Decimal(2), cache_write_mtok=Decimal(3))

    _, notes = lists_of("new-model", public(prices), (), source="s")

    assert [(note.kind, note.subject) for note in notes] == [(NoteKind.NOT_MAPPED, "cache_write_mtok")]


def test_batch_prices_become_a_factor_from_their_day_on() -> None:
    """Half the price of fresh tokens, cached ones in full: as the source has it."""
    variant = PriceVariant(
        when={"processing": "batch"},
        prices=ModelPrice(input_mtok=Decimal("0.5"), output_mtok=Decimal(1)),
        constraint=StartDateConstraint(date(2026, 10, 14)),
    )
    prices = ModelPrice(input_mtok=Decimal(1), cache_read_mtok=Decimal("0.1"), output_mtok=Decimal(2))

    (before, after), _ = lists_of("new-model", public(prices, variant), (), source="s")

    assert (before.tier_permille, dict(after.tier_permille)) == ({}, {"batch": 500})
    assert dict(after.cached_tier_permille) == {"batch": 1_000}


def test_only_what_differs_is_drafted_from_its_day_on() -> None:
    """The past that both agree on stays as the book has it."""
    book = in_book(input_text=1, output_text=2, thoughts=2)
    later = ConditionalPrice(
        constraint=StartDateConstraint(date(2027, 1, 1)),
        prices=ModelPrice(input_mtok=Decimal(2), output_mtok=Decimal(4)),
    )
    now = ConditionalPrice(prices=ModelPrice(input_mtok=Decimal(1), output_mtok=Decimal(2)))

    lists, _ = lists_of("new-model", public([now, later]), book.history("new-model"), source="s")

    assert [one.effective_from.isoformat() for one in lists] == ["2027-01-01T00:00:00-08:00"]


@pytest.mark.parametrize("sku", SKUS)
def test_every_price_is_written_in_the_units_that_files_quote_it_in(sku: str) -> None:
    """A dollar and a quarter reads back as what it was."""
    nanos = int(Decimal("1.25") * 10**9 * 1_000_000 / SKUS[sku].quote_units)
    one = PriceList(model="m-1", effective_from=FROM, source="s", nanos_per_million={sku: nanos})

    assert f'{sku} = "1.25"' in price_file_text([one], note="n")
